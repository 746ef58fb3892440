"""The fork server is supervised as well: a pool outlives it."""

from __future__ import annotations

import pytest
from pool_play import Play

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import (
    ForkServerDue,
    ForkServerLost,
    ForkServerStarted,
    KillRequested,
    Phase,
    PoolStarted,
    RequestCompleted,
    RestartDue,
    SpawnFailed,
    SpawnLost,
    StopRequested,
    WorkerExited,
)
from snakepit_mp.core.fork_server import ForkServerState
from snakepit_mp.core.instructions import (
    FailRequest,
    GrantRequest,
    KillWorker,
    ReportStopped,
    SpawnWorker,
    StartForkServer,
    StartTimer,
    StopForkServer,
)
from snakepit_mp.core.lifecycle import InvalidTransition, WorkerState
from snakepit_mp.errors import WorkerStartError

S = WorkerState


def server_state(play: Play) -> ForkServerState:
    return play.state._supervisor.server.state


def test_server_that_worked_is_replaced_at_once() -> None:
    play = Play(workers=2).up()
    assert play(ForkServerLost(1)) == [KillWorker(0, 1), KillWorker(1, 1), StartForkServer(2)]
    assert play(WorkerExited(0, 1), WorkerExited(1, 1)) == []
    spawned = [one for one in play(ForkServerStarted(2)) if isinstance(one, SpawnWorker)]
    assert spawned == [SpawnWorker(0, 2, 2), SpawnWorker(1, 2, 2)]


def test_its_workers_are_replaced_though_they_never_served() -> None:
    play = Play(restart=RestartPolicy(max_restarts=0)).up()
    play(ForkServerLost(1), WorkerExited(0, 1))
    assert play.worker() is S.SPAWNING


def test_idle_worker_of_a_dead_server_gets_nothing() -> None:
    """It is being killed: a request would only lose one of its lives there."""
    play = Play().up()
    play(ForkServerLost(1))
    assert [one for one in play.submit(1) if isinstance(one, GrantRequest)] == []


def test_busy_worker_of_a_dead_server() -> None:
    play = Play().up()
    play.submit(1)
    assert play(ForkServerLost(1)) == [KillWorker(0, 1), StartForkServer(2)]
    play(WorkerExited(0, 1, Phase.TAKEN), ForkServerStarted(2))
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, attempt=1)]


def test_reply_of_a_worker_of_a_dead_server_counts() -> None:
    play = Play().up()
    play.submit(1)
    play(ForkServerLost(1), RequestCompleted(1, 0, 1))
    assert play.state.counters().completed == 1
    assert play.worker() is S.STOPPING


def test_server_lost_while_workers_connect() -> None:
    play = Play(workers=2).start()
    play.fork(0)
    instructions = play(ForkServerLost(1))
    assert instructions == [StartTimer(0.1, ForkServerDue(2)), KillWorker(0, 1)]
    assert (play.worker(0), play.worker(1)) == (S.STOPPING, S.SPAWNING)
    play(WorkerExited(0, 1), SpawnLost(1, 1))
    assert play(ForkServerDue(2)) == [StartForkServer(2)]
    spawned = [one for one in play(ForkServerStarted(2)) if isinstance(one, SpawnWorker)]
    assert spawned == [SpawnWorker(0, 2, 2), SpawnWorker(1, 2, 2)]


def test_answer_that_is_read_after_the_server_was_lost() -> None:
    play = Play().start()
    play(ForkServerLost(1))
    assert play.fork(0, 1) == [KillWorker(0, 1)]


def test_unanswered_fork_is_not_asked_of_a_dying_server_again() -> None:
    """Whoever performs would report it lost again, and so on for ever."""
    play = Play().up()
    play.submit(1)
    play(WorkerExited(0, 1, Phase.TAKEN))
    assert play(SpawnLost(0, 2)) == []
    assert server_state(play) is ForkServerState.DYING
    assert play(ForkServerLost(1)) == [StartForkServer(2)]
    assert SpawnWorker(0, 3, 2) in play(ForkServerStarted(2))


