"""Plays a pool as an adversary: deaths at any time, notices in any order, and then some.

`World` is everything around the machine: fork servers, processes, callers, timers. It performs
the instructions, keeps what it has to report as *notices* and hands them over in whatever
order hypothesis likes, some twice. It knows the truth (which tool was really entered), holds
the machine to its promises at each instruction, and in the end lets the world behave and
demands that everything comes to an end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import (
    DeadlineExpired,
    DrainRequested,
    Event,
    ForkServerLost,
    ForkServerStarted,
    KillRequested,
    LaneBroke,
    Phase,
    PoolStarted,
    QueueTimeExpired,
    Request,
    RequestCancelled,
    RequestCompleted,
    RequestProgressed,
    RequestSubmitted,
    SpawnFailed,
    SpawnLost,
    StartFailed,
    StartTimedOut,
    StopRequested,
    StopTimedOut,
    WorkerExited,
    WorkerForked,
    WorkerReady,
)
from snakepit_mp.core.instructions import (
    AdmitRequest,
    Deaths,
    FailRequest,
    GrantRequest,
    Instruction,
    KillWorker,
    ReportIdle,
    ReportStopped,
    SpawnWorker,
    StartForkServer,
    StartTimer,
    StopForkServer,
    StopWorker,
)
from snakepit_mp.core.pool_state import PoolState

Key = tuple[int, int]
Notice = Callable[[], Event]

QUEUE_SIZE = 2
POISON_AFTER = 3
PATIENCE = 3000  # steps after which a world that behaves must have come to its end


@dataclass
class Process:
    key: Key
    generation: int
    alive: bool = True
    starting: bool = True
    told_to_stop: bool = False
    inbox: int | None = None  # a request sent, not yet taken
    page: tuple[int, Phase] = (0, Phase.IDLE)

    @property
    def has_work(self) -> bool:
        return self.inbox is not None or self.page[1] in (Phase.TAKEN, Phase.ENTERED)


@dataclass
class Server:
    generation: int
    alive: bool = True
    asked: list[Key] = field(default_factory=list)


@dataclass
class Call:
    """A caller's side of a request, and what really became of it."""

    request: Request
    answers: list[object] = field(default_factory=list)
    admitted: bool = False
    entered: int = 0  # how often its tool was really called
    deaths: int = 0
    progressed: bool = False

    @property
    def open(self) -> bool:
        return not self.answers


