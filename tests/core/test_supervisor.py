"""Which workers there are: starts, failed starts, replacement, giving up."""

from __future__ import annotations

import pytest
from pool_play import Play, without_timers

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import (
    ForkServerLost,
    ForkServerStarted,
    KillRequested,
    LaneBroke,
    Phase,
    PoolStarted,
    RequestCompleted,
    RestartDue,
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
    FailRequest,
    GrantRequest,
    Instruction,
    KillWorker,
    ReportStopped,
    SpawnWorker,
    StartForkServer,
    StartTimer,
    StopForkServer,
    StopWorker,
)
from snakepit_mp.core.lifecycle import WorkerState
from snakepit_mp.errors import WorkerStartError

S = WorkerState
ONCE = RestartPolicy(max_restarts=0)


def spawn(worker_id: int, incarnation: int) -> list[Instruction]:
    return [
        SpawnWorker(worker_id, incarnation, 1),
        StartTimer(60.0, StartTimedOut(worker_id, incarnation)),
    ]


# --- starting ---


def test_workers_are_asked_for_when_the_fork_server_takes_requests() -> None:
    play = Play(workers=2)
    assert play(PoolStarted()) == [StartForkServer(1)]
    assert play(ForkServerStarted(1)) == [*spawn(0, 1), *spawn(1, 1)]


def test_worker_is_ready_only_when_its_pid_is_known() -> None:
    """Nothing is granted to a process that could not be killed."""
    play = Play().start()
    play.submit(1)
    assert play(WorkerReady(0, 1)) == []
    assert play.worker() is S.SPAWNING
    assert play.fork() == [GrantRequest(1, 0, 1, attempt=1)]
    assert play.worker() is S.EXECUTING


def test_failed_start_backs_off() -> None:
    play = Play().start()
    play.fork()
    assert play(StartFailed(0, 1, ValueError("no model"))) == []
    assert play(WorkerExited(0, 1)) == [StartTimer(0.1, RestartDue(0, 2))]
    assert play.worker() is S.BACKOFF
    assert play(RestartDue(0, 2)) == spawn(0, 2)


def test_start_failure_that_overtakes_the_answer_to_the_fork() -> None:
    cause = ValueError("no model")
    play = Play(restart=ONCE).start()
    play(StartFailed(0, 1, cause))
    play.fork()
    play(WorkerExited(0, 1))
    assert play.state.start_failure() is cause


def test_exit_that_overtakes_the_answer_to_the_fork() -> None:
    play = Play().start()
    assert play(WorkerExited(0, 1)) == [StartTimer(0.1, RestartDue(0, 2))]
    assert play.fork() == []  # late
    assert play(StartTimedOut(0, 1)) == []
    assert play.worker() is S.BACKOFF


def test_failed_fork_backs_off() -> None:
    play = Play().start()
    assert play(SpawnFailed(0, 1, OSError("no memory"))) == [StartTimer(0.1, RestartDue(0, 2))]


def test_too_many_failed_starts_fail_everything_that_waits() -> None:
    cause = ValueError("no model")
    play = Play().start()
    play.submit(1)
    for incarnation in (1, 2, 3):
        play(SpawnFailed(0, incarnation, cause), RestartDue(0, incarnation + 1))
    (failed,) = play(SpawnFailed(0, 4, cause))
    assert isinstance(failed, FailRequest)
    assert isinstance(failed.failure, WorkerStartError)
    assert failed.failure.__cause__ is cause
    assert "ValueError: no model" in str(failed.failure)
    assert play.worker() is S.FAILED


def test_requests_after_every_worker_failed() -> None:
    play = Play(restart=ONCE).start()
    play(SpawnFailed(0, 1, OSError("no memory")))
    (failed,) = play.submit(1)
    assert isinstance(failed, FailRequest)
    assert isinstance(failed.failure, WorkerStartError)
    assert play.state.counters().failed == 1


def test_one_failed_worker_does_not_stop_the_others() -> None:
    play = Play(workers=2, restart=ONCE).start()
    play(SpawnFailed(0, 1, OSError()))
    assert play.state.start_failure() is None
    play.ready(1)
    assert GrantRequest(1, 1, 1, attempt=1) in play.submit(1)


