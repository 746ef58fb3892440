"""How do tiny items travel together? As one request, which comes apart where one item matters.

A batch is one request to the brain and one frame to a worker, which runs its items one by one
and leaves each result in the mailbox's journal. It *lands* when all are done. Before that it is
*split* where an item is slow, its time is up, or its worker dies: what is done has landed, the
item in hand keeps the request, as a call like any other, and what the worker had not touched
goes to the front of the line as a batch of its own. So deadlines, blame and reruns are those of
single items.

A batch is split, and lands, in the watcher's thread alone.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from ..core import events
from ..errors import CodecError
from ..lanes import envelope
from ..lanes.envelope import Call, Frame, Kind
from ..lanes.lane import LaneBroken
from ..telemetry.logs import logger
from ..values import codec
from .calls import Calls, submitted
from .engine import Engine
from .journal import BETWEEN, SLOW, journal_of, lane_of, last_of
from .tickets import Tickets
from .waiter import FutureWaiter, Grant, PoolFuture, Ticket
from .watcher import Timer

__all__ = ["Batch", "BatchFuture", "Batches", "Landing", "Outcome"]

_F = TypeVar("_F", bound=PoolFuture)


class Batch(NamedTuple):
    """Items of one command: for a tool, of ``call.command``, its keywords, else positionals."""

    call: Call
    items: list[Any]

    def body(self, *, allow_pickle: bool) -> bytes:
        """Encoded; a `CodecError` if an item can only travel by pickle, which is for calls."""
        call = self._with(tuple(self.items), {})
        return envelope.whole(
            envelope.encode_call(call, allow_pickle=allow_pickle, plain_args=True)
        )

    def single(self, at: int, *, allow_pickle: bool) -> envelope.Outbound:
        """One of them, as the body of a call."""
        item = self.items[at]
        call = self._with(item, {}) if self.call.command is None else self._with((), item)
        return envelope.encode_call(call, allow_pickle=allow_pickle)

    def after(self, done: int) -> Batch:
        return Batch(self.call, self.items[done:])

    @classmethod
    def of(cls, call: Call, body: envelope.Outbound, *, allow_pickle: bool) -> Batch:
        """What is in such a body: the items as they were, whatever became of the caller's."""
        data = envelope.frame(Kind.BATCH, 0, 0, envelope.whole(body))
        return cls(call, list(envelope.decode_call(data, allow_pickle=allow_pickle).args))

    def _with(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        call = self.call
        return Call(
            call.command,
            call.function,
            args,
            kwargs,
            call.session_id,
            False,
            call.context,
            call.trace,
        )


#: A value, or else an error.
Outcome = tuple[Any, BaseException | None]


class Landing(NamedTuple):
    """What came of a batch: outcomes, each a value's encoding or an ERROR frame, and which.

    ``then``: the futures of what was split off, in order. ``each``: seconds that the worker took
    for an item, where it was measured. ``cut``: the results had no room for more.
    """

    outcomes: list[tuple[Frame, bool]]
    then: tuple[PoolFuture, ...] = ()
    each: float | None = None
    cut: bool = False

    def results(self, *, allow_pickle: bool) -> tuple[list[Any], Iterator[Outcome]]:
        """The values up to the first error, decoded, and the outcomes from there on."""
        values: list[Any] = []
        try:
            for data, failed in self.outcomes:
                if failed:
                    break
                values.append(codec.decode(data, allow_pickle=allow_pickle, copy=False))
        except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001 - as in `_told`
            return values, self._outcomes(len(values), allow_pickle, undecodable=error)
        return values, self._outcomes(len(values), allow_pickle)

    def _outcomes(
        self, since: int, allow_pickle: bool, undecodable: BaseException | None = None
    ) -> Iterator[Outcome]:
        if undecodable is not None:
            yield None, _undecodable(undecodable)
            since += 1
        for data, failed in itertools.islice(self.outcomes, since, None):
            frame = data if failed else envelope.frame(Kind.VALUE, 0, 0, bytes(data))
            try:
                reply = envelope.decode_reply(frame, allow_pickle=allow_pickle)
            except CodecError as error:
                yield None, error
            else:
                yield reply.value, reply.error


def _undecodable(error: BaseException) -> CodecError:
    """As `decode_reply` has it."""
    if isinstance(error, CodecError):
        error.path = "result"
        return error
    told = CodecError(
        f"the result cannot be decoded: {type(error).__name__}: {error}", path="result"
    )
    told.__cause__ = error
    return told


class BatchFuture(PoolFuture):
    """The future of a batch of so many ``items``; its result is a `Landing`."""

    items = 0
    #: Has the worker keep no more than what it has in hand, and the rest withdrawn.
    abandon: Callable[[], None]

    def landing(self) -> Landing:
        """Waits for it. Raises what became of the batch as a whole."""
        landing: Landing = Future.result(self)
        return landing

    def failure(self) -> BaseException | None:
        """Waits for it; why all of its items failed, if they did."""
        return Future.exception(self)

    def split_off(self) -> tuple[PoolFuture, ...]:
        """What has been split off from it by now; does not wait."""
        landed = self.done() and not self.cancelled() and self.failure() is None
        return self.landing().then if landed else ()


class _BatchWaiter(FutureWaiter):
    """The place of a batch and, once it was split, of the item that keeps the request."""

    def __init__(self, ticket: Ticket, future: PoolFuture, call: Call, batches: Batches) -> None:
        super().__init__(ticket, future, batches.replied)
        self.call = call
        #: How many items it has; 0 once it was split, or has landed.
        self.items = ticket.items
        self.grant: Grant | None = None
        self.split_from: Grant | None = None  # the grant under which it was one
        self.abandoned = False
        self.timers: list[Timer] = []
        self._batches = batches

    def granted(self, grant: Grant) -> bool:
        if not self.items:
            return super().granted(grant)
        if self.future.done():
            return False
        self.future._started = True
        self.grant = grant
        if self.items > 1:
            self._batches.watch(self, grant)
        frame = envelope.whole(self.ticket.frame(grant.attempt))
        lane = lane_of(grant)
        lane.begin_batch(frame, self.items, lambda reply: self._on_reply(self, grant, reply))
        return True

    def worker_died(self, worker_id: int, incarnation: int) -> bool:
        return self._batches.worker_died(self)


class Batches:
    """Runs batches on an engine's workers, all of which are reached through mailboxes."""

    def __init__(self, engine: Engine, calls: Calls, tickets: Tickets) -> None:
        self._engine = engine
        self._calls = calls
        self._tickets = tickets
        self._allow_pickle = engine.config.allow_pickle

    def submit(self, batch: Batch, ticket: Ticket, *, wait: bool = True) -> BatchFuture:
        """Put it in line; with ``wait``, block while the line is full."""
        waiter, future = self._place(batch.call, ticket)
        self._engine.handle(submitted(ticket))
        if wait:
            waiter.wait_admitted()
        return future

    def _place(self, call: Call, ticket: Ticket) -> tuple[_BatchWaiter, BatchFuture]:
        """Registered, its clocks running."""
        future = self._future(BatchFuture, ticket.request_id)
        future.items = ticket.items
        waiter = _BatchWaiter(ticket, future, call, self)
        # Weakly: else they would hold each other, and all results, for a while.
        alive, itself = weakref.ref(waiter), weakref.ref(future)
        future.abandon = lambda: self._engine.watcher.call(lambda: self._abandon(alive(), itself()))
        self._engine.register(waiter)
        self._follow(waiter, future)
        watcher, now = self._engine.watcher, time.monotonic()
        if ticket.deadline is not None:
            expired = events.DeadlineExpired(ticket.request_id)
            waiter.timers.append(
                watcher.after(ticket.deadline - now, lambda: self._expire(waiter, expired))
            )
        if ticket.queue_deadline is not None:
            waited = events.QueueTimeExpired(ticket.request_id)
            waiter.timers.append(
                watcher.after(ticket.queue_deadline - now, lambda: self._engine.handle(waited))
            )
        return waiter, future

    def _future(self, kind: type[_F], request_id: int) -> _F:
        return kind(
            lambda: self._calls.withdraw(request_id),
            self._allow_pickle,
            self._engine.callbacks.run,
        )

    def _follow(self, waiter: _BatchWaiter, future: PoolFuture) -> None:
        followed, followed_by = weakref.ref(waiter), weakref.ref(future)

        def settled() -> None:
            place = followed()
            # Else there is none any more, or the request goes on without this future.
            if place is not None and place.future is followed_by():
                for timer in place.timers:
                    timer.cancel()
                self._engine.places.forget(place)

        future.when_settled(settled)

    def watch(self, waiter: _BatchWaiter, grant: Grant) -> None:
        """Split it, if it is not through in good time."""

        def slow() -> None:
            if waiter.grant is grant:
                self._split_if_in_hand(waiter)

        waiter.timers.append(self._engine.watcher.after(SLOW, slow))

    # -- what ends or splits a batch: all in the watcher's thread ---------------------------

    def replied(self, waiter: FutureWaiter, grant: Grant, reply: Frame | LaneBroken) -> None:
        """The worker is through with the batch, or with what a split has left of it."""
        assert isinstance(waiter, _BatchWaiter)
        of_batch = waiter.items > 0 or waiter.split_from is grant
        if isinstance(reply, LaneBroken) or not of_batch:
            self._calls.replied(waiter, grant, reply)
            return
        try:
            if waiter.items:
                self._land(waiter, grant, reply)
                return
            reply = last_of(grant, waiter.ticket.request_id, reply)
        except (CodecError, ValueError, TypeError) as error:
            logger.error("worker %d sent what is no reply: %s", grant.worker_id, error)
            self._calls.broke(waiter.ticket, grant)
            return
        self._calls.replied(waiter, grant, reply)

    def _land(self, waiter: _BatchWaiter, grant: Grant, reply: Frame) -> None:
        told = journal_of(grant, reply, waiter.items)
        outcomes = told.outcomes
        then = self._take_off(waiter, len(outcomes))
        waiter.items = 0
        self._calls.completed(waiter.ticket, grant)
        _settle(waiter.future, Landing(outcomes, then, told.each, told.cut))

    def _take_off(self, waiter: _BatchWaiter, done: int) -> tuple[PoolFuture, ...]:
        """Leave the request the last of what is ``done``, and put what is behind it in line."""
        if done == waiter.items:
            return ()
        rest, requests = self._rest(waiter, self._unpacked(waiter), done)
        self._engine.handle(events.RequestSplit(waiter.ticket.request_id, done - 1, requests))
        return rest

    def _unpacked(self, waiter: _BatchWaiter) -> Batch | CodecError:
        """Its items, read back; or why they cannot be, which may be for code of the user's."""
        try:
            return Batch.of(waiter.call, waiter.ticket.body, allow_pickle=self._allow_pickle)
        except Exception as error:  # noqa: BLE001 - and that must not end the watcher
            return _undecodable(error)

    def _rest(
        self, waiter: _BatchWaiter, batch: Batch | CodecError, done: int
    ) -> tuple[tuple[PoolFuture, ...], tuple[events.Request, ...]]:
        """The items from there on, as a batch that is registered and not yet in line."""
        left = waiter.items - done
        if waiter.abandoned or not left:
            return (), ()
        try:
            if isinstance(batch, CodecError):
                raise batch
            rest = batch.after(done)
            body = rest.body(allow_pickle=self._allow_pickle)
        except Exception as error:  # noqa: BLE001 - as in `_unpacked`
            lost = self._future(BatchFuture, waiter.ticket.request_id)
            lost.items = left
            lost.set_exception(error)
            return (lost,), ()
        ticket = self._tickets.anew(waiter.ticket, body, left)
        _, future = self._place(rest.call, ticket)
        return (future,), (ticket.request(),)

    def _split_if_in_hand(self, waiter: _BatchWaiter) -> bool:
        """Whether there is nothing left but an item in hand; else the batch is about to end."""
        if not waiter.items:
            return True
        if waiter.grant is None or (waiter.future.done() and not waiter.abandoned):
            return False
        claimed, done = lane_of(waiter.grant).take_back()
        if claimed != done + 1:
            return False
        self._split(waiter, waiter.grant, done)
        return not waiter.items

    def _split(self, waiter: _BatchWaiter, grant: Grant, done: int) -> None:
        """The first are done; leave the next one alone with the request."""
        if done >= waiter.items:
            return  # nonsense, of which the reply will tell more
        batch = self._unpacked(waiter)
        try:
            if isinstance(batch, CodecError):
                raise batch
            outcomes: list[tuple[Frame, bool]] = list(lane_of(grant).journal(done))
            body = batch.single(done, allow_pickle=self._allow_pickle)
        except Exception as error:  # noqa: BLE001 - as in `_unpacked`
            logger.error("a batch of worker %d cannot be split: %s", grant.worker_id, error)
            return  # so all of it is to be judged by what the worker noted
        ticket, landed = waiter.ticket, waiter.future
        request_id = ticket.request_id
        single = self._future(PoolFuture, request_id)
        single._started = True
        rest, requests = self._rest(waiter, batch, done + 1)
        waiter.items, waiter.split_from = 0, grant
        waiter.ticket, waiter.future = ticket._replace(body=body, items=0), single
        self._follow(waiter, single)
        self._engine.handle(events.RequestSplit(request_id, done, requests))
        _settle(landed, Landing(outcomes, (single, *rest), each=SLOW))

    def worker_died(self, waiter: _BatchWaiter) -> bool:
        """Leave the request what the worker had in hand; whether that was not even begun."""
        grant, items = waiter.grant, waiter.items
        if not items or grant is None:
            return False
        waiter.grant = None  # if it stays whole, it waits for the next one
        claimed, done = lane_of(grant).take_back()
        if done == 0 and claimed == 0:
            return True  # all of it goes back
        if claimed == done == items:
            try:
                self._land(
                    waiter, grant, envelope.encode_batched(waiter.ticket.request_id, done, 0)
                )
            except ValueError as error:
                logger.error("worker %d left nonsense: %s", grant.worker_id, error)
            return False
        if claimed - done in (0, 1):
            self._split(waiter, grant, done)
        return not waiter.items and claimed == done

    def _expire(self, waiter: _BatchWaiter, expired: events.Event) -> None:
        """Its time is up: in line that of all, else that of the item in hand."""
        if waiter.grant is None or self._split_if_in_hand(waiter):
            self._engine.handle(expired)
        elif not waiter.future.done():  # it is between two items, and will land at once
            again = self._engine.watcher.after(BETWEEN, lambda: self._expire(waiter, expired))
            waiter.timers.append(again)

    def _abandon(self, waiter: _BatchWaiter | None, future: BatchFuture | None) -> None:
        if waiter is not None and waiter.items:
            waiter.abandoned = True
            if waiter.grant is None:
                waiter.future.cancel()  # its worker has died, and it is in line again
            else:
                self._split_if_in_hand(waiter)
        for each in () if future is None else future.split_off():
            if isinstance(each, BatchFuture) and (each.running() or each.done()):
                each.abandon()
            elif not each.running():
                each.cancel()


def _settle(future: PoolFuture, landing: Landing) -> None:
    """Unless it was cancelled meanwhile, and with it what is split off only now."""
    if not future.done():
        future.set_result(landing)
        return
    for each in landing.then:
        if isinstance(each, BatchFuture):  # the request of the other is cancelled by its number
            each.cancel()
