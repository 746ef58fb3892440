"""How does one call run? In the caller's own thread: take a place, get a worker, carry, answer.

`execute` and `stream` block; what is submitted is answered by the thread that brings the reply.
Whoever holds a grant reports how it ended, so no worker stays busy
with a request that nobody asks for any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

from ..core import events
from ..errors import CodecError
from ..lanes import envelope
from ..lanes.envelope import Frame, Kind, Reply
from ..lanes.lane import FrameStream, LaneBroken, LaneTimeout
from ..telemetry.logs import logger
from .engine import Engine
from .waiter import BlockingWaiter, FutureWaiter, Grant, Ticket, Waiter

__all__ = ["Calls", "submitted"]


class Calls:
    """Runs requests on an engine's workers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._allow_pickle = engine.config.allow_pickle

    # -- execute -----------------------------------------------------------------------

    def execute(self, ticket: Ticket) -> Reply:
        """Run it and wait; raises what the pool has to say, the reply holds what the tool said."""
        waiter = BlockingWaiter(ticket)
        with _Place(self._engine, waiter) as place:
            frame = None
            next_step: Grant | Frame | None = place.grant
            while frame is None:
                if next_step is None:
                    next_step = self._await_grant(waiter, ticket.deadline)
                if isinstance(next_step, Grant):
                    frame = self._carry(waiter, next_step)
                    next_step = None
                else:
                    frame = next_step
        return self.decode(frame)

    def _carry(self, waiter: BlockingWaiter, grant: Grant) -> Frame | None:
        """One attempt; ``None`` if it came to nothing, and the brain decides what is next."""
        ticket = waiter.ticket
        try:
            frame = grant.lane.call(ticket.frame(grant.attempt), ticket.deadline)
        except LaneTimeout:
            self._engine.handle(events.DeadlineExpired(ticket.request_id))
            return None
        except LaneBroken:
            self.broke(ticket, grant)
            return None
        except CodecError:  # too large for the lane, so nothing was sent
            self.completed(ticket, grant)
            raise
        return frame if self.replied_finally(waiter, grant, frame) else None

    def replied_finally(self, waiter: Waiter, grant: Grant, frame: Frame) -> bool:
        """Report a reply that ends its attempt; ``False`` if the brain decides about another."""
        ticket = waiter.ticket
        if envelope.is_value(frame):
            self.completed(ticket, grant)
            return True
        header = envelope.header_of(frame)
        if not (ticket.retries and header.retryable):
            self.completed(ticket, grant, failed=header.kind is Kind.ERROR)
            return True
        waiter.reply = frame
        self._engine.handle(
            events.AttemptFailed(ticket.request_id, grant.worker_id, grant.incarnation)
        )
        return False

    def _await_grant(self, waiter: BlockingWaiter, deadline: float | None) -> Grant | Frame:
        """Wait in line, or for the next attempt; the answer, if there is none.

        Of the limits, each is reported to the brain, which may know better.
        """
        ticket = waiter.ticket
        limits: list[tuple[float, events.Event]] = []
        if deadline is not None:
            limits.append((deadline, events.DeadlineExpired(ticket.request_id)))
        if ticket.queue_deadline is not None:
            limits.append((ticket.queue_deadline, events.QueueTimeExpired(ticket.request_id)))
        for until, event in sorted(limits, key=lambda limit: limit[0]):
            next_step = waiter.take(until)
            if next_step is not None:
                return next_step
            self._engine.handle(event)
        next_step = waiter.take(None)
        assert next_step is not None  # without a limit it returns something or raises
        return next_step

    def completed(self, ticket: Ticket, grant: Grant, *, failed: bool = False) -> None:
        """It has its answer, and the worker is free."""
        self._engine.completed(ticket, grant, failed=failed)

    def broke(self, ticket: Ticket, grant: Grant) -> None:
        self._engine.handle(events.LaneBroke(ticket.request_id, grant.worker_id, grant.incarnation))

    # -- what nobody blocks on ---------------------------------------------------------

    def withdraw(self, request_id: int) -> None:
        """Nobody wants it any more."""
        # By the watcher: a map that is garbage may be what cancels, in the middle of anything.
        cancelled = events.RequestCancelled(request_id)
        self._engine.watcher.call(_handling(self._engine, cancelled))

    def replied(self, waiter: FutureWaiter, grant: Grant, reply: Frame | LaneBroken) -> None:
        """What a lane brings for a call that nobody blocks on."""
        if isinstance(reply, LaneBroken):
            self.broke(waiter.ticket, grant)
            return
        try:
            final = self.replied_finally(waiter, grant, reply)
        except CodecError as error:  # a worker that talks nonsense, in a thread of the lane
            logger.error("worker %d sent what is no reply: %s", grant.worker_id, error)
            self.broke(waiter.ticket, grant)
            return
        if final:
            waiter.answered(reply)

    # -- stream ------------------------------------------------------------------------

    def stream(self, ticket: Ticket) -> Generator[Any, None, None]:
        """The items as they come; closing the iterator stops the tool."""
        waiter = BlockingWaiter(ticket)
        with _Place(self._engine, waiter) as place:
            done = False
            next_step: Grant | Frame | None = place.grant
            while not done:
                if next_step is None:
                    next_step = self._await_grant(waiter, self._item_deadline(ticket))
                if not isinstance(next_step, Grant):
                    raise self._error_of(next_step)
                done = yield from self._items(waiter, next_step, place)
                next_step = None

    def _item_deadline(self, ticket: Ticket) -> float | None:
        return None if ticket.timeout is None else time.monotonic() + ticket.timeout

    def _error_of(self, frame: Frame) -> BaseException:
        error = self.decode(frame).error
        assert error is not None  # only failed attempts are asked about
        return error

    def _items(
        self, waiter: BlockingWaiter, grant: Grant, place: _Place
    ) -> Generator[Any, None, bool]:
        """One attempt; ``True`` if the stream is complete."""
        ticket = waiter.ticket
        frames = grant.lane.stream(ticket.frame(grant.attempt))
        place.stream = _ItemClock(self._engine, ticket, frames)
        progressed = False
        while True:
            frame = self._next_frame(ticket, grant, place)
            reply = None if frame is None else self.decode(frame)
            if reply is None or reply.kind is not Kind.ITEM:
                place.stream = None
            if frame is None or reply is None:
                return False
            if reply.kind is not Kind.ITEM:
                final = self.replied_finally(waiter, grant, frame)
                if final and reply.error is not None:
                    raise reply.error
                return final
            if not progressed:
                progressed = True
                self._engine.handle(events.RequestProgressed(ticket.request_id))
            yield reply.value

    def _next_frame(self, ticket: Ticket, grant: Grant, place: _Place) -> Frame | None:
        """``None`` if the lane broke, and the brain decides what is next."""
        assert place.stream is not None
        try:
            return next(place.stream)
        except LaneBroken:
            self.broke(ticket, grant)
            return None
        except CodecError:  # too large for the lane, so nothing was sent
            place.stream = None
            self.completed(ticket, grant)
            raise

    def decode(self, frame: Frame) -> Reply:
        return envelope.decode_reply(frame, allow_pickle=self._allow_pickle)