def test_start_that_takes_too_long() -> None:
    play = Play(restart=ONCE).start()
    play.fork()
    assert play(StartTimedOut(0, 1)) == [KillWorker(0, 1)]
    assert play(WorkerReady(0, 1)) == []  # in the same instant: too late
    assert play.worker() is S.STOPPING
    play(WorkerExited(0, 1))
    assert "not ready within 60 s" in str(play.state.start_failure())


def test_fork_that_is_never_answered_is_given_up() -> None:
    play = Play().start()
    assert play(StartTimedOut(0, 1)) == [StartTimer(0.1, RestartDue(0, 2))]
    assert play(RestartDue(0, 2)) == spawn(0, 2)
    assert play.fork(0, 1) == [KillWorker(0, 1)]  # it came after all
    assert play(WorkerReady(0, 1), WorkerExited(0, 1)) == []
    play.ready(0, 2)
    assert play.worker() is S.READY


@pytest.mark.parametrize(
    "event", [SpawnLost(0, 1), SpawnFailed(0, 1, OSError()), WorkerExited(0, 1)]
)
def test_fork_that_was_given_up_and_comes_to_nothing(event: SpawnLost) -> None:
    play = Play().start()
    play(StartTimedOut(0, 1))
    assert play(event) == []
    assert play.fork(0, 1) == []


def test_slow_starts_are_given_up_as_surely_as_quick_ones() -> None:
    play = Play().start()
    for incarnation in (1, 2, 3):
        play.now += 60.0
        (timer,) = play(StartTimedOut(0, incarnation))
        assert isinstance(timer, StartTimer)
        play.now += timer.delay
        play(timer.event)
    play.now += 60.0
    play(StartTimedOut(0, 4))
    assert play.worker() is S.FAILED


@pytest.mark.parametrize("state", ["READY", "EXECUTING"])
def test_start_timer_of_a_worker_that_is_up(state: str) -> None:
    play = Play().up()
    if state == "EXECUTING":
        play.submit(1)
    assert play(StartTimedOut(0, 1)) == []
    assert play.worker().name == state


# --- replacement ---


def test_worker_that_served_is_replaced_at_once() -> None:
    play = Play(restart=ONCE).up()
    play.submit(1)
    play(RequestCompleted(1, 0, 1))
    assert play(WorkerExited(0, 1)) == spawn(0, 2)


def test_worker_that_dies_of_its_first_request_had_served() -> None:
    play = Play(restart=ONCE).up()
    play.submit(1)
    assert SpawnWorker(0, 2, 1) in play(WorkerExited(0, 1, Phase.ENTERED))


def test_worker_that_dies_idle_without_ever_serving_backs_off() -> None:
    play = Play().up()
    assert play(WorkerExited(0, 1)) == [StartTimer(0.1, RestartDue(0, 2))]
    assert "before it had served" in str(play.state._supervisor.failure)


def test_serving_forgives_earlier_failures() -> None:
    play = Play().start()
    for incarnation in (1, 2, 3):
        play(SpawnFailed(0, incarnation, OSError()), RestartDue(0, incarnation + 1))
    play.ready(0, 4)
    play.submit(1)
    play(WorkerExited(0, 4, Phase.ENTERED))
    assert play(SpawnFailed(0, 5, OSError())) == [StartTimer(0.1, RestartDue(0, 6))]


def test_broken_lane_kills_and_the_exit_decides() -> None:
    play = Play().up()
    play.submit(1)
    assert play(LaneBroke(1, 0, 1)) == [KillWorker(0, 1)]
    assert play(LaneBroke(1, 0, 1)) == []
    assert play.row().request_id == 1
    assert SpawnWorker(0, 2, 1) in play(WorkerExited(0, 1, Phase.TAKEN))
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, attempt=1)]


def test_reply_after_the_lane_broke_counts_but_the_worker_still_ends() -> None:
    play = Play().up()
    play.submit(1)
    play(LaneBroke(1, 0, 1))
    play.submit(2)
    assert play(RequestCompleted(1, 0, 1)) == []
    assert play.worker() is S.STOPPING
    assert play.state.counters().completed == 1
    play(WorkerExited(0, 1))
    assert play.ready(0, 2) == [GrantRequest(2, 0, 2, attempt=1)]


def test_restart_due_twice_is_late() -> None:
    play = Play().start()
    play(SpawnFailed(0, 1, OSError()), RestartDue(0, 2))
    assert play(RestartDue(0, 2)) == []


# --- stopping ---


