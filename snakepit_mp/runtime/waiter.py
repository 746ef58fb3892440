"""Where does a caller wait? A place for each request: in line, at work, answered.

A place gets any number of grants (one for each worker that is to run the request) and at
the most one failure. A blocked caller takes them out of its inbox in its own thread;
a future's place sends the request from whichever thread brings the grant.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any, NamedTuple

from ..core.events import Request
from ..errors import CodecError
from ..lanes import envelope
from ..lanes.envelope import Frame, Outbound
from ..lanes.lane import Lane, LaneBroken
from ..lanes.waits import wait_for

__all__ = ["BlockingWaiter", "FutureWaiter", "Grant", "PoolFuture", "Ticket", "Waiter"]


class Grant(NamedTuple):
    """The right to run one request on one incarnation of a worker."""

    worker_id: int
    incarnation: int
    attempt: int
    lane: Lane


class Ticket(NamedTuple):
    """A request as the engine sees it: encoded, with its limits.

    ``deadline`` and ``queue_deadline`` are on ``time.monotonic()``; ``timeout`` is what the
    caller asked for, in seconds, for the message. ``retries`` and ``affinity`` as in
    `Request`, and ``tool``. ``items``: of a batch, 0 for a call. ``kin`` and ``item`` as in
    `Command`.
    """

    request_id: int
    command: str
    body: Outbound
    session_id: str | None
    streaming: bool
    idempotent: bool
    timeout: float | None
    deadline: float | None
    queue_deadline: float | None
    retries: int = 0
    affinity: str = "hint"
    tool: str | None = None
    items: int = 0
    kin: bytes | None = None
    item: bytes = b""

    def frame(self, attempt: int) -> Outbound:
        kind = envelope.Kind.BATCH if self.items else envelope.Kind.CALL
        return envelope.outbound(kind, self.request_id, attempt, self.body, self.deadline)

    def request(self) -> Request:
        """As the brain sees it."""
        return Request(
            self.request_id,
            self.session_id,
            self.idempotent,
            self.streaming,
            self.retries,
            self.deadline,
            self.affinity,
            self.tool,
            self.items or 1,
            self.kin,
            len(self.item),
        )


class Waiter:
    """The place of one request; see the module's docstring."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        #: The reply of an attempt of which the brain decides whether it is the last.
        self.reply: Frame = b""

    def granted(self, grant: Grant) -> bool:
        """Take the grant; ``False`` if the request is answered already."""
        raise NotImplementedError

    def granted_with(self, grant: Grant, others: Sequence[Waiter | None]) -> bool:
        """Take the grant for all of them, as far as they are known; ``False`` if they cannot travel
        together. Not asked of those that have no kin."""
        raise NotImplementedError

    def unwanted(self) -> bool:
        """Whether that is because its caller has gone."""
        return False

    def admitted(self) -> None:
        """The request has a place in the line: a submitter need not wait any longer."""
        raise NotImplementedError

    def failed(self, error: BaseException) -> None:
        """The request will not be run (again)."""
        raise NotImplementedError

    def delivered(self) -> None:
        """The request will not be run again: ``reply`` is its answer."""
        raise NotImplementedError

    def worker_died(self, worker_id: int, incarnation: int) -> bool:
        """The worker that has it in hand has ended, which the brain is told next; whether
        nothing of it was begun, whatever the worker noted."""
        return False


class BlockingWaiter(Waiter):
    """A caller that blocks in its own thread."""

    def __init__(self, ticket: Ticket) -> None:
        super().__init__(ticket)
        self._inbox: queue.SimpleQueue[Grant | Frame | BaseException] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False

    def granted(self, grant: Grant) -> bool:
        with self._lock:
            if not self._closed:
                self._inbox.put(grant)
            return not self._closed

    def admitted(self) -> None:
        pass  # it waits for its grant anyway

    def failed(self, error: BaseException) -> None:
        self._inbox.put(error)

    def delivered(self) -> None:
        self._inbox.put(self.reply)

    def take(self, until: float | None) -> Grant | Frame | None:
        """The next grant, or the reply; ``None`` when ``until`` has passed; raises the failure."""
        item = wait_for(self._next, until)
        if isinstance(item, BaseException):
            try:
                raise item
            finally:
                del item  # the traceback would keep the frame, and the frame the error
        return item

    def _next(self, seconds: float | None) -> Grant | Frame | BaseException | None:
        try:
            return self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> list[Grant]:
        """Refuse later grants; those that came and were not used."""
        unused = []
        with self._lock:
            self._closed = True
            while not self._inbox.empty():
                item = self._inbox.get_nowait()
                if isinstance(item, Grant):
                    unused.append(item)
        return unused


