"""Context variables, and an adapter whose tools tell what they see of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from snakepit_mp import Adapter, tool
from snakepit_mp.telemetry.trace import current_trace

USER: ContextVar[Any] = ContextVar("user", default="nobody")
TENANT: ContextVar[str] = ContextVar("tenant")
PLAIN = "no variable"
NAMES = ("context_adapters:USER", "context_adapters:TENANT")


def seen() -> tuple[Any, str]:
    return USER.get(), TENANT.get("none")


def trace() -> tuple[str, str] | None:
    found = current_trace()
    return None if found is None else (found.traceparent, found.tracestate)


class Seeing(Adapter):
    @tool
    def see(self) -> tuple[Any, str]:
        found = seen()
        USER.set("left behind")
        return found

    @tool
    async def see_later(self) -> tuple[Any, str]:
        return seen()

    @tool
    def see_twice(self) -> Iterator[tuple[Any, str]]:
        yield seen()
        yield seen()

    @tool
    def trace(self) -> tuple[str, str] | None:
        return trace()

    @tool
    async def trace_later(self) -> tuple[str, str] | None:
        return trace()

    @tool
    def traces(self) -> Iterator[str]:
        yield str(trace())

    @tool
    def talk(self) -> None:
        logging.getLogger("context_adapters.talk").warning("talked")
