"""Where is each request, and what is it owed? From its submission to its one answer.

A request is *open* from `RequestSubmitted` until it is completed or failed, and then
forgotten; whatever comes later about its number is late. While it is open it either waits in
line or is in the hand of exactly one worker.

When a worker dies with a request in hand, the status page tells exactly how far it had come:

* not entered: nothing has happened; it goes to the front of the line as if it had never left;
* entered, declared idempotent, nothing of its stream delivered: the same, as the next attempt;
* entered, and it has retries left: the same, after a wait;
* entered otherwise: it may have had effects, must not run again, and fails.

Each such death is held against the request, entered or not, since arguments that kill the
decoder never get as far as the tool. At ``poison_after`` deaths it fails in any case. A worker
that dies with its fork server is nobody's fault, and not counted.

Requests of one kin that wait one behind the other may be *fetched ahead*: the first takes the
others along to its worker, and is a batch of them all from then on. So the worker finds the next
one there when it is through with one. A split makes them requests again, each with its number;
the death of a worker does as well. Only what never had bad luck travels so, since a
batch has one record of deaths.

An exception for which the tool asks to be retried makes the same wait, as long as there are
retries and time left.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import PoisonTaskError, PoolSaturated, QueueTimeout, TaskTimeout, WorkerDied
from ..telemetry import events as telemetry
from ..telemetry.events import Announcer
from .dispatch import Line
from .events import Phase, Request, RetryDue
from .instructions import (
    AdmitRequest,
    Death,
    Deaths,
    DeliverReply,
    FailRequest,
    Failure,
    GrantRequest,
    Instruction,
    StartTimer,
)
from .retry import RetryBackoff

__all__ = ["OpenRequest", "Prefetch", "Requests"]


class Prefetch(NamedTuple):
    """How much may be fetched ahead: ``most(kin)`` requests, with ``room`` for their weight."""

    most: Callable[[bytes], int] = lambda kin: 1
    room: int = 0


@dataclass(slots=True)
class OpenRequest:
    """A request that has no answer yet."""

    request: Request
    worker_id: int | None = None  # the one that has it in hand; None: it waits
    attempt: int = 1
    granted: bool = False  # a worker has, or had, it
    retried: int = 0  # attempts that its retries allowed
    delayed: bool = False  # it waits for its next attempt
    progressed: bool = False  # an item of its stream was delivered
    # Both are empty as a rule, and to make a list takes longer.
    deaths: tuple[Death, ...] = ()
    ahead: tuple[Request, ...] = ()  # what it took along

    def waits_after(self, worker_id: int, incarnation: int) -> bool:
        """Whether it is back in line because that worker died."""
        if self.worker_id is not None or not self.deaths:
            return False
        last = self.deaths[-1]
        return (last.worker_id, last.incarnation) == (worker_id, incarnation)


class Requests:
    """All open requests, and true counts of the others."""

    def __init__(
        self,
        queue_size: int,
        on_full: str,
        poison_after: int,
        jitter: Callable[[], float],
        announcer: Announcer,
        prefetch: Prefetch,
    ) -> None:
        self._announcer = announcer
        self._prefetch = prefetch
        self.line = Line(queue_size)
        self._backoff = RetryBackoff(jitter)
        self.open: dict[int, OpenRequest] = {}
        self._refuses = on_full == "raise"
        self._poison_after = poison_after
        self.submitted = 0
        self.completed = 0
        self.failed = 0
        self.cancelled = 0
        self.timed_out = 0
        self.rerun = 0
        self.retried = 0

    @property
    def running(self) -> int:
        return len(self.open) - len(self.line)

    def submit(self, request: Request) -> list[Instruction]:
        if self._refuses and self.line.full:
            size = self.line.size
            return self.refuse(
                request, PoolSaturated(f"the line is full: {size} calls wait (queue_size)")
            )
        self.submitted += request.items
        self.open[request.request_id] = OpenRequest(request)
        if self._announcer.active:
            self._announcer.publish(telemetry.RequestSubmitted(*_named(request)))
        admitted = self.line.join(request.request_id)
        return [AdmitRequest(request.request_id)] if admitted else []

    def refuse(self, request: Request, failure: Failure) -> list[Instruction]:
        """Answer it without ever taking it in."""
        self.submitted += request.items
        self._count(request, failure)
        return [FailRequest(request.request_id, failure)]

    def grant(
        self, request_id: int, worker_id: int, incarnation: int, workers: int
    ) -> list[Instruction]:
        """Of so many ``workers`` one gets it."""
        entry = self.open[request_id]
        ahead = self._fetch_ahead(entry, workers) if entry.request.kin is not None else ()
        entry.worker_id = worker_id
        entry.granted = True
        if self._announcer.active:
            self._announcer.publish(
                telemetry.RequestStarted(
                    *_named(entry.request), entry.attempt, worker_id, incarnation
                )
            )
        fetched = tuple(request.request_id for request in ahead)
        left = self._leave_line(request_id)
        for request in ahead:
            del self.open[request.request_id]
            left += self._leave_line(request.request_id)
        return [GrantRequest(request_id, worker_id, incarnation, entry.attempt, fetched), *left]

    def _fetch_ahead(self, entry: OpenRequest, workers: int) -> tuple[Request, ...]:
        """Those right behind it that go with it, which are its items from here on."""
        request = entry.request
        assert request.kin is not None
        if self._announcer.active or not _unharmed(entry):
            return ()
        # Each worker shall get its share of what waits.
        most = min(self._prefetch.most(request.kin), -(-self.line.admissible // workers))
        room = self._prefetch.room - request.weight
        ahead = []
        for waiting in self.line.behind(request.request_id, most - 1):
            other = self.open[waiting]
            room -= other.request.weight
            if other.request.kin != request.kin or room < 0 or not _unharmed(other):
                break
            ahead.append(other.request)
        entry.ahead = tuple(ahead)
        entry.request = request._replace(items=1 + len(ahead))
        return entry.ahead

    def bring_back(self, request_id: int) -> None:
        """What it had taken along waits again, first in line, as if it had never left."""
        entry = self.open[request_id]
        for request in reversed(entry.ahead):
            self.open[request.request_id] = OpenRequest(request)
            self.line.return_to_front(request.request_id)
        if entry.ahead:
            entry.ahead = ()
            entry.request = entry.request._replace(items=1)

    def complete(
        self, request_id: int, *, failed: bool, unwanted: bool = False
    ) -> list[Instruction]:
        """It has its answer; usually from a worker's hand, at times while it waits again."""
        entry = self.open.pop(request_id)
        waits = entry.worker_id is None
        if unwanted:
            self._count(entry.request, CancelledError())
            return self._leave_line(request_id) if waits else []
        self.completed += entry.request.items
        if self._announcer.active:
            self._announcer.publish(telemetry.RequestCompleted(*_named(entry.request), failed))
        return self._leave_line(request_id) if waits else []

    def fail(self, request_id: int, failure: Failure) -> list[Instruction]:
        entry = self.open.pop(request_id)
        waits = entry.worker_id is None
        self._count(entry.request, failure)
        failed = [FailRequest(each.request_id, failure) for each in (entry.request, *entry.ahead)]
        return [*failed, *self._leave_line(request_id)] if waits else [*failed]

    def fail_waiting(self, failure: Callable[[], Failure]) -> list[Instruction]:
        """Fail everything that waits, each with a failure of its own."""
        instructions: list[Instruction] = []
        for request_id in reversed(self.line.waiting()):  # from the end: nobody moves up
            instructions += self.fail(request_id, failure())
        return instructions[::-1]

    def worker_died(
        self,
        request_id: int,
        worker_id: int,
        incarnation: int,
        phase: Phase | None,
        now: float,
        *,
        blamed: bool,
    ) -> list[Instruction]:
        """The worker that had it in hand is dead: back to the line, or the end."""
        entry = self.open[request_id]
        entered = entry.progressed or (phase is not None and phase >= Phase.ENTERED)
        death = Death(worker_id, incarnation, request_id, entered, entry.attempt, blamed)
        entry.deaths += (death,)
        suspect = tuple(one for one in entry.deaths if one.blamed)
        poison = blamed and len(suspect) >= self._poison_after
        deaths = Deaths(suspect if poison else entry.deaths, poison)
        if poison or (entered and entry.progressed):
            return self.fail(request_id, deaths)
        if entered and not entry.request.idempotent:
            return self._retry(entry, now) or self.fail(request_id, deaths)
        self.bring_back(request_id)
        entry.worker_id = None
        entry.attempt += entered
        self.rerun += 1
        if self._announcer.active:
            self._announcer.publish(
                telemetry.RequestRequeued(*_named(entry.request), entry.attempt)
            )
        self.line.return_to_front(request_id)
        return []

    def attempt_failed(self, request_id: int, now: float) -> list[Instruction]:
        """Its tool raised what may be retried: another attempt, or that is its answer."""
        entry = self.open[request_id]
        if not entry.progressed and (retry := self._retry(entry, now)):
            return retry
        return [DeliverReply(request_id), *self.complete(request_id, failed=True)]

    def retry_due(self, request_id: int) -> list[Instruction]:
        self.open[request_id].delayed = False
        self.line.return_to_front(request_id)
        return []

    def split(self, request_id: int, done: int, rest: tuple[Request, ...]) -> list[Instruction]:
        """Leave one item to the request; see `RequestSplit`."""
        entry = self.open[request_id]
        self.completed += done
        self.cancelled += entry.request.items - done - 1 - sum(each.items for each in rest)
        entry.request = entry.request._replace(items=1)
        entry.ahead = ()
        for request in reversed(rest):
            self.open[request.request_id] = OpenRequest(request)
            self.line.return_to_front(request.request_id)
        return []

    def _retry(self, entry: OpenRequest, now: float) -> list[Instruction]:
        """Have it wait for its next attempt; nothing if there must be none."""
        request_id = entry.request.request_id
        delay = self._backoff.delay(entry.request, entry.retried, now)
        if delay is None:
            return []
        entry.worker_id = None
        entry.attempt += 1
        entry.retried += 1
        entry.delayed = True
        self.line.step_aside(request_id)
        self.retried += 1
        if self._announcer.active:
            self._announcer.publish(
                telemetry.RetryScheduled(*_named(entry.request), entry.attempt, delay)
            )
        return [StartTimer(delay, RetryDue(request_id, entry.attempt))]

    def progressed(self, request_id: int) -> list[Instruction]:
        """An item was delivered. If its worker is dead already, it cannot be repeated."""
        entry = self.open[request_id]
        entry.progressed = True
        if entry.worker_id is None:
            return self.fail(request_id, Deaths(entry.deaths, poison=False))
        return []

    def _leave_line(self, request_id: int) -> list[Instruction]:
        return [AdmitRequest(moved_up) for moved_up in self.line.leave(request_id)]

    def _count(self, request: Request, failure: Failure) -> None:
        if self._announcer.active:
            self._announcer.publish(telemetry.RequestFailed(*_named(request), _name_of(failure)))
        if isinstance(failure, CancelledError):
            self.cancelled += request.items
        elif isinstance(failure, (TaskTimeout, QueueTimeout)):
            self.timed_out += request.items
        else:
            self.failed += request.items


def _unharmed(entry: OpenRequest) -> bool:
    """Whether no worker has had it yet, so that there is nothing to be told of it alone."""
    return not entry.granted and not entry.deaths


def _named(request: Request) -> tuple[int, str | None, str | None]:
    return request.request_id, request.tool, request.session_id


def _name_of(failure: Failure) -> str:
    """The class of what the caller gets."""
    if isinstance(failure, Deaths):
        return (PoisonTaskError if failure.poison else WorkerDied).__name__
    return type(failure).__name__
