"""What is to be done now? The brain of a pool: events in, instructions out.

Theory of operation
-------------------
`PoolState.handle` is the one way in: it takes an event and the time, and returns what is to
be done about it, in order. There is no clock, thread, lock, process or socket in here, nor in
anything it uses, so that any interleaving of the real world can be played in a test as a list
of events. Whoever calls it holds a lock around the call and performs the instructions after;
what comes of them returns as events, late or in another order, if need be.

Each call has three steps.

1. *Judge*, and change nothing. Is the event news; or late, because what it is about is over;
   or illegal, because it cannot be? Reports are recognised as late by their numbers:
   a worker's by its incarnation, a fork server's by its generation, a request's by not being
   open any more. Late ones are ignored. Illegal ones raise `InvalidTransition`, whose message
   tells the story so far; the state is what it was.
2. *React*: to the request first, to the process after. What a worker's death means for the
   request in its hand decides whether there is work left, and so whether it is replaced.
3. *Settle*, the same after every event: idle workers get what waits; what no worker will ever
   serve fails; a pool that stops ends whoever has nothing in hand; who waits for idleness or
   the end is told. So nothing depends on which event made it possible.

Three parts share the work and are touched by nothing else: `Requests` (where is each, what
is it owed), `Supervisor` (which processes should there be) and, within that, the life of each
slot, which is a table (`lifecycle`).

What the machine promises, in any order of events, and `validate` checks:

* a request gets exactly one answer: a completion reported from outside, or one `FailRequest`;
* a worker has at most one request, a request at most one worker;
* a request that had been entered runs again only if it is idempotent or has retries left, and
  nothing of its stream was delivered;
* nobody waits while a worker is idle that it would take; no more are admitted than the line holds, but for those
  who came back from a dead worker;
* after `StopRequested`, `ReportStopped` comes once: when nothing waits or runs, and every
  process has ended or was given up; given-up ones are killed should they ever appear.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from enum import Enum
from typing import Any

from ..config import BreakerPolicy, RestartPolicy
from ..errors import (
    CircuitOpen,
    PoolClosed,
    PoolError,
    QueueTimeout,
    SessionWorkerUnavailable,
    TaskTimeout,
    WorkerStartError,
)
from ..telemetry.events import Announcer, PoolStopped
from .breaker import Breakers
from .events import (
    AttemptFailed,
    DeadlineExpired,
    DrainRequested,
    Event,
    ForkServerDue,
    ForkServerEvent,
    ForkServerLost,
    ForkServerStarted,
    KillRequested,
    LaneBroke,
    PoolStarted,
    QueueTimeExpired,
    ReloadRequested,
    Request,
    RequestCancelled,
    RequestCompleted,
    RequestProgressed,
    RequestSplit,
    RequestSubmitted,
    RestartRequested,
    RetryDue,
    StopRequested,
    WorkerEvent,
    WorkerExited,
)
from .fork_server import ForkServerState
from .instructions import FailRequest, Failure, Instruction, ReportIdle, ReportStopped
from .invariants import check
from .judgement import judge
from .lifecycle import InvalidTransition, Verdict
from .recycling import WorkerLimits
from .requests import Prefetch, Requests
from .shortcut import Shortcut
from .supervisor import Supervisor
from .views import Counters, ForkServerRow, WorkerRow, count, row_of, server_rows

__all__ = ["Counters", "ForkServerRow", "PoolState", "WorkerRow"]

_STORY_LENGTH = 256
_ALWAYS_NEWS = frozenset({DrainRequested, KillRequested, StopRequested})


class PoolState:
    """See the module's docstring. Times are seconds; ``jitter()`` is between -1 and 1."""

    def __init__(
        self,
        *,
        workers: int,
        queue_size: int,
        on_full: str,
        restart: RestartPolicy,
        poison_after: int,
        start_timeout: float,
        grace: float,
        jitter: Callable[[], float],
        breaker: BreakerPolicy | None = None,
        limits: WorkerLimits | None = None,
        announcer: Announcer | None = None,
        prefetch: Prefetch | None = None,
    ) -> None:
        self._announcer = announcer = announcer or Announcer()
        self._breakers = Breakers(breaker, announcer)
        self._requests = Requests(
            queue_size, on_full, poison_after, jitter, announcer, prefetch or Prefetch()
        )
        self._supervisor = Supervisor(
            workers,
            restart,
            jitter,
            start_timeout,
            grace,
            needed=self._needed,
            limits=limits or WorkerLimits(),
            announcer=announcer,
        )
        self._started = False
        self._closing = False
        self._draining = False
        self._reported = False
        self._story: deque[tuple[float, Any, Verdict]] = deque(maxlen=_STORY_LENGTH)
        #: The usual way in and out, beside `handle`.
        self.shortcut = Shortcut(self._requests, self._supervisor, announcer, self._story)

    # --- reading ---

    def workers(self) -> list[WorkerRow]:
        """A row for each, without the spare place while it is empty."""
        supervisor = self._supervisor
        shown = (slot for slot in supervisor.slots if not supervisor.recycling.is_dormant(slot))
        return [row_of(slot, self._requests) for slot in shown]

    def counters(self) -> Counters:
        return count(self._requests, self._supervisor)

    def knows(self, request_id: int) -> bool:
        """Whether it is open, and no item of another."""
        return request_id in self._requests.open

    def request_in_hand(self, worker_id: int, incarnation: int) -> int | None:
        """The request that this incarnation is to run now, if it is the current one."""
        return self._supervisor.request_in_hand(worker_id, incarnation)

    def attempt_in_hand(self, worker_id: int, incarnation: int) -> tuple[int, int] | None:
        """The same request, and which attempt at it this is."""
        request_id = self.request_in_hand(worker_id, incarnation)
        return None if request_id is None else (request_id, self._requests.open[request_id].attempt)

    def fork_servers(self) -> list[ForkServerRow]:
        """The one that is asked comes first; more than one as long as a reload takes."""
        return server_rows(self._supervisor.servers)

    def start_failure(self) -> BaseException | None:
        """Why no worker can be had any more; ``None`` as long as one may come."""
        if not (self._started and self._supervisor.all_over) or self._closing:
            return None
        return self._supervisor.failure or PoolError("no worker can be started")

    def story(self, worker_id: int | None = None) -> list[str]:
        """The latest events, as text: all, or those about one worker or the whole pool."""
        return [
            f"{now:.6f} {event!r}{' (late)' if verdict is Verdict.LATE else ''}"
            for now, what, verdict in self._story
            for event in (Shortcut.told(what),)
            if worker_id is None or getattr(event, "worker_id", worker_id) == worker_id
        ]

    def validate(self) -> None:
        """Raise `AssertionError` if anything that must always hold does not."""
        check(self._requests, self._supervisor)
        if self._reported:
            assert self._supervisor.all_over, "reported as stopped, but a worker is not"
            assert not self._requests.open, "reported as stopped, but a request is open"

    # --- the one way in ---

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take in what happened at ``now``; what is to be done about it.

        Raises `InvalidTransition`, and changes nothing, if it cannot have happened.
        """
        verdict = self._judge(event)
        if verdict is Verdict.ILLEGAL:
            self._refuse(event)
        self._story.append((now, event, verdict))
        if verdict is Verdict.LATE:
            return []
        instructions = _reaction(event)(self, event, now)
        self._settle(instructions, now)
        return instructions

    def _judge(self, event: Event) -> Verdict:
        if isinstance(event, PoolStarted):
            return Verdict.ILLEGAL if self._started or self._closing else Verdict.NEWS
        if isinstance(event, ReloadRequested):
            begun = not self._started or self._supervisor.reload.active
            return Verdict.ILLEGAL if begun else Verdict.NEWS
        if isinstance(event, RestartRequested):
            return Verdict.NEWS if self._started and not self._closing else Verdict.LATE
        if type(event) in _ALWAYS_NEWS:
            return Verdict.NEWS
        return judge(event, self._requests, self._supervisor)

    def _refuse(self, event: Event) -> None:
        worker_id: int | None = getattr(event, "worker_id", None)
        state: Enum | None = None
        if worker_id is not None:
            slot = self._supervisor.slot(worker_id)
            state = None if slot is None else slot.state
        elif isinstance(event, ForkServerEvent):
            servers = self._supervisor.servers
            state = (servers.of(event.generation) or servers.current).state
        raise InvalidTransition(worker_id, state, event, tuple(self.story(worker_id)))

    # --- reactions: the pool as a whole ---

    def _pool_started(self, event: PoolStarted, now: float) -> list[Instruction]:
        self._started = True
        return self._supervisor.start(now)

    def _drain_requested(self, event: DrainRequested, now: float) -> list[Instruction]:
        self._draining = True
        return []

    def _stop_requested(self, event: StopRequested, now: float) -> list[Instruction]:
        self._closing = True
        return self._requests.fail_waiting(CancelledError) if event.cancel_waiting else []

    def _kill_requested(self, event: KillRequested, now: float) -> list[Instruction]:
        self._closing = True
        instructions = self._requests.fail_waiting(CancelledError)
        for request_id in list(self._requests.open):
            instructions += self._requests.fail(request_id, CancelledError())
        return self._supervisor.kill_all(now) + instructions

    # --- reactions: requests ---

    def _submitted(self, event: RequestSubmitted, now: float) -> list[Instruction]:
        if self._closing:
            closed = PoolClosed("the pool has been shut down")
            return self._requests.refuse(event.request, closed)
        if self.start_failure() is not None:
            return self._requests.refuse(event.request, self._start_error())
        if (refusal := self._circuit_open(event.request, now)) is not None:
            return self._requests.refuse(event.request, refusal)
        wanted = self._supervisor.wanted_by(event.request)
        if wanted is not None and wanted not in self._supervisor.idle and event.request.in_a_hurry:
            return self._requests.refuse(event.request, _unavailable(event.request, wanted))
        return self._requests.submit(event.request)

    def _circuit_open(self, request: Request, now: float) -> CircuitOpen | None:
        breaker = self._breakers.of(request.tool)
        if breaker is None:
            return None
        left = breaker.admit(request.request_id, now, self._requests.open.__contains__)
        if left is None:
            return None
        return CircuitOpen(
            f"{request.tool!r} has failed too often of late; try again in {left:.3g} s",
            tool=request.tool or "",
            retry_after=left,
        )

    def _record(self, request_id: int, now: float, *, failed: bool) -> None:
        """Tell the breaker of the tool how a run of it has ended."""
        breaker = self._breakers.of(self._requests.open[request_id].request.tool)
        if breaker is not None:
            breaker.record(request_id, now, failed=failed)

    def _completed(self, event: RequestCompleted, now: float) -> list[Instruction]:
        instructions = self._release(event)
        if event.request_id not in self._requests.open:
            return instructions  # it was answered before its tool had ended
        self._record(event.request_id, now, failed=event.failed)
        return instructions + self._requests.complete(
            event.request_id, failed=event.failed, unwanted=event.unwanted
        )

    def _release(self, event: RequestCompleted | AttemptFailed) -> list[Instruction]:
        if self._supervisor.holds(event.request_id, event.worker_id, event.incarnation):
            entry = self._requests.open.get(event.request_id)
            items = 1 if entry is None else entry.request.items
            return self._supervisor.release(event, self._supervisor.slots[event.worker_id], items)
        return []

    def _attempt_failed(self, event: AttemptFailed, now: float) -> list[Instruction]:
        instructions = self._release(event)
        if event.request_id not in self._requests.open:
            return instructions
        self._record(event.request_id, now, failed=True)
        return instructions + self._requests.attempt_failed(event.request_id, now)

    def _retry_due(self, event: RetryDue, now: float) -> list[Instruction]:
        return self._requests.retry_due(event.request_id)

    def _progressed(self, event: RequestProgressed, now: float) -> list[Instruction]:
        return self._requests.progressed(event.request_id)

    def _split(self, event: RequestSplit, now: float) -> list[Instruction]:
        entry = self._requests.open.get(event.request_id)
        if entry is None:
            # All of it was counted when it was answered.
            return [FailRequest(rest.request_id, CancelledError()) for rest in event.rest]
        assert entry.worker_id is not None
        self._supervisor.slots[entry.worker_id].current.tasks += event.done
        return self._requests.split(event.request_id, event.done, event.rest)

    def _lane_broke(self, event: LaneBroke, now: float) -> list[Instruction]:
        return self._supervisor.kill_broken(self._supervisor.slots[event.worker_id], event)

    def _cancelled(self, event: RequestCancelled, now: float) -> list[Instruction]:
        return self._end_request(event.request_id, CancelledError())

    def _expired(self, event: DeadlineExpired, now: float) -> list[Instruction]:
        entry = self._requests.open[event.request_id]
        entered = entry.worker_id is not None or entry.attempt > 1
        where = "while a worker had it" if entry.worker_id is not None else "while it was in line"
        if entry.worker_id is not None:
            self._record(event.request_id, now, failed=True)
        timeout = TaskTimeout(f"the deadline of the call passed {where}", entered=entered)
        return self._end_request(event.request_id, timeout)

    def _waited_too_long(self, event: QueueTimeExpired, now: float) -> list[Instruction]:
        failure = QueueTimeout("no worker became free within the call's time in line")
        return self._requests.fail(event.request_id, failure)

    def _end_request(self, request_id: int, failure: Failure) -> list[Instruction]:
        """The order to stop comes first: it is under way when the caller gets its answer."""
        worker_id = self._requests.open[request_id].worker_id
        # What was sent is split before: so nothing of this one was.
        self._requests.bring_back(request_id)
        instructions: list[Instruction] = []
        if worker_id is not None:
            slot = self._supervisor.slots[worker_id]
            instructions += self._supervisor.interrupt(slot, request_id)
        return instructions + self._requests.fail(request_id, failure)

    # --- reactions: workers ---

    def _exited(self, event: WorkerExited, now: float) -> list[Instruction]:
        worker_id, incarnation = event.worker_id, event.incarnation
        request_id = self.request_in_hand(worker_id, incarnation)
        instructions: list[Instruction] = []
        if request_id is not None:
            orphaned = self._supervisor.slots[worker_id].current.orphaned
            if not orphaned:
                self._record(request_id, now, failed=True)
            instructions += self._requests.worker_died(
                request_id,
                worker_id,
                incarnation,
                event.phase,
                now,
                blamed=not orphaned,
            )
        return instructions + self._supervisor.handle(event, now)

    def _worker_event(self, event: WorkerEvent, now: float) -> list[Instruction]:
        return self._supervisor.handle(event, now)

    # --- settling ---

    def _settle(self, instructions: list[Instruction], now: float) -> None:
        # On the usual way, a call in or out with nobody waiting, there is nothing to be done.
        line, supervisor = self._requests.line, self._supervisor
        if line:
            instructions += self._serve_line()
        if line and supervisor.all_over and (self._started or self._closing):
            failure = self._start_error if self._started else CancelledError
            instructions += self._requests.fail_waiting(failure)
        if not self._needed():
            instructions += supervisor.wind_down()
        if supervisor.reload.busy:
            instructions += supervisor.reload.go_on(now)
        if supervisor.recycling.wanted:
            instructions += supervisor.recycle(now)
        instructions += supervisor.ensure_server(now)
        if self._draining and not self._requests.open and not self._supervisor.interrupting:
            self._draining = False
            instructions.append(ReportIdle())
        if self._closing and not self._reported and not self._requests.open:
            instructions += self._report_stopped()
        self.shortcut.open = self._is_usual()

    def _is_usual(self) -> bool:
        """Whether nothing comes of a call but that a worker gets it, and gives it back."""
        supervisor = self._supervisor
        return not (
            self._closing
            or self._draining
            or self._breakers.wanted
            or supervisor.reload.busy
            or supervisor.recycling.wanted
            or supervisor.server.state is ForkServerState.DOWN
        )

    def _serve_line(self) -> list[Instruction]:
        instructions: list[Instruction] = []
        line, idle = self._requests.line, self._supervisor.idle
        for parked, waited_for in line.parked():
            request = self._requests.open[parked].request
            if self._supervisor.wanted_by(request) != waited_for:
                line.unpark(waited_for)
            elif waited_for in idle:
                instructions += self._grant(parked)
        while (request_id := line.first()) is not None and idle:
            request = self._requests.open[request_id].request
            wanted = self._supervisor.wanted_by(request)
            if wanted is None or wanted in idle:
                instructions += self._grant(request_id)
            elif request.in_a_hurry:
                instructions += self._requests.fail(request_id, _unavailable(request, wanted))
            else:
                line.park(request_id, wanted)
        return instructions

    def _grant(self, request_id: int) -> list[Instruction]:
        session_id = self._requests.open[request_id].request.session_id
        worker_id = self._supervisor.idle.take(session_id)
        assert worker_id is not None
        slot = self._supervisor.slots[worker_id]
        self._supervisor.grant(slot, request_id, self._requests.open[request_id].attempt)
        workers = len(self._supervisor.slots) - 1  # without the spare place
        return self._requests.grant(request_id, worker_id, slot.current.number, workers)

    def _report_stopped(self) -> list[Instruction]:
        if not self._supervisor.all_over:
            return []
        self._reported = True
        if self._announcer.active:
            self._announcer.publish(PoolStopped())
        return [*self._supervisor.servers.end(), ReportStopped()]

    def _needed(self) -> bool:
        """Whether there is, or may come, work for another worker."""
        return not self._closing or len(self._requests.line) > 0

    def _start_error(self) -> WorkerStartError:
        cause = self._supervisor.failure
        reason = "" if cause is None else f": {type(cause).__name__}: {cause}"
        error = WorkerStartError(f"no worker can be started{reason}")
        error.__cause__ = cause
        return error


def _unavailable(request: Request, worker_id: int) -> SessionWorkerUnavailable:
    return SessionWorkerUnavailable(
        f"worker {worker_id}, which served session {request.session_id!r} last, is busy",
        session_id=request.session_id,
        worker_id=worker_id,
    )


_REACTIONS: dict[type[Event], Callable[[PoolState, Any, float], list[Instruction]]] = {
    PoolStarted: PoolState._pool_started,
    DrainRequested: PoolState._drain_requested,
    StopRequested: PoolState._stop_requested,
    KillRequested: PoolState._kill_requested,
    ReloadRequested: lambda state, event, now: state._supervisor.reload.begin(now),
    RestartRequested: lambda state, event, now: state._supervisor.restart(now),
    ForkServerStarted: lambda state, event, now: state._supervisor.server_started(event, now),
    ForkServerLost: lambda state, event, now: state._supervisor.server_lost(event, now),
    ForkServerDue: lambda state, event, now: state._supervisor.server_due(),
    RequestSubmitted: PoolState._submitted,
    RequestCompleted: PoolState._completed,
    AttemptFailed: PoolState._attempt_failed,
    RetryDue: PoolState._retry_due,
    RequestProgressed: PoolState._progressed,
    RequestSplit: PoolState._split,
    RequestCancelled: PoolState._cancelled,
    DeadlineExpired: PoolState._expired,
    QueueTimeExpired: PoolState._waited_too_long,
    LaneBroke: PoolState._lane_broke,
    WorkerExited: PoolState._exited,
}


def _reaction(event: Event) -> Callable[[PoolState, Any, float], list[Instruction]]:
    return _REACTIONS.get(type(event), PoolState._worker_event)
