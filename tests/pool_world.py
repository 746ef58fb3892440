"""Everything around a pool's brain, as an adversary: processes, callers, timers, bad luck.

`World` performs the instructions, keeps what it has to report as *notices* and hands them over
in whatever order it is told to, some twice. It knows the truth (which tool was really entered),
holds the machine to its promises at each instruction, and in the end (`finish`) lets the world
behave and demands that everything comes to an end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from pool_batches import Batched
from pool_parts import POISON_AFTER, QUEUE_SIZE, Call, Key, Process, Server, brain, looks_of

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import (
    AttemptFailed,
    Event,
    ForkServerLost,
    ForkServerStarted,
    Phase,
    ReloadRequested,
    Request,
    RequestCompleted,
    RequestProgressed,
    RequestSubmitted,
    RestartRequested,
    SilenceOverdue,
    SpawnFailed,
    SpawnLost,
    StartFailed,
    StartTimedOut,
    StopTimedOut,
    ToolEnded,
    ToolOverdue,
    WorkerExited,
    WorkerForked,
    WorkerHeard,
    WorkerReady,
    WorkerSilent,
)
from snakepit_mp.core.instructions import (
    AdmitRequest,
    Deaths,
    DeliverReply,
    FailRequest,
    GrantRequest,
    Instruction,
    InterruptWorker,
    KillWorker,
    ReportIdle,
    ReportReloaded,
    ReportStopped,
    SpawnWorker,
    StartForkServer,
    StartTimer,
    StopForkServer,
    StopWorker,
)
from snakepit_mp.core.lifecycle import WorkerState
from snakepit_mp.core.recycling import WorkerLimits
from snakepit_mp.errors import SessionWorkerUnavailable

Notice = Callable[[], Event]

PATIENCE = 3000  # steps after which a world that behaves must have come to its end


class World(Batched):
    def __init__(
        self, workers: int, on_full: str, max_restarts: int, limits: WorkerLimits | None = None
    ) -> None:
        super().__init__()
        # The second one takes the shortcut wherever it may, and must be like the first.
        self.state, self.twin = (
            brain(workers, on_full, RestartPolicy(max_restarts=max_restarts), limits)
            for _ in range(2)
        )
        self.shortcuts = 0
        self.workers = workers + 1  # for a moment both the old and the new one serve
        self.now = 0.0
        self.servers: dict[int, Server] = {}
        self.processes: dict[Key, Process] = {}
        self.spawned: set[Key] = set()
        self.known: set[Key] = set()  # forks whose answer was delivered
        self.ended: set[Key] = set()  # exits that were delivered
        self.calls: dict[int, Call] = {}
        self.hands: dict[Key, int] = {}
        self.grants: dict[Key, int] = {}
        self.limits = limits or WorkerLimits()
        self.notices: list[Notice] = []
        self.timers: list[Event] = []
        self.numbers = itertools.count(1)
        self.draining = False
        self.stopping = False
        self.stopped = 0
        self.reloading = False
        self.reloading_since = 0
        self.killed: set[Key] = set()

    # --- handing over ---

    def tell(self, event: Event) -> None:
        completed = self.state.counters().completed
        orphan = isinstance(event, WorkerExited) and self._is_orphan(event)
        instructions = self.state.handle(event, self.now)
        self.state.validate()
        self._tell_twin(event, instructions)
        if isinstance(event, RequestCompleted) and self.state.counters().completed > completed:
            self._answer(event.request_id, "completed")
        if isinstance(event, AttemptFailed):
            key = event.worker_id, event.incarnation
            if self.hands.get(key) == event.request_id:
                del self.hands[key]
        if isinstance(event, WorkerForked):
            self.known.add((event.worker_id, event.incarnation))
        if isinstance(event, WorkerExited):
            key = event.worker_id, event.incarnation
            self.come_back(self.hands.get(key))
            self._exit_told(key, orphan)
        for one in instructions:
            if isinstance(one, FailRequest):
                self.come_back(one.request_id)
        for instruction in instructions:
            _PERFORM[type(instruction)](self, instruction)
        self._check_bound(instructions)
        if isinstance(event, WorkerForked):
            self._check_forked(event)

    def _tell_twin(self, event: Event, instructions: list[Instruction]) -> None:
        """By the shortcut, if there is one, after which nothing must be left to be done."""
        shortcut = self.twin.shortcut
        done = False
        if isinstance(event, RequestSubmitted):
            request_id = event.request.request_id
            if (worker := shortcut.check_out(event.request, self.now)) is not None:
                done = True
                assert instructions == [
                    AdmitRequest(request_id),
                    GrantRequest(request_id, *worker, 1),
                ]
        elif isinstance(event, RequestCompleted):
            done = shortcut.check_in(
                event.request_id, event.worker_id, event.incarnation, event.failed, self.now
            )
            assert not (done and instructions)
        if done:
            self.shortcuts += 1
            assert looks_of(self.twin) == looks_of(self.state)
        else:
            # By their texts: exceptions are equal to themselves only.
            assert repr(self.twin.handle(event, self.now)) == repr(instructions)

    def report(self, event: Event) -> None:
        self.notices.append(lambda: event)

    def deliver(self, index: int, *, again: bool = False) -> None:
        notice = self.notices[index] if again else self.notices.pop(index)
        self.tell(notice())

    def _is_orphan(self, event: WorkerExited) -> bool:
        """Whether the end of its fork server was told before its own."""
        return self.state._supervisor.slots[event.worker_id].current.orphaned

    def _exit_told(self, key: Key, orphan: bool) -> None:
        request_id = self.hands.pop(key, None)
        if key not in self.ended and request_id is not None:
            self.calls[request_id].deaths += not orphan
            self.calls[request_id].other_deaths += orphan
        self.ended.add(key)

    def _answer(self, request_id: int, answer: object) -> None:
        call = self.calls[request_id]
        assert call.open, f"request {request_id} is answered twice: {call.answers}, {answer}"
        call.answers.append(answer)
        self.fetched.pop(request_id, None)
        for key in [key for key, held in self.hands.items() if held == request_id]:
            del self.hands[key]

    def _check_forked(self, event: WorkerForked) -> None:
        """It is wanted, or dead: a process that nobody counts on must not live on."""
        process = self.processes[event.worker_id, event.incarnation]
        wanted = any(
            row.pid == event.pid and row.state is not WorkerState.STOPPING
            for row in self.state.workers()
        )
        assert wanted or not process.alive

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
        server = self.servers[one.generation]
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
        self.killed.add(key)
        self.die(self.processes[key])

    def _interrupt(self, one: InterruptWorker) -> None:
        key = one.worker_id, one.incarnation
        assert key in self.known
        assert self.hands.get(key, one.request_id) == one.request_id
        process = self.processes[key]
        if (
            process.inbox and process.inbox[0] == one.request_id
        ):  # it never enters the tool, and says so
            process.inbox = None
            if process.alive:
                self.report(ToolEnded(*key, one.request_id, None))

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
        assert not process.has_work, "it is not free of the request before"
        assert call.deaths < POISON_AFTER
        assert call.entered == 0 or not call.progressed
        assert call.request.idempotent or call.entered <= call.request.retries
        assert one.attempt == call.entered + 1
        self.go_ahead(one)
        self.hands[key] = one.request_id
        self.grants[key] = self.grants.get(key, 0) + 1
        assert self.limits.tasks is None or self.grants[key] <= self.limits.tasks
        process.inbox = one.request_id, one.attempt

    def _admit(self, one: AdmitRequest) -> None:
        call = self.calls[one.request_id]
        assert call.open
        assert not call.admitted
        call.admitted = True

    def _fail(self, one: FailRequest) -> None:
        if isinstance(one.failure, SessionWorkerUnavailable):
            assert self.calls[one.request_id].request.affinity == "strict_fail_fast"
        if isinstance(one.failure, Deaths):
            # Of what went along it is the death of the first.
            call = self.calls[one.failure.deaths[-1].request_id]
            assert one.failure.poison == (call.deaths >= POISON_AFTER)
            others = 0 if one.failure.poison else call.other_deaths
            assert len(one.failure.deaths) == call.deaths + others > 0
        self._answer(one.request_id, one.failure)

    def _deliver(self, one: DeliverReply) -> None:
        self._answer(one.request_id, "completed")

    def _idle(self, one: ReportIdle) -> None:
        assert self.draining
        assert not any(call.open for call in self.calls.values())
        self.draining = False

    def _reloaded(self, one: ReportReloaded) -> None:
        """If it went well, nobody runs what there was before."""
        assert self.reloading
        self.reloading = False
        if one.failure is None:
            old = [
                process.key
                for process in self.processes.values()
                if process.alive and process.generation <= self.reloading_since
            ]
            assert not set(old) & self.known - self.killed, "old code lives on"

    def _stopped(self, one: ReportStopped) -> None:
        assert self.stopping
        self.stopped += 1
        assert self.stopped == 1
        assert not any(call.open for call in self.calls.values())

    # --- what happens by itself ---

    def submit(self, **facts: object) -> None:
        if facts.get("streaming") or facts.get("retries"):
            facts["items"] = 1
        if facts.get("kin") is not None:
            usual = {"items": 1, "retries": 0, "streaming": False, "affinity": "hint"}
            weight = 40 if next(self.numbers) % 5 == 0 else 10
            facts |= {**usual, "weight": weight, "idempotent": facts["kin"] == b"a"}
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
        request_id, attempt, phase = process.page
        if process.inbox is not None:
            process.page = *process.inbox, Phase.TAKEN
            process.inbox = None
        elif phase is Phase.TAKEN:
            process.page = request_id, attempt, Phase.ENTERED
            self.calls[request_id].entered += 1
        elif phase is Phase.ENTERED:
            process.page = request_id, attempt, Phase.DONE
            call = self.calls[request_id]
            if call.request.retries and call.entered % 3:
                self.report(AttemptFailed(request_id, *process.key))
            else:
                self.report(RequestCompleted(request_id, *process.key))
            if call.request.streaming:
                self.report(ToolEnded(*process.key, request_id, attempt))

    def deliver_item(self, process: Process) -> None:
        request_id = process.page[0]
        self.calls[request_id].progressed = True
        self.tell(RequestProgressed(request_id))

    def streaming(self) -> list[Process]:
        """Those that could deliver an item now."""
        return [
            process
            for process in self.processes.values()
            if process.alive
            and process.page[2] is Phase.ENTERED
            and self.hands.get(process.key) == process.page[0]
            and self.calls[process.page[0]].request.streaming
        ]

    def fall_silent(self, process: Process, *, stopped: bool) -> None:
        if process.key in self.known and not process.starting:
            process.mute = True
            self.report(WorkerSilent(*process.key, stopped=stopped))

    def restart(self) -> None:
        self.tell(RestartRequested())

    def reload(self) -> None:
        if not self.reloading:
            self.reloading = True
            self.reloading_since = len(self.servers)
            self.tell(ReloadRequested())

    def die(self, process: Process) -> None:
        if process.alive:
            process.alive = False
            key = process.key
            self.notices.append(lambda: WorkerExited(*key, self._phase(key)))

    def _phase(self, key: Key) -> Phase | None:
        """What the application reads from the page of the dead."""
        *attempt, phase = self.processes[key].page
        held = self.state.attempt_in_hand(*key)
        return phase if held == tuple(attempt) else None

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
        if process.mute:
            process.mute = False
            self.report(WorkerHeard(*process.key))
        elif process.starting:
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
        late = (StartTimedOut, StopTimedOut, ToolOverdue, SilenceOverdue)
        self.timers.sort(key=lambda event: isinstance(event, late))
        self.now += 1.0
        self.tell(self.timers.pop(0))

    def finish(self) -> None:
        for _ in range(PATIENCE):
            if self.stopped and not self.notices:
                break
            self.behave()
        assert self.stopped == 1, "the pool did not come to its end"
        assert not self.reloading, "nobody was told what came of the reload"
        assert not self.fetched
        for call in self.calls.values():
            assert len(call.answers) == 1, f"request {call.request} has no answer"
        assert not any(process.alive for process in self.processes.values())
        assert not any(server.alive for server in self.servers.values())
        self.check_counters()


_PERFORM: dict[type[Instruction], Callable[..., None]] = {
    StartForkServer: World._start_server,
    StopForkServer: World._stop_server,
    SpawnWorker: World._spawn,
    StopWorker: World._stop_worker,
    InterruptWorker: World._interrupt,
    KillWorker: World._kill,
    StartTimer: World._start_timer,
    GrantRequest: World._grant,
    AdmitRequest: World._admit,
    DeliverReply: World._deliver,
    FailRequest: World._fail,
    ReportIdle: World._idle,
    ReportReloaded: World._reloaded,
    ReportStopped: World._stopped,
}
