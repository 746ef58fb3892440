"""Which processes should there be? Workers are started, replaced, given up and ended.

One for one: what happens to a worker concerns its own slot and nobody else's. What became of
a request that it had in hand is decided before (`requests`); here it is only a number.

Every end of a process, or of the hope for one, comes to `_ended`, the one place that decides
what follows:

* nothing, if no worker is needed any more;
* FAILED, if there is no fork server to be had;
* a new process at once, if it had been granted anything, or if its end was not its own doing
  (ordered by the pool, or caused by the fork server's death);
* else it was a failed start: a new process after a wait, or FAILED after too many.
"""

from __future__ import annotations

from collections.abc import Callable

from ..config import RestartPolicy
from ..errors import PoolError
from ..telemetry.events import Announcer
from .dispatch import IdleWorkers
from .events import (
    AttemptFailed,
    Event,
    ForkServerLost,
    ForkServerStarted,
    PoolStarted,
    Request,
    RequestCompleted,
    RestartDue,
    RestartRequested,
    SilenceOverdue,
    SpawnFailed,
    SpawnLost,
    StartFailed,
    StartTimedOut,
    StopTimedOut,
    ToolEnded,
    ToolOverdue,
    WorkerAged,
    WorkerEvent,
    WorkerExited,
    WorkerForked,
    WorkerHeard,
    WorkerMeasured,
    WorkerReady,
    WorkerSilent,
)
from .fork_server import ForkServerRecord, ForkServerState
from .fork_servers import ForkServers
from .instructions import (
    Instruction,
    InterruptWorker,
    KillWorker,
    StartTimer,
    StopWorker,
)
from .lifecycle import (
    SERVING_STATES,
    RequestAbandoned,
    RequestGranted,
    RestartDelayed,
    RestartDenied,
    SlotRetired,
    WorkerCondemned,
    WorkerState,
)
from .recycling import Recycling, WorkerLimits
from .reload import Reload
from .restart import RestartIntensity
from .silence import Silence
from .slots import Incarnation, Slot
from .spawning import Spawning

__all__ = ["Supervisor"]

_S = WorkerState
_KEEPING_CACHES = SERVING_STATES | {_S.RECONNECTING}
_OVER = frozenset({_S.STOPPED, _S.FAILED})
_WITH_PROCESS = frozenset({_S.CONNECTING, _S.READY, _S.RECONNECTING, _S.EXECUTING, _S.INTERRUPTING})


