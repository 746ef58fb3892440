"""Plays a pool in any order of events; `pool_world` says what must hold.

Hypothesis looks for short plays and shortens what it finds. The walks go further: long ones,
each with likings of its own, so that some are all deaths, and some have none.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from pool_parts import Process, Server
from pool_world import World

from snakepit_mp.core.events import (
    DeadlineExpired,
    DrainRequested,
    Event,
    KillRequested,
    LaneBroke,
    PoolStarted,
    QueueTimeExpired,
    RequestCancelled,
    StopRequested,
    WorkerExited,
)
from snakepit_mp.core.recycling import WorkerLimits

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
        limits=st.sampled_from([WorkerLimits(), WorkerLimits(tasks=2), WorkerLimits(age=60.0)]),
    )
    def begin(
        self,
        workers: int,
        on_full: str,
        max_restarts: int,
        warm: bool,
        may_stop: bool,
        limits: WorkerLimits,
    ) -> None:
        self.world = World(workers, on_full, max_restarts, limits)
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
        retries=st.sampled_from([0, 0, 1, 2]),
        affinity=st.sampled_from(["hint", "hint", "strict_queue", "strict_fail_fast"]),
        items=st.sampled_from([1, 1, 2, 5]),
        kin=st.sampled_from([None, b"a", b"b"]),
        count=st.integers(1, 4),
    )
    def submit(self, count: int, stream: bool, **facts: object) -> None:
        for _ in range(count):
            self.world.submit(streaming=stream, **facts)

    @precondition(lambda self: self.world.batches())
    @rule(pick=_PICK, done=st.integers(0, 3), unwanted=st.sampled_from([0, 0, 0, 1, 4]))
    def split_a_batch(self, pick: int, done: int, unwanted: int) -> None:
        batches = self.world.batches()
        self.world.split(batches[pick % len(batches)], done, unwanted)

    @precondition(lambda self: any(not call.open for call in self.world.calls.values()))
    @rule(pick=_PICK)
    def split_a_batch_too_late(self, pick: int) -> None:
        over = [number for number, call in self.world.calls.items() if not call.open]
        self.world.split(over[pick % len(over)], 0, 0, late=True)

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

    @precondition(lambda self: self.world.streaming())
    @rule(pick=_PICK)
    def deliver_item(self, pick: int) -> None:
        streaming = self.world.streaming()
        self.world.deliver_item(streaming[pick % len(streaming)])

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

    @precondition(lambda self: self._processes())
    @rule(pick=_PICK, stopped=st.booleans())
    def worker_falls_silent(self, pick: int, stopped: bool) -> None:
        processes = self._processes()
        self.world.fall_silent(processes[pick % len(processes)], stopped=stopped)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @precondition(lambda self: not self.world.reloading)
    @rule()
    def reload(self) -> None:
        self.world.reload()

    @precondition(lambda self: self.world.hands)
    @rule(pick=_PICK)
    def lane_breaks(self, pick: int) -> None:
        hands = list(self.world.hands.items())
        key, request_id = hands[pick % len(hands)]
        self.world.report(LaneBroke(request_id, *key))

    @precondition(lambda self: self._servers())
    @rule(pick=_PICK, permanent=st.sampled_from([False, False, False, True]), hidden=st.booleans())
    def fork_server_dies(self, pick: int, permanent: bool, hidden: bool) -> None:
        servers = self._servers()
        server = servers[pick % len(servers)]
        self.world.lose_server(server, permanent=permanent, hidden=hidden)

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


# --- long walks ---


class Walk:
    """One way through the world, by weighted dice."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        workers, restarts = self.dice.randint(1, 4), self.dice.choice([0, 3, 1000, 1000])
        limits = self.dice.choice([WorkerLimits(), WorkerLimits(tasks=3), WorkerLimits(age=60.0)])
        self.world = World(workers, self.dice.choice(["wait", "raise"]), restarts, limits)
        self.world.tell(PoolStarted())
        usual = [self.submit, self.proceed, self.deliver, self.work, self.answer_forks]
        usual.append(self.deliver_item)
        unusual = [
            self.timer,
            self.split_a_batch,
            self.give_up_a_call,
            self.worker_dies,
            self.lane_breaks,
            self.fork_server_dies,
            self.start_fails,
            self.fork_fails,
            self.worker_falls_silent,
            self.restart,
            self.reload,
        ]
        self.steps = usual + unusual
        self.likings: list[float] = [self.dice.choice([2, 4, 8]) for _ in usual]
        self.likings += [self.dice.choice([0, 0.3, 1]) for _ in unusual]

    def go(self, length: int) -> None:
        for step in self.dice.choices(self.steps, self.likings, k=length):
            step()
            self.world.check_counters()
        self.world.stopping = True
        self.world.tell(StopRequested(self.dice.choice([True, False])))
        for step in self.dice.choices(self.steps, self.likings, k=length // 4):
            step()
        if self.dice.random() < 0.3:
            self.world.tell(KillRequested())
        self.world.finish()

    def _processes(self) -> list[Process]:
        return [process for process in self.world.processes.values() if process.alive]

    def _servers(self) -> list[Server]:
        return [server for server in self.world.servers.values() if server.alive]

    def split_a_batch(self) -> None:
        if batches := self.world.batches():
            self.world.split(self.dice.choice(batches), self.dice.randrange(4), 0)

    def submit(self) -> None:
        facts = {
            "items": self.dice.choice([1, 1, 4]),
            "kin": self.dice.choice([None, b"a", b"b"]),
            "session_id": self.dice.choice([None, "a", "b"]),
            "idempotent": self.dice.random() < 0.6,
            "streaming": self.dice.random() < 0.5,
            "retries": self.dice.choice([0, 0, 1, 2]),
            "affinity": self.dice.choice(["hint", "hint", "strict_queue", "strict_fail_fast"]),
        }
        for _ in range(self.dice.choice([1, 1, 3])):
            self.world.submit(**facts)

    def proceed(self) -> None:
        for _ in range(self.dice.randint(1, 6)):
            self.world.proceed()

    def deliver(self) -> None:
        if self.world.notices:
            self.world.deliver(self.dice.randrange(len(self.world.notices)))

    def work(self) -> None:
        busy = [process for process in self._processes() if process.has_work]
        if busy:
            self.world.work(self.dice.choice(busy))

    def timer(self) -> None:
        self.world.now += self.dice.random()
        if self.world.timers:
            self.world.tell(self.world.timers.pop(self.dice.randrange(len(self.world.timers))))

    def answer_forks(self) -> None:
        for server in self._servers():
            if server.asked:
                self.world.fork(server)

    def fork_fails(self) -> None:
        for server in self._servers():
            if server.asked:
                self.world.fork(server, fails=True)

    def start_fails(self) -> None:
        for process in self._processes():
            if process.starting:
                self.world.come_up(process, fails=True)

    def give_up_a_call(self) -> None:
        if self.world.calls:
            kind = self.dice.choice([RequestCancelled, DeadlineExpired, QueueTimeExpired])
            self.world.tell(kind(self.dice.choice(list(self.world.calls)[-8:])))

    def deliver_item(self) -> None:
        streaming = self.world.streaming()
        if streaming:
            self.world.deliver_item(self.dice.choice(streaming))

    def worker_dies(self) -> None:
        if self._processes():
            self.world.die(self.dice.choice(self._processes()))

    def worker_falls_silent(self) -> None:
        if self._processes():
            stopped = self.dice.random() < 0.5
            self.world.fall_silent(self.dice.choice(self._processes()), stopped=stopped)

    def restart(self) -> None:
        if self.dice.random() < 0.2:
            self.world.restart()

    def reload(self) -> None:
        if self.dice.random() < 0.3:
            self.world.reload()

    def lane_breaks(self) -> None:
        if self.world.hands:
            key, request_id = self.dice.choice(list(self.world.hands.items()))
            self.world.report(LaneBroke(request_id, *key))

    def fork_server_dies(self) -> None:
        if self._servers() and self.dice.random() < 0.3:
            permanent, hidden = self.dice.random() < 0.1, self.dice.random() < 0.5
            server = self.dice.choice(self._servers())
            self.world.lose_server(server, permanent=permanent, hidden=hidden)


@pytest.mark.parametrize("block", range(8))
def test_long_walks(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        try:
            Walk(seed).go(200)
        except BaseException as error:
            error.add_note(f"in the walk with seed {seed}")
            raise


def test_there_is_something_to_fetch_ahead() -> None:
    """Else the rules for it would prove nothing."""
    walks = [Walk(seed) for seed in range(10)]
    for walk in walks:
        walk.go(200)
    assert max(walk.world.most_fetched for walk in walks) > 1


def test_the_shortcut_is_taken() -> None:
    """Else the world's comparison of the two ways would prove nothing."""
    world = World(2, "wait", 3)
    world.tell(PoolStarted())
    while world.proceed():
        pass
    for _ in range(5):
        world.submit()
        while world.proceed():
            pass
    assert world.shortcuts == 10
