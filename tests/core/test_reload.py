"""New code comes in: a trial first, then one worker after the other, or nothing changes."""

from __future__ import annotations

from typing import Any

import pytest
from pool_play import Play, pid_of, without_timers

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import (
    ForkServerLost,
    ForkServerStarted,
    KillRequested,
    Phase,
    PoolStarted,
    ReloadRequested,
    RequestCompleted,
    RestartRequested,
    SpawnFailed,
    StartFailed,
    StartTimedOut,
    StopRequested,
    WorkerAged,
    WorkerExited,
    WorkerForked,
    WorkerReady,
)
from snakepit_mp.core.instructions import (
    GrantRequest,
    Instruction,
    KillWorker,
    ReportReloaded,
    ReportStopped,
    SpawnWorker,
    StartForkServer,
    StopForkServer,
    StopWorker,
)
from snakepit_mp.core.lifecycle import InvalidTransition, WorkerState
from snakepit_mp.core.recycling import WorkerLimits
from snakepit_mp.errors import PoolClosed, WorkerStartError

S = WorkerState
DONE = ReportReloaded(None)


def serving(workers: int = 1, **settings: Any) -> Play:
    """Each worker has had a call, so that its death is no failed start."""
    play = Play(workers=workers, **settings).up()
    for worker_id in range(workers):
        play.submit(1000 + worker_id)
    for worker_id in range(workers):
        play(RequestCompleted(1000 + worker_id, worker_id, 1))
    return play


def reloading(workers: int = 2, **settings: Any) -> Play:
    """The new fork server is up, and its first worker was asked for in the spare slot."""
    play = serving(workers, **settings)
    assert play(ReloadRequested()) == [StartForkServer(2)]
    assert without_timers(play(ForkServerStarted(2))) == [SpawnWorker(workers, 1, 2)]
    return play


def failure(instructions: list[Instruction]) -> BaseException:
    [report] = [one for one in instructions if isinstance(one, ReportReloaded)]
    assert isinstance(report.failure, WorkerStartError)
    assert report.failure.__cause__ is not None
    assert "the new code cannot be started: " in str(report.failure)
    return report.failure.__cause__


def asked(play: Play) -> int:
    """The generation of the fork server that is asked."""
    return play.state.fork_servers()[0].generation


# --- it goes well ---


def test_workers_are_replaced_one_by_one_the_successor_first() -> None:
    play = reloading()
    assert without_timers(play.ready(2)) == [StopWorker(0, 1)]
    assert without_timers(play(WorkerExited(0, 1))) == [SpawnWorker(0, 2, 2)]
    assert without_timers(play.ready(0, 2)) == [StopWorker(1, 1)]
    assert play(WorkerExited(1, 1)) == [StopForkServer(1), DONE]
    assert [(row.worker_id, row.state, row.generation) for row in play.state.workers()] == [
        (0, S.READY, 2),
        (2, S.READY, 2),
    ]
    assert play(ForkServerLost(1)) == []
    assert (play.state.counters().recycled, play.state.counters().worker_deaths) == (2, 0)


def test_a_second_reload_goes_as_the_first() -> None:
    play = reloading(workers=1)
    play.ready(1)
    play(WorkerExited(0, 1), ForkServerLost(1))
    assert play(ReloadRequested()) == [StartForkServer(3)]
    assert without_timers(play(ForkServerStarted(3))) == [SpawnWorker(0, 2, 3)]
    play.ready(0, 2)
    assert play(WorkerExited(1, 1)) == [StopForkServer(2), DONE]


def test_nothing_is_asked_of_the_new_server_before_its_first_worker_is_ready() -> None:
    play = reloading()
    assert asked(play) == 1
    assert without_timers(play(WorkerExited(0, 1))) == []  # the one on trial takes its place
    assert without_timers(play(WorkerExited(1, 1))) == [SpawnWorker(1, 2, 1)]
    play.ready(2)
    assert asked(play) == 2


def test_a_call_is_finished_by_who_has_it_and_the_idle_ones_go_first() -> None:
    play = Play(workers=2).up()
    assert GrantRequest(1, 0, 1, attempt=1) in play.submit(1)
    play(ReloadRequested(), ForkServerStarted(2))
    assert without_timers(play.ready(2)) == [StopWorker(1, 1)]  # the one that is idle
    assert without_timers(play(WorkerExited(1, 1))) == [SpawnWorker(1, 2, 2)]
    assert play.ready(1, 2) == []  # worker 0 is at work, and takes no more
    assert GrantRequest(2, 2, 1, attempt=1) in play.submit(2)
    assert without_timers(play(RequestCompleted(1, 0, 1))) == [StopWorker(0, 1)]
    assert play(WorkerExited(0, 1)) == [StopForkServer(1), DONE]


