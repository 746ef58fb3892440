"""How does a submitted call run? Sent by whoever brings its grant; nobody waits for it.

Calls of one kin that wait one behind the other are fetched ahead: the brain grants them together,
as a batch, and the worker finds the next one there when it is through with one. Each keeps its
future, its clocks and, should it come back to the line, its number. The batch is split where one
of them matters: where it is slow, is cancelled or late, or its worker dies; then what is done is
answered, the one in hand has the batch's request for itself, and the others wait again.

A batch is split, and lands, in the watcher's thread alone; so is the death of its worker told.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from ..core import events
from ..errors import CodecError
from ..lanes import envelope
from ..lanes.envelope import Frame, Kind
from ..lanes.lane import LaneBroken
from ..telemetry.logs import logger
from .calls import Calls, submitted
from .engine import Engine
from .journal import BETWEEN, SLOW, journal_of, lane_of, last_of
from .waiter import FutureWaiter, Grant, PoolFuture, Ticket, Waiter
from .watcher import Timer

__all__ = ["Futures"]

#: Makes an event of a request's number.
_Told = Callable[[int], events.Event]


class _Group:
    """Calls that were granted together, under the number of the first."""

    def __init__(self, grant: Grant, places: list[_Submitted]) -> None:
        self.grant = grant
        self.places = places
        self.number = places[0].ticket.request_id
        #: How many travel in it; 0 once it was split, or has landed.
        self.items = len(places)
        self.last: _Submitted | None = None  # whom a split has left the request
        self.timer: Timer | None = None

    def end(self) -> None:
        """It is none any more; the timer would keep all results for a while."""
        self.items = 0
        if self.timer is not None:
            self.timer.cancel()

    @property
    def kin(self) -> bytes:
        kin = self.places[0].ticket.kin
        assert kin is not None
        return kin


class _Submitted(FutureWaiter):
    """The place of a submitted call."""

    def __init__(self, ticket: Ticket, future: PoolFuture, futures: Futures) -> None:
        super().__init__(ticket, future, futures.replied)
        self._futures = futures
        self.timers: list[Timer] = []
        self.group: _Group | None = None  # changed while its request is held: see `Places.held`
        self.told = False  # its outcome is known
        self.since = 0.0

    def granted(self, grant: Grant) -> bool:
        self.since = time.monotonic()
        return super().granted(grant)

    def granted_with(self, grant: Grant, others: Sequence[Waiter | None]) -> bool:
        places = [self, *(other for other in others if isinstance(other, _Submitted))]
        return len(places) == 1 + len(others) and self._futures.send(_Group(grant, places))

    def worker_died(self, worker_id: int, incarnation: int) -> bool:
        group = self.group
        if group is None or group.grant[:2] != (worker_id, incarnation):
            return False
        return self._futures.worker_died(group)


class Futures:
    """Runs what is submitted on an engine's workers."""

    def __init__(self, engine: Engine, calls: Calls) -> None:
        self._engine = engine
        self._calls = calls
        self._allow_pickle = engine.config.allow_pickle

    def submit(self, ticket: Ticket, *, wait: bool = True) -> PoolFuture:
        """Put it in line; with ``wait``, block while the line is full."""
        # Weakly: else place and future would hold each other, and the result, for a while.
        future = PoolFuture(
            lambda: self._withdraw(place(), ticket.request_id),
            self._allow_pickle,
            self._engine.callbacks.run,
        )
        waiter = _Submitted(ticket, future, self)
        place = weakref.ref(waiter)
        self._engine.register(waiter)
        self._set_timers(waiter)
        future.when_settled(lambda: self._settled(place()))
        self._engine.handle(submitted(ticket))
        if wait:
            waiter.wait_admitted()
        return future

    def _set_timers(self, waiter: _Submitted) -> None:
        ticket, watcher = waiter.ticket, self._engine.watcher
        if ticket.deadline is None and ticket.queue_deadline is None:
            return
        now = time.monotonic()
        limits: list[tuple[float | None, _Told]] = [
            (ticket.deadline, events.DeadlineExpired),
            (ticket.queue_deadline, events.QueueTimeExpired),
        ]
        for until, event in limits:
            if until is not None:
                waiter.timers.append(watcher.after(until - now, self._telling(waiter, event)))

    def _settled(self, waiter: _Submitted | None) -> None:
        if waiter is not None:
            for timer in waiter.timers:
                timer.cancel()
            self._engine.places.forget(waiter)

    def _withdraw(self, waiter: _Submitted | None, request_id: int) -> None:
        """Nobody wants it any more. Who has no place any more travels in no group either."""
        if waiter is None:
            self._calls.withdraw(request_id)
        else:
            group = waiter.group
            if group is not None and group.items:
                # At once, so that a worker does not get there before the watcher.
                lane_of(group.grant).take_back()
            # By the watcher: garbage may be what cancels, in the middle of anything.
            self._engine.watcher.call(self._telling(waiter, events.RequestCancelled))

    def _telling(self, waiter: _Submitted, event: _Told) -> Callable[[], None]:
        return lambda: self._tell(waiter, event)

    def _tell(self, waiter: _Submitted, event: _Told) -> None:
        """Tell the brain of this one alone."""
        group = waiter.group
        together = (
            group is not None
            and group.items
            and self._engine.places.held(group.number, group.grant)
        )
        if together and group is not None and not self._split_if_in_hand(group):
            # It is between two items, and will land, or can be split, at once.
            self._tell_later(waiter, event)
        elif not waiter.told:

            def alone() -> events.Event | None:
                # Else it was granted with others, and is being sent in this moment.
                same = waiter.group is group
                return event(waiter.ticket.request_id) if same else None

            number = waiter.ticket.request_id
            open_or_over = waiter.future.done() or self._engine.knows(number)
            if not (open_or_over and self._engine.decide(alone)):
                self._tell_later(waiter, event)

    def _tell_later(self, waiter: _Submitted, event: _Told) -> None:
        again = self._engine.watcher.after(BETWEEN, self._telling(waiter, event))
        waiter.timers.append(again)

    def replied(self, waiter: FutureWaiter, grant: Grant, reply: Frame | LaneBroken) -> None:
        """The worker is through with a call that went alone."""
        assert isinstance(waiter, _Submitted)
        if waiter.ticket.kin is not None:
            self._engine.paces.went_alone(waiter.ticket.kin, time.monotonic() - waiter.since)
        self._calls.replied(waiter, grant, reply)

    # -- together ----------------------------------------------------------------------

    def send(self, group: _Group) -> bool:
        """Send them; ``False`` if they cannot go together, since one is not wanted any more."""

        def enlist() -> None:
            for place in group.places:
                place.group = group

        if not self._engine.places.held(group.number, group.grant, enlist):
            return True  # the worker has died, and they are in line again
        if any(place.future.done() for place in group.places):
            group.end()
            return False
        group.places[0].future._started = True
        ticket = group.places[0].ticket
        body = envelope.encode_together(group.kin, [place.ticket.item for place in group.places])
        frame = envelope.frame(Kind.BATCH, group.number, 1, body, ticket.deadline)
        lane_of(group.grant).begin_batch(
            frame, group.items, lambda reply: self._ended(group, reply)
        )
        group.timer = self._engine.watcher.after(SLOW, lambda: self._too_slow(group))
        if not group.items:
            group.timer.cancel()
        return True

    def _too_slow(self, group: _Group) -> None:
        held = group.items and self._engine.places.held(group.number, group.grant)
        if held and self._split_if_in_hand(group):
            self._engine.paces.of(group.kin).measured(SLOW)

    def _ended(self, group: _Group, reply: Frame | LaneBroken) -> None:
        """The worker is through with all of it, or with what a split has left."""
        grant = group.grant
        if isinstance(reply, LaneBroken):
            self._broke(group)
            return
        try:
            if group.items:
                self._land(group, reply)
                return
            if group.last is None:
                return  # all of it is in line again
            reply = last_of(grant, group.number, reply)
        except (CodecError, ValueError, TypeError) as error:
            logger.error("worker %d sent what is no reply: %s", grant.worker_id, error)
            self._broke(group)
            return
        self._calls.replied(group.last, grant, reply)

    def _broke(self, group: _Group) -> None:
        grant = group.grant
        self._engine.handle(events.LaneBroke(group.number, grant.worker_id, grant.incarnation))

    def _land(self, group: _Group, reply: Frame) -> None:
        told = journal_of(group.grant, reply, group.items)
        done = len(told.outcomes)
        group.end()
        if done < len(group.places):  # the results had no room for more
            back = _wanted(group.places[done:])
            self._engine.handle(events.RequestSplit(group.number, done - 1, back))
        self._engine.completed(group.places[0].ticket, group.grant, failed=False)
        if told.each is not None:
            self._engine.paces.of(group.kin).measured(told.each)
        if told.cut:
            self._engine.paces.of(group.kin).at_most(done)
        _answer(group.places, told.outcomes)

    def _split_if_in_hand(self, group: _Group) -> bool:
        """Whether it was split; else none of it is in hand at this moment."""
        claimed, done = lane_of(group.grant).take_back()
        if claimed == done + 1:
            self._split(group, done)
        return not group.items

    def _split(self, group: _Group, done: int) -> None:
        """The first are done; leave the next one alone with the request."""
        places = group.places
        if done >= len(places):
            return  # nonsense, of which the reply will tell more
        try:
            outcomes: list[tuple[Frame, bool]] = list(lane_of(group.grant).journal(done))
        except ValueError as error:
            worker_id = group.grant.worker_id
            logger.error("a batch of worker %d cannot be split: %s", worker_id, error)
            return  # so all of it is to be judged by what the worker noted
        last = places[done]
        group.end()
        group.last = last
        last.future._started = True
        if done:
            self._engine.places.renumber(last, group.number)
            if last.future.done():
                self._engine.places.forget(last)
        back = _wanted(places[done + 1 :])
        self._engine.handle(events.RequestSplit(group.number, done, back))
        _answer(places, outcomes)

    def worker_died(self, group: _Group) -> bool:
        """Leave the request what the worker had in hand; whether that was not even begun."""
        if not group.items:
            return False
        claimed, done = lane_of(group.grant).take_back()
        if done == 0 and claimed == 0:
            group.end()
            return True  # the brain brings all of it back
        if claimed == done == group.items:
            try:
                self._land(group, envelope.encode_batched(group.number, done, 0))
            except ValueError as error:
                logger.error("worker %d left nonsense: %s", group.grant.worker_id, error)
            return False
        if claimed - done in (0, 1):
            self._split(group, done)
        return not group.items and claimed == done


def _wanted(places: list[_Submitted]) -> tuple[events.Request, ...]:
    return tuple(place.ticket.request() for place in places if not place.future.done())


def _answer(places: list[_Submitted], outcomes: list[tuple[Any, bool]]) -> None:
    for place, (data, failed) in zip(places, outcomes, strict=False):
        place.told = True
        number = place.ticket.request_id
        place.answered(data if failed else envelope.frame(Kind.VALUE, number, 0, bytes(data)))
