"""Workers that are well are replaced: by tasks, age and memory, the successor first."""

from __future__ import annotations

from typing import Any

import pytest
from pool_play import Play, without_timers

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import (
    DrainRequested,
    KillRequested,
    Phase,
    RequestCompleted,
    RestartRequested,
    SpawnFailed,
    StopRequested,
    WorkerAged,
    WorkerExited,
    WorkerMeasured,
    WorkerReady,
)
from snakepit_mp.core.instructions import (
    GrantRequest,
    KillWorker,
    ReportStopped,
    SpawnWorker,
    StartTimer,
    StopWorker,
)
from snakepit_mp.core.lifecycle import WorkerState
from snakepit_mp.core.recycling import WorkerLimits

S = WorkerState


def pool(workers: int = 1, **limits: Any) -> Play:
    """Worker ``workers`` is the spare."""
    play = Play(workers=workers, limits=WorkerLimits(**limits), jitter=lambda: 1.0).start()
    for worker_id in range(workers):
        play.ready(worker_id)
    return play


def serve(play: Play, request_id: int, worker_id: int = 0, incarnation: int = 1) -> list[Any]:
    granted = play.submit(request_id)
    assert GrantRequest(request_id, worker_id, incarnation, attempt=1) in granted
    return play(RequestCompleted(request_id, worker_id, incarnation))


def states(play: Play) -> list[tuple[int, str]]:
    return [(row.worker_id, row.state.name) for row in play.state.workers()]


def test_spare_is_not_shown_and_not_started() -> None:
    assert states(pool(tasks=5)) == [(0, "READY")]


def test_successor_is_started_before_the_limit_and_then_the_old_one_leaves() -> None:
    play = pool(tasks=5)  # with this jitter due after 4
    for request_id in (1, 2, 3):
        assert serve(play, request_id) == []
    assert without_timers(serve(play, 4)) == [SpawnWorker(1, 1, 1)]
    assert states(play) == [(0, "READY"), (1, "SPAWNING")]
    assert without_timers(play.ready(1)) == [StopWorker(0, 1)]
    assert states(play) == [(0, "STOPPING"), (1, "READY")]
    assert play(WorkerExited(0, 1)) == []
    assert states(play) == [(1, "READY")]
    assert play.state.counters().recycled == 1
    assert play.state.counters().worker_deaths == 0


def test_old_one_serves_until_its_successor_is_ready() -> None:
    play = pool(rss=1000)
    assert without_timers(play(WorkerMeasured(0, 1, 1001))) == [SpawnWorker(1, 1, 1)]
    assert GrantRequest(1, 0, 1, attempt=1) in play.submit(1)
    play.ready(1)
    assert play.row().state is S.EXECUTING
    assert without_timers(play(RequestCompleted(1, 0, 1))) == [StopWorker(0, 1)]


def test_limit_of_tasks_is_kept_though_the_successor_is_late() -> None:
    play = pool(tasks=2)
    play.submit(1)
    play.submit(2)
    play.submit(3)
    play(RequestCompleted(1, 0, 1))
    instructions = play(RequestCompleted(2, 0, 1))
    assert without_timers(instructions) == [StopWorker(0, 1)]
    assert play(WorkerExited(0, 1)) == []  # the spare is coming, and takes its place
    assert without_timers(play.ready(1)) == [GrantRequest(3, 1, 1, attempt=1)]


def test_worker_for_one_task_each() -> None:
    play = pool(tasks=1)
    assert without_timers(serve(play, 1)) == [StopWorker(0, 1)]
    assert without_timers(play(WorkerExited(0, 1))) == [SpawnWorker(0, 2, 1)]
    assert play.state.counters().recycled == 1
    play.ready(0, 2)
    assert without_timers(serve(play, 2, 0, 2)) == [StopWorker(0, 2)]
    play(WorkerExited(0, 2))
    assert play.state.counters().recycled == 2