class Supervisor:
    """All slots, the idle ones among them, and the fork server.

    ``needed()`` tells whether the pool has, or may get, work for its workers.
    """

    def __init__(
        self,
        workers: int,
        restart: RestartPolicy,
        jitter: Callable[[], float],
        start_timeout: float,
        grace: float,
        needed: Callable[[], bool],
        limits: WorkerLimits,
        announcer: Announcer,
    ) -> None:
        self.slots = [  # and a spare one
            Slot(i, RestartIntensity(restart, jitter), announcer) for i in range(workers + 1)
        ]
        self.recycling = Recycling(limits, self.slots, jitter)
        self.servers = ForkServers(
            lambda: ForkServerRecord(RestartIntensity(restart, jitter), announcer)
        )
        self.idle = IdleWorkers()
        self.deaths = 0
        self.failure: BaseException | None = None  # of the latest failed start
        self._start_timeout = start_timeout
        self._grace = grace
        self._needed = needed
        self.spawning = Spawning(self.servers, self.slots, start_timeout)
        self._silence = Silence(self.idle, grace)
        self.reload = Reload(self, needed)

    @property
    def server(self) -> ForkServerRecord:
        """The one that is asked."""
        return self.servers.current

    @property
    def all_over(self) -> bool:
        """No slot has a process, or ever will by itself."""
        return all(slot.state in _OVER for slot in self.slots)

    def slot(self, worker_id: int) -> Slot | None:
        return self.slots[worker_id] if 0 <= worker_id < len(self.slots) else None

    @property
    def interrupting(self) -> bool:
        """A tool runs whose request is over."""
        return any(slot.state is _S.INTERRUPTING for slot in self.slots)

    def request_in_hand(self, worker_id: int, incarnation: int) -> int | None:
        current = self.slots[worker_id].current
        return current.request_id if current.number == incarnation else None

    def holds(self, request_id: int, worker_id: int, incarnation: int) -> bool:
        """Whether this incarnation has the request, or what is left of it."""
        current = self.slots[worker_id].current
        mine = current.number == incarnation
        return mine and request_id in (current.request_id, current.interrupted)

    def restart(self, now: float) -> list[Instruction]:
        """Try again whatever could not start, as if it never had failed."""
        self.failure = None
        self.server.forgive()
        self.recycling.forgive()
        instructions: list[Instruction] = []
        for slot in self.slots:
            slot.intensity.reset()
            if slot.state in (_S.FAILED, _S.BACKOFF) and not self.recycling.is_dormant(slot):
                slot.step(RestartRequested())
                slot.current = Incarnation(slot.current.number + 1)
                instructions += self.spawning.ask(slot, now, self.server)
        return instructions

    # --- the fork servers ---

    def start(self, now: float) -> list[Instruction]:
        for slot in self.slots:
            if not self.recycling.is_dormant(slot):
                slot.step(PoolStarted())
                slot.current = Incarnation(1)
        return self.servers.start(now)

    def server_started(self, event: ForkServerStarted, now: float) -> list[Instruction]:
        record = self.servers.of(event.generation)
        assert record is not None
        return record.started() + self.spawning.those_waiting(now)

    def server_lost(self, event: ForkServerLost, now: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        failed = False
        if event.generation != self.server.generation:
            instructions += self.reload.server_lost(event, now)
        elif self.servers.next is not None:
            instructions += self.reload.take_over(now)
        else:
            instructions += self.server.lost(event, now)
            failed = self.server.state is ForkServerState.FAILED
            if event.cause is not None or failed:
                self.failure = event.cause or PoolError("the fork server ends as soon as it starts")
        for slot in self.slots:
            if slot.current.generation == event.generation:
                instructions += self.orphan(slot, now)
        for slot in self.slots:
            waits = slot.state is _S.BACKOFF or (slot.state is _S.SPAWNING and not slot.unanswered)
            if failed and waits:
                slot.step(RestartDenied())
        return instructions

    def server_due(self) -> list[Instruction]:
        self.server.due()
        return []

    def ensure_server(self, now: float) -> list[Instruction]:
        """Start a fork server if there is none, and somebody wants, or will want, one."""
        if self.server.state is not ForkServerState.DOWN:
            return []
        wanted = any(slot.state is _S.SPAWNING for slot in self.slots)
        wanted = wanted or (self._needed() and not self.all_over)
        return self.servers.start(now) if wanted else []

    def orphan(self, slot: Slot, now: float) -> list[Instruction]:
        """Its fork server is dead, so it dies as well, or never came to be."""
        slot.current.orphaned = True
        if slot.state in _OVER or slot.state is _S.BACKOFF:
            return []
        if slot.current.pid is None:
            return self._give_up(slot, SpawnLost(slot.worker_id, slot.current.number), now)
        if slot.state in (_S.CONNECTING, _S.READY, _S.RECONNECTING):
            self._condemn(slot)
        return self._kill(slot)

    # --- one worker ---

    def handle(self, event: WorkerEvent, now: float) -> list[Instruction]:
        slot = self.slots[event.worker_id]
        if event.incarnation in slot.given_up:
            return self._heard_of_given_up(slot, event)
        return _HANDLERS[type(event)](self, slot, event, now)

    def _heard_of_given_up(self, slot: Slot, event: WorkerEvent) -> list[Instruction]:
        if isinstance(event, (WorkerForked, SpawnFailed, SpawnLost, WorkerExited)):
            slot.given_up.discard(event.incarnation)
        if isinstance(event, WorkerForked):
            return [KillWorker(event.worker_id, event.incarnation)]
        return []

    def _forked(self, slot: Slot, event: WorkerForked, now: float) -> list[Instruction]:
        slot.current.pid = event.pid
        slot.step(event)
        if slot.state is _S.STOPPING:
            return self._kill(slot)  # it was condemned before we knew it
        return self._connected(slot, now) if slot.current.announced else []

    def _ready(self, slot: Slot, event: WorkerReady, now: float) -> list[Instruction]:
        if slot.state is _S.CONNECTING:
            return self._connected(slot, now)
        slot.step(event)
        slot.current.announced = True
        return []

    def _connected(self, slot: Slot, now: float) -> list[Instruction]:
        slot.step(WorkerReady(slot.worker_id, slot.current.number))
        slot.current.ready_at = now
        instructions = self.reload.ready(slot, now)
        self.server.had_worker_ready(slot.current.generation)
        self.idle.add(slot.worker_id)
        instructions += self.recycling.began(slot)
        old = self.recycling.succeeded(slot)
        if old is not None and old.state in (_S.READY, _S.RECONNECTING):
            instructions += self._dismiss(old)
        return instructions

    def _start_failed(self, slot: Slot, event: StartFailed, now: float) -> list[Instruction]:
        slot.step(event)
        slot.current.cause = event.cause
        return []

    def _start_timed_out(self, slot: Slot, event: StartTimedOut, now: float) -> list[Instruction]:
        if slot.state in (_S.SPAWNING, _S.CONNECTING) and slot.current.cause is None:
            slot.current.cause = PoolError(
                f"worker {slot.worker_id} was not ready within {self._start_timeout:g} s"
            )
        if slot.unanswered:
            return self._give_up(slot, event, now)
        slot.step(event)
        return self._kill(slot) if slot.current.ready_at is None else []

    def _stop_timed_out(self, slot: Slot, event: StopTimedOut, now: float) -> list[Instruction]:
        if slot.unanswered:
            return self._give_up(slot, event, now)
        slot.step(event)
        return self._kill(slot)

    def _spawn_failed(self, slot: Slot, event: SpawnFailed, now: float) -> list[Instruction]:
        slot.step(event)
        slot.current.cause = event.cause
        return self._ended(slot, now)

    def _spawn_lost(self, slot: Slot, event: SpawnLost, now: float) -> list[Instruction]:
        self.server.left_unanswered(slot.current.generation)
        slot.step(event)
        slot.current.orphaned = True
        return self._ended(slot, now)

    def _exited(self, slot: Slot, event: WorkerExited, now: float) -> list[Instruction]:
        self.idle.discard(slot.worker_id)
        self.idle.forget_sessions_of(slot.worker_id)
        slot.step(event)
        self.deaths += not slot.current.ordered
        return self._ended(slot, now)

    def _restart_due(self, slot: Slot, event: RestartDue, now: float) -> list[Instruction]:
        return self.spawning.anew(slot, now)

    def wanted_by(self, request: Request) -> int | None:
        """The worker on which the request insists; ``None`` if any will do."""
        if request.affinity == "hint":
            return None
        worker_id = self.idle.last_of(request.session_id)
        keeps = worker_id is not None and self.slots[worker_id].state in _KEEPING_CACHES
        return worker_id if keeps else None

    # --- its silence ---

    def _silence_overdue(self, slot: Slot, event: SilenceOverdue, now: float) -> list[Instruction]:
        slot.step(event)
        if slot.state is _S.EXECUTING:
            return self._kill(slot)  # its end tells how far its request came
        return self._kill_overdue(slot)

    # --- its request ---

    def grant(self, slot: Slot, request_id: int, attempt: int) -> None:
        """It is idle no longer: `IdleWorkers.take` has seen to that."""
        slot.step(RequestGranted())
        slot.current.request_id = request_id
        slot.current.attempt = attempt
        slot.current.served = True

    def release(
        self, event: RequestCompleted | AttemptFailed, slot: Slot, items: int = 1
    ) -> list[Instruction]:
        """It is through with a request of so many items."""
        slot.current.tasks += items - 1
        return self._free(slot, event)

    def _tool_ended(self, slot: Slot, event: ToolEnded, now: float) -> list[Instruction]:
        return self._free(slot, event)

    def _free(self, slot: Slot, event: Event) -> list[Instruction]:
        slot.step(event)
        slot.current.request_id = slot.current.interrupted = None
        slot.current.tasks += 1
        slot.current.silent = False  # a stopped worker would not have answered
        if slot.current.killed:
            slot.step(WorkerCondemned())
            return []
        if self.recycling.has_to_leave(slot):
            return self._dismiss(slot)
        self.idle.add(slot.worker_id, warm=True)
        return []

    def interrupt(self, slot: Slot, request_id: int) -> list[Instruction]:
        """Its request is over, but the tool may go on: stop it, after ``grace`` by force."""
        if slot.current.killed or self._grace == 0:
            return self._kill_overdue(slot)
        slot.step(RequestAbandoned())
        slot.current.silent = False  # from here on grace is judged by
        slot.current.request_id = None
        slot.current.interrupted = request_id
        key = slot.worker_id, slot.current.number
        return [
            InterruptWorker(*key, request_id),
            StartTimer(self._grace / 2, ToolOverdue(*key, request_id, final=False)),
            StartTimer(self._grace, ToolOverdue(*key, request_id, final=True)),
        ]

    def _tool_overdue(self, slot: Slot, event: ToolOverdue, now: float) -> list[Instruction]:
        slot.step(event)
        if event.final:
            return self._kill_overdue(slot, tell=True)
        return [InterruptWorker(event.worker_id, event.incarnation, event.request_id)]

    def _kill_overdue(self, slot: Slot, *, tell: bool = False) -> list[Instruction]:
        slot.current.ordered = True
        self._condemn(slot)
        return self._kill(slot, overdue=tell)

    def kill_broken(self, slot: Slot, event: Event) -> list[Instruction]:
        """It cannot be reached; it keeps its request until its end tells how far that came."""
        slot.step(event)
        return self._kill(slot)

    # --- recycling ---

    def recycle(self, now: float) -> list[Instruction]:
        """Start the successor of a worker that is due, if there is any."""
        possible = self._needed() and self.server.state is not ForkServerState.FAILED
        old = self.recycling.next_due() if possible else None
        if old is None:
            return []
        self.recycling.leaving = old.worker_id, old.current.number
        return self.spawning.anew(self.recycling.spare, now)

    # --- ends ---

    def wind_down(self) -> list[Instruction]:
        """End every worker that has nothing in hand."""
        instructions: list[Instruction] = []
        for slot in self.slots:
            if slot.state in (_S.READY, _S.RECONNECTING, _S.CONNECTING) or (
                slot.state is _S.SPAWNING and slot.unanswered
            ):
                instructions += self._dismiss(slot)
            elif slot.state in (_S.SPAWNING, _S.BACKOFF):
                slot.step(SlotRetired())
        return instructions

    def _dismiss(self, slot: Slot) -> list[Instruction]:
        """Politely if it is ready: then its adapter has something to stop."""
        polite = slot.state is _S.READY
        key = slot.worker_id, slot.current.number
        slot.current.ordered = True
        self._condemn(slot)
        if slot.current.pid is not None and not polite:
            return self._kill(slot)
        timer = StartTimer(self._grace, StopTimedOut(*key))
        return [StopWorker(*key), timer] if polite else [timer]

    def kill_all(self, now: float) -> list[Instruction]:
        """End every worker at once, also those whose fork is not answered yet."""
        instructions: list[Instruction] = []
        for slot in self.slots:
            slot.current.ordered = True
            if slot.state in _WITH_PROCESS:
                self._condemn(slot)
            if slot.state is _S.STOPPING and slot.current.pid is not None:
                instructions += self._kill(slot)
            elif slot.state not in _OVER and slot.unanswered:
                instructions += self._give_up(slot, SlotRetired(), now)
            elif slot.state not in _OVER:
                slot.step(SlotRetired())
        return instructions

    def _condemn(self, slot: Slot) -> None:
        self.idle.discard(slot.worker_id)
        slot.step(WorkerCondemned())
        slot.current.request_id = slot.current.interrupted = None

    def _kill(self, slot: Slot, *, overdue: bool = False) -> list[Instruction]:
        if slot.current.killed:
            return []
        slot.current.killed = True
        return [KillWorker(slot.worker_id, slot.current.number, overdue)]

    def _give_up(self, slot: Slot, event: Event, now: float) -> list[Instruction]:
        """Wait no longer for the answer to its fork; if there is a process, it will be killed."""
        slot.given_up.add(slot.current.number)
        slot.step(event if slot.state is _S.SPAWNING else SlotRetired())
        return self._ended(slot, now)

    # --- what comes after an end ---

    def _ended(self, slot: Slot, now: float) -> list[Instruction]:
        current = slot.current
        current.pid = current.request_id = current.interrupted = None
        instructions = self.reload.ended(slot, now)
        if self.recycling.ended(slot) or not self._needed():
            return instructions
        if self.server.state is ForkServerState.FAILED:
            slot.step(RestartDenied())
            return instructions
        if current.served:
            slot.intensity.reset()
        if current.served or current.ordered or current.orphaned:
            return instructions + self.spawning.anew(slot, now)
        return instructions + self._start_again_later(slot, now)

    def _start_again_later(self, slot: Slot, now: float) -> list[Instruction]:
        current = slot.current
        self.failure = current.cause or PoolError(
            f"worker {slot.worker_id} ended before it had served anything"
        )
        started = now if current.ready_at is None else current.ready_at
        delay = slot.intensity.record_death(now, started - current.asked_at)
        if delay is None:
            slot.step(RestartDenied())
            return []
        slot.step(RestartDelayed())
        return [StartTimer(delay, RestartDue(slot.worker_id, current.number + 1))]


_HANDLERS: dict[type[WorkerEvent], Callable[..., list[Instruction]]] = {
    WorkerForked: Supervisor._forked,
    SpawnLost: Supervisor._spawn_lost,
    SpawnFailed: Supervisor._spawn_failed,
    WorkerReady: Supervisor._ready,
    StartFailed: Supervisor._start_failed,
    StartTimedOut: Supervisor._start_timed_out,
    StopTimedOut: Supervisor._stop_timed_out,
    ToolEnded: Supervisor._tool_ended,
    ToolOverdue: Supervisor._tool_overdue,
    WorkerExited: Supervisor._exited,
    RestartDue: Supervisor._restart_due,
    WorkerAged: lambda state, slot, event, now: state.recycling.aged(slot),
    WorkerMeasured: lambda state, slot, event, now: state.recycling.measured(slot, event),
    WorkerSilent: lambda state, slot, event, now: state._silence.began(slot, event),
    WorkerHeard: lambda state, slot, event, now: state._silence.ended(slot, event),
    SilenceOverdue: Supervisor._silence_overdue,
}
