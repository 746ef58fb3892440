"""How is a tool stopped that nobody waits for? By an exception in the worker's main thread.

The application writes the request's number on the status page and sends a signal, which
reaches a tool also where it sleeps or waits for something. The handler runs in the same thread
as the tool, so whether that request still runs and the raising are one step: the exception
cannot hit the next one. Neither does it hit the library's own code, which may hold a lock:
there it is put off until that has returned.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from ..lanes.status import INTERRUPT_SIGNAL, StatusPage

__all__ = ["Interrupted", "Interrupts"]

_PACKAGE = __name__.partition(".")[0] + "."
#: Whose frames are the last of ours before the tool's.
_CALLER = __name__.rpartition(".")[0] + ".executor"


class Interrupted(BaseException):
    """Raised in a tool whose caller has gone: its time is up, or the call was cancelled.

    A ``finally`` or ``with`` block of the tool may tidy up; there is little time.
    """


class Interrupts:
    """The handler of the signal. ``armed``: the request whose tool may be interrupted, or 0.

    ``late`` is called with the number of a request that is not being run, or not any more; in
    the main thread, between any two steps of it.
    """

    def __init__(self, status: StatusPage, late: Callable[[int], object]) -> None:
        self.armed = 0
        self._status = status
        self._late = late
        self._cancel_task: Callable[[], object] | None = None
        self._winding_down = False
        self._warned = 0  # the request that has had its gentler signal

    def listen(self) -> None:
        """Install the handler; for the main thread."""
        signal.signal(INTERRUPT_SIGNAL, self._arrived)

    def check(self) -> None:
        """Raise if the armed request was interrupted before it was armed."""
        if self._status.interrupted() == self.armed:
            raise Interrupted

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """A block in a coroutine whose task is cancelled first, before anything is raised."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._cancel_task = partial(loop.call_soon_threadsafe, task.cancel)
        try:
            yield
        finally:
            self._cancel_task = None

    @contextmanager
    def winding_down(self) -> Iterator[None]:
        """A block in which the tool is being closed already: the first signal is not needed."""
        self._winding_down = True
        try:
            yield
        finally:
            self._winding_down = False

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        request_id = self._status.interrupted()
        if request_id != self.armed:
            self._late(request_id)
            return
        if self._warned != request_id and (self._winding_down or self._cancel_task is not None):
            self._warned = request_id
            if self._cancel_task is not None and not self._winding_down:
                self._cancel_task()
            return
        ours = _outermost_of_ours(frame)
        if ours is None:
            raise Interrupted
        if sys.getprofile() is None:  # else somebody measures, and the next signal may do better
            sys.setprofile(partial(self._leaving, ours, request_id))

    def _leaving(
        self, ours: FrameType, request_id: int, frame: FrameType, event: str, _: Any
    ) -> None:
        """Called for every step until the library's code has returned to the tool."""
        if event == "return" and frame is ours:
            sys.setprofile(None)
            if self.armed == request_id:
                raise Interrupted


def _outermost_of_ours(frame: FrameType | None) -> FrameType | None:
    """The frame by which the tool entered our own code; ``None`` if it is in its own."""
    found = None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if isinstance(module, str) and module.startswith(_PACKAGE):
            if module == _CALLER:
                break
            found = frame
        frame = frame.f_back
    return found
