"""What do all RPCs have in common? Errors become statuses, and a server can wait for them."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from ..errors import InvalidArguments, PoolClosed, PoolSaturated, SnakepitError
from .status import code_of, details, text_of

__all__ = ["VALUES_KEY", "RpcGate", "ToolCalls", "rpc", "wants_lossless"]

_Method = TypeVar("_Method", bound=Callable[..., Any])

#: The request header by which a client asks for values in the lossless encoding.
VALUES_KEY = "x-snakepit-mp-values"
_FORMS = {"json": False, "lossless": True}


class RpcGate:
    """Counts the RPCs that are not answered yet, and lets no more in once it is closed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = True
        self._inside = 0

    def enter(self, context: Any) -> None:
        """Count an RPC until gRPC is done with it: answered, cancelled, or lost."""
        with self._changed:
            if not self._open:
                raise PoolClosed("the application is shutting down")
            self._inside += 1
        if not context.add_callback(self._leave):
            self._leave()  # it is over already

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self, timeout: float | None) -> None:
        """Let no more in, and wait until nobody is inside, at most ``timeout`` seconds."""
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: self._inside == 0, timeout)


class ToolCalls:
    """Bounds the tool calls that run or wait at one time, and knows their sessions.

    Each holds a thread. Without a bound they could take all of them, and nobody could even
    ask how the application is.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._total = 0
        self._by_session: dict[str, int] = {}

    @contextmanager
    def running(self, session_id: str | None) -> Iterator[None]:
        """Count a call while it lasts. Raises `PoolSaturated`."""
        self._add(session_id)
        try:
            yield
        finally:
            self._remove(session_id)

    def _add(self, session_id: str | None) -> None:
        with self._lock:
            if self._total >= self._most:
                raise PoolSaturated(f"{self._most:,} tool calls are in hand; no more are taken")
            self._total += 1
            if session_id is not None:
                self._by_session[session_id] = self._by_session.get(session_id, 0) + 1

    def _remove(self, session_id: str | None) -> None:
        with self._lock:
            self._total -= 1
            if session_id is not None:
                self._by_session[session_id] -= 1
                if not self._by_session[session_id]:
                    del self._by_session[session_id]

    def count(self, session_id: str) -> int:
        """How many calls of clients run in that session."""
        with self._lock:
            return self._by_session.get(session_id, 0)


def rpc(method: _Method) -> _Method:
    """Make a method of a servicer, which has a ``gate``, answer errors of ours with a status."""
    if inspect.isgeneratorfunction(method):

        @functools.wraps(method)
        def stream(self: Any, request: Any, context: Any) -> Iterator[Any]:
            try:
                self.gate.enter(context)
                yield from method(self, request, context)
            except (SnakepitError, CancelledError) as error:
                context.abort(code_of(error), details(text_of(error)))

        return cast("_Method", stream)

    @functools.wraps(method)
    def answer(self: Any, request: Any, context: Any) -> Any:
        try:
            self.gate.enter(context)
            return method(self, request, context)
        except (SnakepitError, CancelledError) as error:
            context.abort(code_of(error), details(text_of(error)))

    return cast("_Method", answer)


def wants_lossless(context: Any) -> bool:
    """Whether the client asked for the lossless encoding in the header of its request."""
    for key, form in context.invocation_metadata():
        if key == VALUES_KEY:
            if form not in _FORMS:
                known = " or ".join(repr(name) for name in _FORMS)
                raise InvalidArguments(f"the header {VALUES_KEY} must be {known}, not {form!r}")
            return _FORMS[form]
    return False