def test_an_old_worker_that_dies_is_replaced_by_a_new_one() -> None:
    play = reloading()
    play.ready(2)
    assert SpawnWorker(1, 2, 2) in play(WorkerExited(1, 1))
    assert without_timers(play(WorkerExited(0, 1))) == [StopForkServer(1)]
    assert play.ready(1, 2) == [DONE]


def test_who_is_being_started_by_the_old_server_is_replaced_as_well() -> None:
    play = reloading()
    assert SpawnWorker(1, 2, 1) in play(WorkerExited(1, 1))
    play.ready(2)
    play(WorkerExited(0, 1))
    assert SpawnWorker(0, 2, 2) in play.ready(1, 2)  # its successor
    assert without_timers(play.ready(0, 2)) == [StopWorker(1, 2)]
    assert play(WorkerExited(1, 2)) == [StopForkServer(1), DONE]


def test_recycling_that_is_under_way_is_finished_first() -> None:
    play = Play(workers=1, limits=WorkerLimits(age=10.0)).up()
    assert SpawnWorker(1, 1, 1) in play(WorkerAged(0, 1))
    assert play(ReloadRequested(), ForkServerStarted(2)) == [StartForkServer(2)]
    assert StopWorker(0, 1) in play.ready(1)
    assert without_timers(play(WorkerExited(0, 1))) == [SpawnWorker(0, 2, 2)]


# --- it does not ---


def test_code_that_cannot_be_imported_changes_nothing() -> None:
    play = reloading()
    cause = SyntaxError("invalid syntax")
    told = play(ForkServerLost(2, cause, permanent=True))
    assert failure(told) is cause
    assert without_timers(told) == [StopForkServer(2), told[-1]]
    assert [row.state for row in play.state.workers()] == [S.READY, S.READY]
    assert play(ForkServerLost(2)) == []
    assert asked(play) == 1
    assert play(ReloadRequested()) == [StartForkServer(3)]


@pytest.mark.parametrize("end", ["start fails", "dies", "fork fails", "server dies", "hangs"])
def test_a_first_worker_that_does_not_get_ready_changes_nothing(end: str) -> None:
    play = reloading()
    if end == "fork fails":
        told = play(SpawnFailed(2, 1, OSError("no memory")))
    elif end == "server dies":
        told = play(ForkServerLost(2))
    else:
        play.fork(2)
        if end == "start fails":
            play(StartFailed(2, 1, ValueError("no model")))
        elif end == "hangs":
            assert play(StartTimedOut(2, 1)) == [KillWorker(2, 1)]
        told = play(WorkerExited(2, 1))
    failure(told)
    assert [(row.worker_id, row.state) for row in play.state.workers()] == [
        (0, S.READY),
        (1, S.READY),
    ]
    assert play(ForkServerLost(2)) == []
    assert SpawnWorker(0, 2, 1) in play(WorkerExited(0, 1))


def test_one_on_trial_that_has_taken_a_place_is_started_again_from_the_old_code() -> None:
    play = reloading(restart=RestartPolicy(max_restarts=0))
    play(WorkerExited(0, 1))
    play.fork(2)
    told = play(StartFailed(2, 1, ValueError("no model")), WorkerExited(2, 1))
    failure(told)
    assert SpawnWorker(2, 2, 1) in told


def test_a_fork_that_is_answered_after_the_end_is_undone() -> None:
    play = reloading()
    failure(play(ForkServerLost(2)))
    assert play(WorkerForked(2, 1, pid_of(2, 1))) == [KillWorker(2, 1)]


def test_code_that_fails_later_than_its_first_worker_ends_the_reload_and_is_told() -> None:
    play = reloading(restart=RestartPolicy(max_restarts=0))
    play.ready(2)
    play(WorkerExited(0, 1))
    play.fork(0, 2)
    play(StartFailed(0, 2, ValueError("no model")), WorkerExited(0, 2))
    told = play(ForkServerLost(2, ImportError("gone"), permanent=True))
    assert isinstance(failure(told), ImportError)
    assert play.worker(1) is S.READY  # what is left of the old code serves on


# --- the servers ---


def test_the_new_server_takes_over_if_the_old_one_dies() -> None:
    play = reloading(workers=1)
    assert play(ForkServerLost(1)) == [KillWorker(0, 1)]
    assert asked(play) == 2
    assert play(WorkerExited(0, 1)) == []  # its successor is coming
    assert play.ready(1) == [DONE]


def test_it_takes_over_even_before_it_is_there() -> None:
    play = serving()
    play(ReloadRequested())
    assert play(ForkServerLost(1)) == [KillWorker(0, 1)]
    assert play(WorkerExited(0, 1)) == []
    assert without_timers(play(ForkServerStarted(2))) == [SpawnWorker(0, 2, 2)]
    assert play.ready(0, 2) == [DONE]