class _ItemClock:
    """A stream of frames of which each must come within the ticket's time-out."""

    def __init__(self, engine: Engine, ticket: Ticket, frames: FrameStream) -> None:
        self._engine = engine
        self._ticket = ticket
        self._frames = frames

    def __next__(self) -> Frame:
        if self._ticket.timeout is None:
            return next(self._frames)
        timer = self._engine.watcher.after(self._ticket.timeout, self._expire)
        try:
            return next(self._frames)
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._engine.handle(events.DeadlineExpired(self._ticket.request_id))
        self._frames.close()  # whoever waits for the item wakes, and finds the failure

    def close(self) -> None:
        self._frames.close()


class _Place:
    """A blocked caller's place: registered, submitted, and given up however it ends."""

    def __init__(self, engine: Engine, waiter: BlockingWaiter) -> None:
        self._engine = engine
        self._waiter = waiter
        self.stream: _ItemClock | None = None
        self.grant: Grant | None = None  # where it got a worker at once

    def __enter__(self) -> _Place:
        try:
            self.grant = self._engine.check_out(self._waiter)
            if self.grant is not None:
                return self
            self._engine.register(self._waiter)
            self._engine.handle(submitted(self._waiter.ticket))
        except BaseException:
            self._leave(interrupted=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is GeneratorExit:
            # By the watcher: the garbage collector may be what closes the generator, in the
            # middle of anything, with any lock held.
            self._engine.watcher.call(lambda: self._leave(interrupted=True))
        else:
            self._leave(interrupted=kind is not None)

    def _leave(self, *, interrupted: bool) -> None:
        ticket = self._waiter.ticket
        if self.stream is not None:
            self._wind_down(ticket, self.stream)
        elif interrupted:
            # A no-op unless the caller was interrupted while the request is still alive.
            self._engine.handle(events.RequestCancelled(ticket.request_id))
        for grant in self._waiter.close():
            self._engine.completed(ticket, grant, failed=False)
        self._engine.places.forget(self._waiter)

    def _wind_down(self, ticket: Ticket, stream: _ItemClock) -> None:
        """Left early: the tool is closed if it yields, or is interrupted, or killed."""
        stream.close()
        self._engine.handle(events.RequestCancelled(ticket.request_id))


def submitted(ticket: Ticket) -> events.RequestSubmitted:
    return events.RequestSubmitted(ticket.request())


def _handling(engine: Engine, event: events.Event) -> Callable[[], None]:
    return lambda: engine.handle(event)