class World:
    def __init__(self, workers: int, on_full: str, max_restarts: int) -> None:
        self.state = PoolState(
            workers=workers,
            queue_size=QUEUE_SIZE,
            on_full=on_full,
            restart=RestartPolicy(max_restarts=max_restarts),
            poison_after=POISON_AFTER,
            start_timeout=60.0,
            grace=5.0,
            jitter=lambda: 0.5,
        )
        self.workers = workers
        self.now = 0.0
        self.servers: dict[int, Server] = {}
        self.processes: dict[Key, Process] = {}
        self.spawned: set[Key] = set()
        self.known: set[Key] = set()  # forks whose answer was delivered
        self.ended: set[Key] = set()  # exits that were delivered
        self.calls: dict[int, Call] = {}
        self.hands: dict[Key, int] = {}
        self.notices: list[Notice] = []
        self.timers: list[Event] = []
        self.numbers = itertools.count(1)
        self.draining = False
        self.stopping = False
        self.stopped = 0

    # --- handing over ---

    def tell(self, event: Event) -> None:
        completed = self.state.counters().completed
        instructions = self.state.handle(event, self.now)
        self.state.validate()
        if isinstance(event, RequestCompleted) and self.state.counters().completed > completed:
            self._answer(event.request_id, "completed")
        if isinstance(event, WorkerForked):
            self.known.add((event.worker_id, event.incarnation))
        if isinstance(event, WorkerExited):
            self._exit_told((event.worker_id, event.incarnation))
        for instruction in instructions:
            _PERFORM[type(instruction)](self, instruction)
        self._check_bound(instructions)

    def report(self, event: Event) -> None:
        self.notices.append(lambda: event)

    def deliver(self, index: int, *, again: bool = False) -> None:
        notice = self.notices[index] if again else self.notices.pop(index)
        self.tell(notice())

    def _exit_told(self, key: Key) -> None:
        request_id = self.hands.pop(key, None)
        if key not in self.ended and request_id is not None:
            self.calls[request_id].deaths += 1
        self.ended.add(key)

    def _answer(self, request_id: int, answer: object) -> None:
        call = self.calls[request_id]
        assert call.open, f"request {request_id} is answered twice: {call.answers}, {answer}"
        call.answers.append(answer)
        for key in [key for key, held in self.hands.items() if held == request_id]:
            del self.hands[key]

    def _check_bound(self, instructions: list[Instruction]) -> None:
        running = set(self.hands.values())
        assert len(running) == len(self.hands) <= self.workers
        waiting = {n for n, call in self.calls.items() if call.open and call.admitted} - running
        admitted = {one.request_id for one in instructions if isinstance(one, AdmitRequest)}
        if admitted & waiting:
            assert len(waiting) <= QUEUE_SIZE

    # --- performing ---

    def _start_server(self, one: StartForkServer) -> None:
        assert one.generation == len(self.servers) + 1
        self.servers[one.generation] = Server(one.generation)
        self.report(ForkServerStarted(one.generation))

    def _stop_server(self, one: StopForkServer) -> None:
        self.lose_server(self.servers[one.generation], permanent=False, hidden=False)

    def _spawn(self, one: SpawnWorker) -> None:
        key = one.worker_id, one.incarnation
        assert key not in self.spawned
        self.spawned.add(key)
        server = self.servers[len(self.servers)]
        if server.alive:
            server.asked.append(key)
        else:
            self.report(SpawnLost(*key))

    def _stop_worker(self, one: StopWorker) -> None:
        key = one.worker_id, one.incarnation
        assert key in self.known
        assert key not in self.hands
        self.processes[key].told_to_stop = True

    def _kill(self, one: KillWorker) -> None:
        key = one.worker_id, one.incarnation
        assert key in self.known, "killed without a pid"
        self.die(self.processes[key])

    def _start_timer(self, one: StartTimer) -> None:
        assert one.delay >= 0
        self.timers.append(one.event)

    def _grant(self, one: GrantRequest) -> None:
        key, call = (one.worker_id, one.incarnation), self.calls[one.request_id]
        process = self.processes[key]
        assert call.open
        assert call.admitted
        assert key in self.known
        assert key not in self.ended
        assert key not in self.hands
        assert one.request_id not in self.hands.values()
        assert not process.told_to_stop
        assert call.deaths < POISON_AFTER
        assert call.entered == 0 or (call.request.idempotent and not call.progressed)
        assert one.attempt == call.entered + 1
        self.hands[key] = one.request_id
        process.inbox = one.request_id

    def _admit(self, one: AdmitRequest) -> None:
        call = self.calls[one.request_id]
        assert call.open
        assert not call.admitted
        call.admitted = True

    def _fail(self, one: FailRequest) -> None:
        if isinstance(one.failure, Deaths):
            call = self.calls[one.request_id]
            assert one.failure.poison == (call.deaths >= POISON_AFTER)
            assert len(one.failure.deaths) == call.deaths > 0
        self._answer(one.request_id, one.failure)

    def _idle(self, one: ReportIdle) -> None:
        assert self.draining
        assert not any(call.open for call in self.calls.values())
        self.draining = False

    def _stopped(self, one: ReportStopped) -> None:
        assert self.stopping
        self.stopped += 1
        assert self.stopped == 1
        assert not any(call.open for call in self.calls.values())

    # --- what happens by itself ---

    def submit(self, **facts: object) -> None:
        request = Request(next(self.numbers), **facts)  # type: ignore[arg-type]
        self.calls[request.request_id] = Call(request)
        self.tell(RequestSubmitted(request))

    def fork(self, server: Server, *, fails: bool = False) -> None:
        key = server.asked.pop(0)
        if fails:
            self.report(SpawnFailed(*key, OSError("no memory")))
            return
        self.processes[key] = Process(key, server.generation)
        self.report(WorkerForked(*key, 1000 + len(self.processes)))

    def come_up(self, process: Process, *, fails: bool = False) -> None:
        process.starting = False
        if fails:
            self.report(StartFailed(*process.key, ValueError("no model")))
            self.die(process)
        else:
            self.report(WorkerReady(*process.key))

    def work(self, process: Process) -> None:
        """One step further with the request in hand."""
        request_id, phase = process.page
        if process.inbox is not None:
            process.page = process.inbox, Phase.TAKEN
            process.inbox = None
        elif phase is Phase.TAKEN:
            process.page = request_id, Phase.ENTERED
            self.calls[request_id].entered += 1
        elif phase is Phase.ENTERED:
            process.page = request_id, Phase.DONE
            self.report(RequestCompleted(request_id, *process.key))

    def deliver_item(self, process: Process) -> None:
        request_id = process.page[0]
        self.calls[request_id].progressed = True
        self.tell(RequestProgressed(request_id))

    def die(self, process: Process) -> None:
        if process.alive:
            process.alive = False
            key = process.key
            self.notices.append(lambda: WorkerExited(*key, self._phase(key)))

    def _phase(self, key: Key) -> Phase | None:
        """What the application reads from the page of the dead."""
        request_id, phase = self.processes[key].page
        held = self.state.request_in_hand(*key)
        return phase if held is not None and held == request_id else None

    def lose_server(self, server: Server, *, permanent: bool, hidden: bool) -> None:
        """It dies, and its workers with it. ``hidden``: its unread answers are never read."""
        if not server.alive:
            return
        server.alive = False
        cause = ImportError("no such module") if permanent else None
        self.report(ForkServerLost(server.generation, cause, permanent))
        for key in server.asked:
            self.report(SpawnLost(*key))
        for process in self.processes.values():
            if process.generation != server.generation or not process.alive:
                continue
            if hidden and process.key not in self.known:
                self._hide(process)
            else:
                self.die(process)

    def _hide(self, process: Process) -> None:
        process.alive = False
        unread = WorkerForked
        self.notices = [
            notice
            for notice in self.notices
            if not (
                isinstance(e := notice(), unread) and (e.worker_id, e.incarnation) == process.key
            )
        ]
        self.report(SpawnLost(*process.key))

    # --- the end ---

    def proceed(self) -> bool:
        """Do the next thing in good order; whether there was any."""
        if self.notices:
            self.deliver(0)
            return True
        for server in self.servers.values():
            if server.alive and server.asked:
                self.fork(server)
                return True
        return any(self._step(process) for process in self.processes.values() if process.alive)

    def _step(self, process: Process) -> bool:
        if process.starting:
            self.come_up(process)
        elif process.has_work:
            self.work(process)
        elif process.told_to_stop:
            self.die(process)
        else:
            return False
        return True

    def behave(self) -> None:
        """Do the next thing that a world without bad luck would do; timers come last."""
        if self.proceed():
            return
        assert self.timers, "nothing can happen any more"
        self.timers.sort(key=lambda event: isinstance(event, (StartTimedOut, StopTimedOut)))
        self.now += 1.0
        self.tell(self.timers.pop(0))

    def finish(self) -> None:
        for _ in range(PATIENCE):
            if self.stopped and not self.notices:
                break
            self.behave()
        assert self.stopped == 1, "the pool did not come to its end"
        for call in self.calls.values():
            assert len(call.answers) == 1, f"request {call.request} has no answer"
        assert not any(process.alive for process in self.processes.values())
        assert not any(server.alive for server in self.servers.values())
        self.check_counters()

    def check_counters(self) -> None:
        counters = self.state.counters()
        answers = [call.answers[0] for call in self.calls.values() if call.answers]
        assert counters.submitted == len(self.calls)
        assert counters.completed == answers.count("completed")
        assert counters.cancelled == sum(isinstance(a, CancelledError) for a in answers)
        assert counters.timed_out == sum(isinstance(a, TimeoutError) for a in answers)
        assert counters.running == len(self.hands)
        assert counters.waiting == len(self.calls) - len(answers) - len(self.hands)
        assert counters.restarts == sum(incarnation > 1 for _, incarnation in self.spawned)