def test_age() -> None:
    play = Play(limits=WorkerLimits(age=100.0), jitter=lambda: -1.0).start()
    assert StartTimer(100.0, WorkerAged(0, 1)) in play.ready()
    assert without_timers(play(WorkerAged(0, 1))) == [SpawnWorker(1, 1, 1)]
    assert StopWorker(0, 1) in play.ready(1)
    assert play(WorkerAged(0, 1)) == []


def test_limits_are_spread_so_that_not_all_leave_together() -> None:
    dice = iter([1.0, -1.0])
    play = Play(workers=2, limits=WorkerLimits(age=100.0), jitter=lambda: next(dice)).start()
    delays = [
        one.delay
        for worker_id in (0, 1)
        for one in play.ready(worker_id)
        if isinstance(one, StartTimer) and isinstance(one.event, WorkerAged)
    ]
    assert delays == [80.0, 100.0]


def test_one_at_a_time() -> None:
    play = pool(workers=2, rss=1000)
    assert without_timers(play(WorkerMeasured(0, 1, 2000))) == [SpawnWorker(2, 1, 1)]
    assert play(WorkerMeasured(1, 1, 2000)) == []
    play.ready(2)
    spawned = without_timers(play(WorkerExited(0, 1)))
    assert spawned == [SpawnWorker(0, 2, 1)]  # the slot that is free now, for the next
    assert StopWorker(1, 1) in play.ready(0, 2)


@pytest.mark.parametrize("phase", [None, Phase.ENTERED])
def test_old_one_that_dies_meanwhile_has_its_successor(phase: Phase | None) -> None:
    play = pool(rss=1000)
    play(WorkerMeasured(0, 1, 2000))
    if phase is not None:
        play.submit(1)
    assert not [one for one in play(WorkerExited(0, 1, phase)) if isinstance(one, SpawnWorker)]
    play.ready(1)
    assert states(play) == [(1, "READY")]


def test_successor_that_cannot_start_is_tried_again_while_the_old_one_serves() -> None:
    play = pool(rss=1000)
    play(WorkerMeasured(0, 1, 2000))
    (timer,) = play(SpawnFailed(1, 1, OSError()))
    assert GrantRequest(1, 0, 1, attempt=1) in play.submit(1)
    play(timer.event)  # type: ignore[attr-defined]
    play.ready(1, 2)
    assert StopWorker(0, 1) in play(RequestCompleted(1, 0, 1))


def test_successor_that_never_starts_costs_no_worker() -> None:
    play = Play(limits=WorkerLimits(rss=1000), restart=RestartPolicy(max_restarts=0)).up()
    play(WorkerMeasured(0, 1, 2000), SpawnFailed(1, 1, OSError()))
    assert play.state.start_failure() is None
    play.submit(1)
    assert SpawnWorker(0, 2, 1) in play(WorkerExited(0, 1, Phase.ENTERED))
    play(RestartRequested())
    assert states(play) == [(0, "SPAWNING")]


def test_old_one_that_does_not_leave_is_killed() -> None:
    play = pool(rss=1000)
    play(WorkerMeasured(0, 1, 2000))
    (_, timer) = [one for one in play.ready(1) if isinstance(one, (StopWorker, StartTimer))]
    assert isinstance(timer, StartTimer)
    assert play(timer.event) == [KillWorker(0, 1)]
    assert play(WorkerExited(0, 1)) == []


def test_pool_that_recycles_ends_like_any() -> None:
    for stop in (StopRequested(), KillRequested()):
        play = pool(rss=1000)
        play(WorkerMeasured(0, 1, 2000), WorkerReady(1, 1))
        play.fork(1)
        play(DrainRequested(), stop)
        instructions = play(WorkerExited(0, 1), WorkerExited(1, 1))
        assert instructions[-1] == ReportStopped()


def test_pool_that_ends_recycles_no_more() -> None:
    play = pool(rss=1000)
    play.submit(1)
    play(StopRequested())
    assert play(WorkerMeasured(0, 1, 2000)) == []


def test_small_workers_stay() -> None:
    assert pool(rss=1000)(WorkerMeasured(0, 1, 1000)) == []
    assert Play().up()(WorkerMeasured(0, 1, 1 << 40)) == []