def test_an_old_server_that_dies_takes_only_its_own_along() -> None:
    play = reloading()
    play.ready(2)
    play(WorkerExited(0, 1))
    play.ready(0, 2)
    assert play(ForkServerLost(1)) == [KillWorker(1, 1)]
    assert play(WorkerExited(1, 1))[-1] == DONE
    assert play.worker(1) is S.READY


def test_without_a_server_it_is_a_restart() -> None:
    play = Play(workers=1, restart=RestartPolicy(max_restarts=0)).start()
    play(ForkServerLost(1, ImportError("no such module"), permanent=True))
    assert play.worker() is S.FAILED
    assert play(ReloadRequested()) == [StartForkServer(2)]
    play(ForkServerStarted(2))
    assert play.ready(0, 2) == [DONE]


def test_who_has_failed_needs_no_trial() -> None:
    play = Play(workers=1, restart=RestartPolicy(max_restarts=0)).start()
    play.fork()
    play(StartFailed(0, 1, ValueError("no model")), WorkerExited(0, 1))
    assert play.worker() is S.FAILED
    play(ReloadRequested())
    assert without_timers(play(ForkServerStarted(2))) == [SpawnWorker(0, 2, 2), StopForkServer(1)]
    assert play.ready(0, 2) == [DONE]


def test_who_fails_again_is_told() -> None:
    play = Play(workers=1, restart=RestartPolicy(max_restarts=0)).start()
    play(ForkServerLost(1, ImportError("no such module"), permanent=True))
    play(ReloadRequested(), ForkServerStarted(2))
    told = play(ForkServerLost(2, cause := ImportError("still not"), permanent=True))
    assert failure(told) is cause


def test_who_is_still_starting_is_waited_for() -> None:
    play = Play(workers=1).start()
    assert play(ReloadRequested(), ForkServerStarted(2)) == [StartForkServer(2)]
    assert SpawnWorker(1, 1, 2) in play.ready(0)


# --- the pool ---


def test_a_pool_that_ends_tells_and_ends_both_servers() -> None:
    play = reloading(workers=1)
    told = play(StopRequested())
    [report] = [one for one in told if isinstance(one, ReportReloaded)]
    assert isinstance(report.failure, PoolClosed)
    assert [one for one in told if isinstance(one, StopForkServer)] == [StopForkServer(2)]
    assert play(WorkerExited(0, 1))[-2:] == [StopForkServer(1), ReportStopped()]
    assert play(ForkServerLost(2), ForkServerLost(1)) == []


def test_a_pool_that_is_killed_in_the_middle_ends_all_servers() -> None:
    play = reloading()
    play.ready(2)
    play(KillRequested())
    told = play(*(WorkerExited(worker_id, 1) for worker_id in range(3)))
    stopped = {one.generation for one in told if isinstance(one, StopForkServer)}
    assert stopped == {1, 2}
    assert told[-1] == ReportStopped()


def test_a_pool_that_is_ended_already_says_so() -> None:
    play = Play(workers=1).up()
    play(StopRequested())
    [report] = [one for one in play(ReloadRequested()) if isinstance(one, ReportReloaded)]
    assert isinstance(report.failure, PoolClosed)


def test_not_before_the_start_nor_twice_at_a_time() -> None:
    with pytest.raises(InvalidTransition):
        Play()(ReloadRequested())
    with pytest.raises(InvalidTransition):
        reloading()(ReloadRequested())


def test_a_call_is_blamed_as_ever_while_it_goes_on() -> None:
    play = reloading()
    play.submit(1, idempotent=True)
    play.ready(2)
    holder = next(row.worker_id for row in play.state.workers() if row.request_id == 1)
    told = play(WorkerExited(holder, 1, Phase.ENTERED))
    others = {0, 1, 2} - {holder}
    assert any(GrantRequest(1, worker, 1, attempt=2) in told for worker in others)


def test_a_spare_place_that_was_given_up_is_used_again_after_a_restart() -> None:
    play = serving(1, limits=WorkerLimits(age=10.0), restart=RestartPolicy(max_restarts=0))
    play(WorkerAged(0, 1))
    play.fork(1)
    play(StartFailed(1, 1, ValueError("no model")), WorkerExited(1, 1))
    play(WorkerExited(0, 1))  # it stood in for nobody any more
    play.ready(0, 2)
    play(RestartRequested())
    assert SpawnWorker(1, 2, 1) in play(WorkerAged(0, 2))


def test_before_the_start_there_is_one_server() -> None:
    assert [row.asked for row in Play().state.fork_servers()] == [True]
    play = Play()
    play(PoolStarted(), ForkServerStarted(1))
    play(ReloadRequested())
    assert [(row.generation, row.asked) for row in play.state.fork_servers()] == [
        (1, True),
        (2, False),
    ]


def test_a_worker_ready_before_its_fork_is_answered_counts_as_ready() -> None:
    play = reloading(workers=1)
    assert play(WorkerReady(1, 1)) == []
    assert StopWorker(0, 1) in play.fork(1)
