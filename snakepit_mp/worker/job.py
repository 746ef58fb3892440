"""How do the thread that serves a request and the main thread that runs it meet?"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from ..lanes.envelope import Frame, Header, Outbound, header_of, whole

__all__ = ["BatchJob", "Job", "JobCancelled", "JobRefused", "Journal", "RunnableJob"]

#: Items that a streaming tool may be ahead of what has been sent.
_BUFFERED_ITEMS = 4


class JobCancelled(Exception):
    """Nobody waits for this job any more."""


class JobRefused(Exception):
    """The worker is stopping; nothing of this job was done."""


class RunnableJob(Protocol):
    """What whoever runs a tool needs of a job, on whichever lane it came."""

    frame: Frame
    header: Header
    retry_on: tuple[type[Exception], ...]

    @property
    def cancelled(self) -> bool: ...

    @property
    def finished(self) -> bool: ...

    def put(self, reply: Outbound) -> None: ...

    def try_put(self, reply: Outbound) -> bool: ...

    def finish(self, reply: Outbound) -> None: ...

    def when_cancelled(self, call: Callable[[], object] | None) -> None: ...


class Journal(Protocol):
    """Where the results of a batch are left; a `Mailbox` has it."""

    def open_journal(self) -> None: ...

    def claim(self, note: int) -> bool: ...

    def enter(self, note: int) -> None: ...

    def standing(self) -> tuple[int, int]: ...

    def record(self, result: bytes, failed: bool) -> bool: ...


class BatchJob(RunnableJob, Protocol):
    """What came is several items, and there is a journal for their results."""

    journal: Journal


class Job:
    """One request: its frame, and the reply frames on their way back.

    `put`, `try_put` and `finish` belong to the thread that runs the tool, `frames` and
    `result` to the one that serves the request; `cancel` may come from any. ``abandoned``
    is called with a job that is both finished and cancelled: its caller may not have seen
    the end, so the end has to be told in another way.
    """

    def __init__(
        self, frame: bytes, *, abandoned: Callable[[Job], object] = lambda job: None
    ) -> None:
        self.frame = frame
        self.header: Header = header_of(frame)
        self.retry_on: tuple[type[Exception], ...] = ()  # which exceptions of its tool
        self._abandoned = abandoned
        self._changed = threading.Condition()
        self._replies: deque[bytes] = deque()
        self._finished = False
        self._refused = False
        self._cancelled = False
        self._on_cancel: Callable[[], object] | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    @property
    def finished(self) -> bool:
        return self._finished

    def put(self, reply: Outbound) -> None:
        """Hand over one of several replies; waits while the buffer is full.

        Raises `JobCancelled`, also while it waits.
        """
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._append(reply)

    def try_put(self, reply: Outbound) -> bool:
        """As `put`, but returns ``False`` where that would wait or raise."""
        with self._changed:
            if self._cancelled or not self._has_room():
                return False
            self._append(reply)
            return True

    def finish(self, reply: Outbound) -> None:
        """Hand over the last reply; never waits."""
        with self._changed:
            self._replies.append(whole(reply))
            self._finished = True
            self._changed.notify_all()
            if self._cancelled:
                self._abandoned(self)

    def refuse(self) -> None:
        """There will be no reply: whoever waits gets `JobRefused`."""
        with self._changed:
            self._refused = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Nobody wants the replies: wake both sides with `JobCancelled`."""
        with self._changed:
            if self._cancelled:
                return
            self._cancelled = True
            self._changed.notify_all()
            if self._on_cancel is not None:
                self._on_cancel()
            if self._finished:
                self._abandoned(self)

    def when_cancelled(self, call: Callable[[], object] | None) -> None:
        """Have this called, in any thread, by `cancel`; at once if it came already.

        ``None`` takes it back: after that it is not called, nor being called.
        """
        with self._changed:
            self._on_cancel = call
            if self._cancelled and call is not None:
                call()

    def frames(self) -> Iterator[bytes]:
        """The replies as they come; raises `JobCancelled` or `JobRefused`."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news)
                if self._cancelled:
                    raise JobCancelled
                if self._refused:
                    raise JobRefused
                if not self._replies:
                    return
                reply = self._replies.popleft()
                self._changed.notify_all()
            yield reply

    def result(self) -> bytes:
        """The only reply; raises as `frames` does."""
        return next(self.frames())

    def _has_room(self) -> bool:
        return self._cancelled or len(self._replies) < _BUFFERED_ITEMS

    def _has_news(self) -> bool:
        return bool(self._replies) or self._finished or self._refused or self._cancelled

    def _append(self, reply: Outbound) -> None:
        if self._cancelled:
            raise JobCancelled
        self._replies.append(whole(reply))
        self._changed.notify_all()