class PoolFuture(Future[Any]):
    """What `Pool.submit` returns: a ``concurrent.futures.Future``.

    `cancel` also stops work that runs already. The result is decoded in the thread that
    asks for it, so that no thread of the pool runs what a reply brings with it.
    """

    def __init__(
        self,
        cancel: Callable[[], None],
        allow_pickle: bool,
        dispatch: Callable[[Callable[[], object]], None],
    ) -> None:
        super().__init__()
        self._withdraw = cancel
        self._dispatch = dispatch
        self.allow_pickle = allow_pickle
        self._started = False
        self._notified = False
        self._lock = threading.Lock()
        self._reply: envelope.Reply | None = None

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Call ``fn(future)`` at once if it is done, else in the pool's callback thread."""
        here = threading.get_ident()
        adding = True

        def call(future: Future[Any]) -> None:
            if adding and threading.get_ident() == here:
                fn(future)
            else:
                self._dispatch(lambda: fn(future))

        super().add_done_callback(call)
        adding = False

    def when_settled(self, tidy: Callable[[], None]) -> None:
        """Call ``tidy`` in whichever thread settles it; for the pool's own quick steps."""
        super().add_done_callback(lambda _: tidy())

    def running(self) -> bool:
        return self._started and not self.done()

    def cancel(self) -> bool:
        """Withdraw waiting work, stop running work; ``False`` only if it has ended."""
        # The state stays PENDING while the tool runs, so the base class lets us.
        if not super().cancel():
            return False
        with self._lock:
            first, self._notified = not self._notified, True
        if first:
            self.set_running_or_notify_cancel()  # wakes `wait` and `as_completed`
            self._withdraw()
        return True

    def result(self, timeout: float | None = None) -> Any:
        reply = self._decoded(super().result(timeout))
        if reply.error is not None:
            try:
                raise reply.error
            finally:
                del reply  # the traceback would keep the frame, and the frame the error
        return reply.value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        error = super().exception(timeout)
        if error is not None:
            return error
        return self._decoded(super().result()).error

    def _decoded(self, frame: Frame) -> envelope.Reply:
        with self._lock:
            if self._reply is None:
                try:
                    self._reply = envelope.decode_reply(frame, allow_pickle=self.allow_pickle)
                except CodecError as error:
                    number = envelope.header_of(frame).request_id
                    self._reply = envelope.Reply(envelope.Kind.ERROR, number, error=error)
            return self._reply


class FutureWaiter(Waiter):
    """The place of a submitted request: nobody blocks on it."""

    def __init__(
        self,
        ticket: Ticket,
        future: PoolFuture,
        on_reply: Callable[[FutureWaiter, Grant, Frame | LaneBroken], None],
    ) -> None:
        super().__init__(ticket)
        self.future = future
        self._on_reply = on_reply
        # An event would take far longer to make.
        self._admitted: queue.SimpleQueue[None] = queue.SimpleQueue()

    def granted(self, grant: Grant) -> bool:
        if self.future.done():
            return False
        self.future._started = True
        frame = self.ticket.frame(grant.attempt)
        try:
            grant.lane.begin(frame, lambda reply: self._on_reply(self, grant, reply))
        except CodecError as error:  # too large for the lane
            self.failed(error)
            return False
        return True

    def unwanted(self) -> bool:
        return self.future.cancelled()

    def admitted(self) -> None:
        self._admitted.put(None)

    def wait_admitted(self) -> None:
        """Block the submitter while the line is full."""
        wait_for(self._was_admitted)

    def _was_admitted(self, seconds: float | None) -> bool:
        try:
            self._admitted.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def answered(self, frame: Frame) -> None:
        self._settle(lambda: self.future.set_result(frame))

    def delivered(self) -> None:
        self.answered(self.reply)

    def failed(self, error: BaseException) -> None:
        self.admitted()
        if isinstance(error, CancelledError):
            if self.future.cancel():
                return
        else:
            self._settle(lambda: self.future.set_exception(error))

    def _settle(self, settle: Callable[[], None]) -> None:
        try:
            settle()
        except InvalidStateError:
            # The first answer stands: a cancellation in this very moment, or the reply of a
            # worker that was taken for dead before it was read.
            assert self.future.done()
