"""To which trace does a call belong? The W3C trace context that travels with it.

The format and its rules are those of W3C Trace Context, level 1
(https://www.w3.org/TR/trace-context-1/). A header that breaks them is dropped, as they say; it is
never an error. The library makes no spans: it hands on what it was given. Where the application has
imported OpenTelemetry, that is asked first, and told in the worker if it is imported there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

__all__ = ["TraceContext", "adopt", "current_trace", "trace_context"]

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
#: Characters of a ``tracestate`` that must at least be handed on.
_LONGEST_STATE = 512


@dataclass(frozen=True, slots=True)
class TraceContext:
    """``traceparent`` and ``tracestate`` as they travel; the rest is what the first one says."""

    traceparent: str
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        return self.traceparent[36:52]

    @classmethod
    def parse(cls, traceparent: object, tracestate: object = "") -> TraceContext | None:
        """``None`` for a ``traceparent`` that is none; a wrong ``tracestate`` is left out."""
        if not isinstance(traceparent, str):
            return None
        found = _TRACEPARENT.fullmatch(traceparent)
        if found is None:
            return None
        version, trace_id, span_id, _, rest = found.groups()
        if version == "ff" or (version == "00" and rest is not None):
            return None
        if not trace_id.strip("0") or not span_id.strip("0"):
            return None
        fits = isinstance(tracestate, str) and len(tracestate) <= _LONGEST_STATE
        return cls(traceparent, str(tracestate) if fits and str(tracestate).isprintable() else "")


_current: ContextVar[TraceContext | None] = ContextVar("snakepit_mp_trace", default=None)


def current_trace() -> TraceContext | None:
    """The trace to which what runs here belongs, or ``None``."""
    propagate: Any = sys.modules.get("opentelemetry.propagate")
    if propagate is not None:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        found = TraceContext.parse(carrier.get("traceparent"), carrier.get("tracestate", ""))
        if found is not None:
            return found
    return _current.get()


@contextmanager
def trace_context(traceparent: str | None, tracestate: str = "") -> Iterator[TraceContext | None]:
    """Calls made within belong to this trace; one that breaks the rules, or ``None``, to none."""
    trace = TraceContext.parse(traceparent, tracestate)
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


def adopt(trace: TraceContext | None) -> None:
    """What runs in this context from here on belongs to ``trace``."""
    _current.set(trace)
    propagate: Any = sys.modules.get("opentelemetry.propagate")
    context: Any = sys.modules.get("opentelemetry.context")
    if trace is not None and propagate is not None and context is not None:
        carrier = {"traceparent": trace.traceparent, "tracestate": trace.tracestate}
        context.attach(propagate.extract(carrier))