def test_server_that_cannot_start_is_given_up() -> None:
    play = Play().start()
    play.submit(1)
    cause = ImportError("no such module")
    for generation in (1, 2, 3):
        (timer,) = play(ForkServerLost(generation, cause))
        assert timer == StartTimer(0.1 * 2 ** (generation - 1), ForkServerDue(generation + 1))
        play(ForkServerDue(generation + 1), ForkServerStarted(generation + 1))
    (failed,) = play(ForkServerLost(4, cause))
    assert isinstance(failed, FailRequest)
    assert isinstance(failed.failure, WorkerStartError)
    assert failed.failure.__cause__ is cause


def test_server_that_will_never_start_is_given_up_at_once() -> None:
    cause = ImportError("no such module")
    play = Play(workers=2).start()
    assert play(ForkServerLost(1, cause, permanent=True)) == []
    assert [row.state for row in play.state.workers()] == [S.FAILED, S.FAILED]
    assert play.state.start_failure() is cause


def test_permanent_loss_leaves_workers_in_backoff_without_hope() -> None:
    play = Play().start()
    play(SpawnFailed(0, 1, OSError()), ForkServerLost(1, None, permanent=True))
    assert play.worker() is S.FAILED
    assert play(RestartDue(0, 2)) == []


def test_workers_of_a_server_that_is_given_up_fail_when_they_end() -> None:
    play = Play().up()
    play.submit(1)
    play(ForkServerLost(1, None, permanent=True))
    assert play.worker() is S.EXECUTING
    (failed,) = play(WorkerExited(0, 1, Phase.TAKEN))
    assert isinstance(failed, FailRequest)
    assert isinstance(failed.failure, WorkerStartError)


def test_no_server_is_started_for_nobody() -> None:
    play = Play(restart=RestartPolicy(max_restarts=0)).start()
    play(SpawnFailed(0, 1, OSError()))
    play(ForkServerLost(1))
    assert play(ForkServerDue(2)) == []
    assert play.submit(1) != []


def test_lost_twice_is_late() -> None:
    play = Play().up()
    play(ForkServerLost(1))
    assert play(ForkServerLost(1)) == []
    play = Play().start()
    play(ForkServerLost(1))
    assert play(ForkServerLost(1)) == []


def test_started_after_it_was_lost_is_late() -> None:
    play = Play()
    play(PoolStarted(), ForkServerLost(1))
    assert play(ForkServerStarted(1)) == []
    assert server_state(play) is ForkServerState.BACKOFF


@pytest.mark.parametrize(
    "event", [ForkServerStarted(1), ForkServerStarted(2), ForkServerLost(2), ForkServerDue(3)]
)
def test_what_cannot_be(event: ForkServerStarted) -> None:
    play = Play().start()
    before = play.picture()
    with pytest.raises(InvalidTransition, match="in state UP"):
        play(event)
    assert play.picture() == before


def test_due_without_a_wait_is_late() -> None:
    assert Play().start()(ForkServerDue(2)) == []


# --- stopping without a server ---


def test_stop_while_the_server_is_down() -> None:
    play = Play().start()
    play(ForkServerLost(1))
    assert play(StopRequested()) == [ReportStopped()]
    assert play(ForkServerDue(2)) == []


def test_stop_while_the_server_starts() -> None:
    play = Play()
    play(PoolStarted())
    assert play(StopRequested()) == [StopForkServer(1), ReportStopped()]
    assert play(ForkServerStarted(1)) == [StopForkServer(1)]  # the order overtook the start
    assert play(ForkServerLost(1)) == []


def test_server_lost_while_stopping() -> None:
    play = Play(workers=2).up()
    play.submit(1)
    play(StopRequested())
    assert play(ForkServerLost(1)) == [KillWorker(0, 1), KillWorker(1, 1)]
    play(WorkerExited(1, 1))
    instructions = play(WorkerExited(0, 1, Phase.ENTERED))
    assert [type(one) for one in instructions] == [FailRequest, ReportStopped]


def test_line_is_finished_even_if_the_server_is_lost_while_stopping() -> None:
    play = Play().up()
    play.submit(1)
    play(StopRequested())
    play(ForkServerLost(1))
    assert play(WorkerExited(0, 1, Phase.TAKEN)) == [StartForkServer(2)]
    play(ForkServerStarted(2))
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, attempt=1)]


def test_kill_while_the_server_is_lost() -> None:
    play = Play().up()
    play.submit(1)
    play(ForkServerLost(1), KillRequested())
    assert play(WorkerExited(0, 1, Phase.ENTERED)) == [StopForkServer(2), ReportStopped()]
