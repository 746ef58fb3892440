"""An adapter with tools of every kind, and arguments of bad character, for tests of the executor."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fix_timeouts import scaled
from fix_worker import Context, wait_for

from snakepit_mp.adapter import Adapter, tool

COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("COLOUR", default="grey")


class Uncodable:
    def __reduce__(self):
        raise TypeError("it stays here")


class RaisesWhenUnpickled:
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self):
        return _raise, (self.kind,)


def _raise(kind: type[BaseException]) -> None:
    raise kind("while unpickling")


class Tracked:
    """Tells when the copy that one thread has is gone."""

    let_go = threading.Event()

    def __init__(self, thread: str) -> None:
        self.thread = thread

    def __del__(self) -> None:
        if threading.current_thread().name == self.thread:
            self.let_go.set()


class Tools(Adapter):
    """One tool for each thing an executor does."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.closed = threading.Event()
        self.closed_in: threading.Thread | None = None
        self.loops: list[Any] = []

    @tool
    def add(self, a: int, b: int = 10) -> int:
        return a + b

    @tool
    def thread(self) -> str:
        return threading.current_thread().name

    @tool
    def fail(self, kind: Any) -> None:
        raise kind("by the tool")

    @tool
    def uncodable(self) -> Any:
        return {"rows": [1, Uncodable()]}

    @tool
    def wait(self) -> str:
        self.entered.set()
        wait_for(self.gate)
        return "done"

    @tool
    def context(self, ctx: Any) -> tuple[Any, ...]:
        assert isinstance(ctx, Context)
        return ctx.session_id, ctx.attempt, ctx.deadline

    @tool(required_variables=("temperature",))
    def warm(self) -> str:
        return "warm"

    @tool(required_variables=("temperature", "pressure"))
    def squeezed(self) -> str:
        return "never"

    @tool
    def colour(self, new: str) -> str:
        old = COLOUR.get()
        COLOUR.set(new)
        return old

    @tool
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @tool
    def fail_after(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise ValueError("no more")

    @tool
    def uncodable_item(self) -> Iterator[Any]:
        try:
            yield 1
            yield [Uncodable()]
        finally:
            self.closed.set()

    @tool
    def endless(self) -> Iterator[int]:
        try:
            while True:
                self.entered.set()
                yield 1
        finally:
            self.closed_in = threading.current_thread()
            self.closed.set()

    @tool
    def stubborn(self) -> Iterator[int]:
        while not self.closed.is_set():
            try:
                yield 1
            except GeneratorExit:
                self.closed.set()
                yield 2

    @tool
    def coloured(self, n: int) -> Iterator[str]:
        for number in range(n):
            COLOUR.set(str(number))
            yield COLOUR.get()

    @tool
    async def later(self, value: Any) -> Any:
        await asyncio.sleep(0)
        self.loops.append(asyncio.get_running_loop())
        return value

    @tool
    async def fail_later(self, kind: Any) -> None:
        await asyncio.sleep(0)
        raise kind("by the tool")

    @tool
    async def trickle(self, n: int) -> AsyncIterator[int]:
        async with asyncio.timeout(scaled(10)):  # breaks if steps run in different tasks
            for number in range(n):
                await asyncio.sleep(0)
                yield number

    @tool
    async def trickle_then_fail(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("no more")

    @tool
    async def endless_async(self) -> AsyncIterator[int]:
        try:
            while True:
                self.entered.set()
                yield 1
        finally:
            await asyncio.sleep(0)  # what a tool awaits while it is closed is not disturbed
            self.closed.set()

    @tool
    async def silent_async(self) -> AsyncIterator[int]:
        try:
            self.entered.set()
            await asyncio.Event().wait()
            yield 1
        finally:
            self.closed.set()