def test_idle_workers_are_asked_to_stop() -> None:
    play = Play().up()
    assert play(StopRequested()) == [StopWorker(0, 1), StartTimer(5.0, StopTimedOut(0, 1))]
    assert play(WorkerExited(0, 1)) == [StopForkServer(1), ReportStopped()]


def test_worker_that_does_not_stop_in_time_is_killed() -> None:
    play = Play().up()
    play(StopRequested())
    assert play(StopTimedOut(0, 1)) == [KillWorker(0, 1)]
    assert ReportStopped() in play(WorkerExited(0, 1))
    assert play(StopTimedOut(0, 1)) == []


def test_stop_while_connecting_kills() -> None:
    play = Play().start()
    play.fork()
    assert play(StopRequested()) == [KillWorker(0, 1)]
    assert ReportStopped() in play(WorkerExited(0, 1))


def test_stop_before_the_fork_is_answered_kills_on_the_answer() -> None:
    play = Play().start()
    assert without_timers(play(StopRequested())) == []
    assert play.worker() is S.STOPPING
    assert play.fork() == [KillWorker(0, 1)]
    assert ReportStopped() in play(WorkerExited(0, 1))


@pytest.mark.parametrize("event", [SpawnLost(0, 1), SpawnFailed(0, 1, OSError())])
def test_stop_and_the_fork_comes_to_nothing(event: SpawnLost) -> None:
    play = Play().start()
    play(StopRequested())
    assert play(event) == [StopForkServer(1), ReportStopped()]


@pytest.mark.parametrize("event", [StopTimedOut(0, 1), StartTimedOut(0, 1)])
def test_stop_does_not_wait_for_a_fork_for_ever(event: StopTimedOut) -> None:
    play = Play().start()
    play(StopRequested())
    assert play(event) == [StopForkServer(1), ReportStopped()]
    assert play.fork() == [KillWorker(0, 1)]


def test_stop_during_backoff() -> None:
    play = Play().start()
    play(SpawnFailed(0, 1, OSError()))
    assert play(StopRequested()) == [StopForkServer(1), ReportStopped()]
    assert play(RestartDue(0, 2)) == []


def test_kill_spares_nobody_and_waits_for_no_answer() -> None:
    play = Play(workers=4).start()
    for worker_id in (1, 2, 3):
        play.fork(worker_id)
    for worker_id in (2, 3):
        play(WorkerReady(worker_id, 1))
    play.submit(1)
    killed = [one for one in play(KillRequested()) if isinstance(one, KillWorker)]
    assert killed == [KillWorker(1, 1), KillWorker(2, 1), KillWorker(3, 1)]
    assert play(KillRequested()) == []
    play(WorkerExited(1, 1), WorkerExited(2, 1))
    assert play(WorkerExited(3, 1)) == [StopForkServer(1), ReportStopped()]
    assert play.fork(0) == [KillWorker(0, 1)]


def test_kill_after_a_polite_stop() -> None:
    play = Play().up()
    play(StopRequested())
    assert play(KillRequested()) == [KillWorker(0, 1)]
    assert play(StopTimedOut(0, 1)) == []


def test_kill_during_backoff_gives_up_nothing() -> None:
    play = Play().start()
    play(SpawnFailed(0, 1, OSError()))
    assert play(KillRequested()) == [StopForkServer(1), ReportStopped()]
    assert play.fork(0, 1) == []


def test_ordered_ends_are_no_deaths() -> None:
    play = Play().up()
    play(StopRequested(), WorkerExited(0, 1))
    assert play.state.counters().worker_deaths == 0


def test_lost_fork_server_and_unknown_fork_together() -> None:
    """Whatever the order of the two notices, there is one new process, and only one."""
    for order in (
        [ForkServerLost(1), SpawnLost(0, 1)],
        [SpawnLost(0, 1), ForkServerLost(1)],
        [ForkServerLost(1), WorkerForked(0, 1, 1001)],
    ):
        play = Play(restart=RestartPolicy(jitter=0.0, backoff=0.0)).start()
        instructions = play(*order)
        assert not [one for one in instructions if isinstance(one, SpawnWorker)]
        (timer,) = [one for one in instructions if isinstance(one, StartTimer)]
        assert play(timer.event) == [StartForkServer(2)]
        assert play(ForkServerStarted(2))[0] == SpawnWorker(0, play.row().incarnation, 2)