_PERFORM: dict[type[Instruction], Callable[..., None]] = {
    StartForkServer: World._start_server,
    StopForkServer: World._stop_server,
    SpawnWorker: World._spawn,
    StopWorker: World._stop_worker,
    KillWorker: World._kill,
    StartTimer: World._start_timer,
    GrantRequest: World._grant,
    AdmitRequest: World._admit,
    FailRequest: World._fail,
    ReportIdle: World._idle,
    ReportStopped: World._stopped,
}

_PICK = st.integers(min_value=0, max_value=1 << 16)


class PoolMachine(RuleBasedStateMachine):
    """The rules by which hypothesis plays the world."""

    world: World
    may_stop: bool
    kills: int

    @initialize(
        workers=st.integers(1, 3),
        on_full=st.sampled_from(["wait", "wait", "raise"]),
        max_restarts=st.sampled_from([0, 1, 3, 3]),
        warm=st.sampled_from([True, True, False]),
        may_stop=st.sampled_from([True, False]),
    )
    def begin(
        self, workers: int, on_full: str, max_restarts: int, warm: bool, may_stop: bool
    ) -> None:
        self.world = World(workers, on_full, max_restarts)
        self.may_stop = may_stop
        self.kills = 0
        self.world.tell(PoolStarted())
        while warm and self.world.proceed():
            pass

    def _processes(self) -> list[Process]:
        return [process for process in self.world.processes.values() if process.alive]

    def _servers(self) -> list[Server]:
        return [server for server in self.world.servers.values() if server.alive]

    # --- callers ---

    @rule(
        session_id=st.sampled_from([None, "a", "b"]),
        idempotent=st.sampled_from([True, True, False]),
        stream=st.booleans(),
        count=st.integers(1, 4),
    )
    def submit(self, session_id: str | None, idempotent: bool, stream: bool, count: int) -> None:
        for _ in range(count):
            self.world.submit(session_id=session_id, idempotent=idempotent, streaming=stream)

    @precondition(lambda self: self.world.calls)
    @rule(pick=_PICK, kind=st.sampled_from([RequestCancelled, DeadlineExpired, QueueTimeExpired]))
    def give_up_a_call(self, pick: int, kind: Callable[[int], Event]) -> None:
        latest = list(self.world.calls)[-6:]
        self.world.tell(kind(latest[pick % len(latest)]))

    @precondition(lambda self: not self.world.draining)
    @rule()
    def drain(self) -> None:
        self.world.draining = True
        self.world.tell(DrainRequested())

    # --- the orderly course of things ---

    @rule(steps=st.integers(1, 12))
    def proceed(self, steps: int) -> None:
        for _ in range(steps):
            if not self.world.proceed():
                break

    @precondition(lambda self: self.world.notices)
    @rule(pick=_PICK, count=st.integers(1, 6))
    def deliver(self, pick: int, count: int) -> None:
        for _ in range(count):
            if self.world.notices:
                self.world.deliver(pick % len(self.world.notices))

    @precondition(lambda self: any(server.asked for server in self._servers()))
    @rule(fails=st.sampled_from([False, False, False, True]), count=st.integers(1, 3))
    def fork(self, fails: bool, count: int) -> None:
        for server in self._servers():
            for _ in range(min(count, len(server.asked))):
                self.world.fork(server, fails=fails)

    @precondition(lambda self: any(process.starting for process in self._processes()))
    @rule(fails=st.sampled_from([False, False, False, True]))
    def come_up(self, fails: bool) -> None:
        for process in self._processes():
            if process.starting:
                self.world.come_up(process, fails=fails)

    @precondition(lambda self: any(process.has_work for process in self._processes()))
    @rule(pick=_PICK, steps=st.integers(1, 3))
    def work(self, pick: int, steps: int) -> None:
        busy = [process for process in self._processes() if process.has_work]
        for _ in range(steps):
            self.world.work(busy[pick % len(busy)])

    @precondition(lambda self: self._streaming())
    @rule(pick=_PICK)
    def deliver_item(self, pick: int) -> None:
        streaming = self._streaming()
        self.world.deliver_item(streaming[pick % len(streaming)])

    def _streaming(self) -> list[Process]:
        return [
            process
            for process in self._processes()
            if process.page[1] is Phase.ENTERED
            and self.world.hands.get(process.key) == process.page[0]
            and self.world.calls[process.page[0]].request.streaming
        ]

    @precondition(lambda self: self.world.timers)
    @rule(pick=_PICK, later=st.floats(0, 10))
    def timer(self, pick: int, later: float) -> None:
        self.world.now += later
        self.world.tell(self.world.timers.pop(pick % len(self.world.timers)))

    # --- bad luck ---

    @precondition(lambda self: self._processes())
    @rule(pick=_PICK)
    def worker_dies(self, pick: int) -> None:
        processes = self._processes()
        self.world.die(processes[pick % len(processes)])

    @precondition(lambda self: self.world.hands)
    @rule(pick=_PICK)
    def lane_breaks(self, pick: int) -> None:
        hands = list(self.world.hands.items())
        key, request_id = hands[pick % len(hands)]
        self.world.report(LaneBroke(request_id, *key))

    @precondition(lambda self: self._servers())
    @rule(permanent=st.sampled_from([False, False, False, True]), hidden=st.booleans())
    def fork_server_dies(self, permanent: bool, hidden: bool) -> None:
        self.world.lose_server(self._servers()[0], permanent=permanent, hidden=hidden)

    @precondition(lambda self: self._exits())
    @rule(pick=_PICK)
    def exit_is_noticed_twice(self, pick: int) -> None:
        exits = self._exits()
        self.world.deliver(exits[pick % len(exits)], again=True)

    def _exits(self) -> list[int]:
        return [i for i, n in enumerate(self.world.notices) if isinstance(n(), WorkerExited)]

    # --- the end ---

    @precondition(lambda self: self.may_stop and len(self.world.calls) > 4)
    @rule(cancel_waiting=st.booleans())
    def stop(self, cancel_waiting: bool) -> None:
        self.world.stopping = True
        self.world.tell(StopRequested(cancel_waiting))

    @precondition(lambda self: self.world.stopping and self.kills < 2)
    @rule()
    def kill(self) -> None:
        self.kills += 1
        self.world.tell(KillRequested())

    @invariant()
    def counts_are_true(self) -> None:
        if hasattr(self, "world"):
            self.world.check_counters()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.stopping = True
        self.world.tell(StopRequested())
        self.world.finish()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
