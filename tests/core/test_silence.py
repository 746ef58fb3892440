"""Workers that do not answer, and pools that are told to try again."""

from __future__ import annotations

from pool_play import Play, without_timers

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import (
    DeadlineExpired,
    ForkServerDue,
    ForkServerLost,
    ForkServerStarted,
    Phase,
    RequestCompleted,
    RestartDue,
    RestartRequested,
    SilenceOverdue,
    SpawnFailed,
    StopRequested,
    ToolOverdue,
    WorkerExited,
    WorkerHeard,
    WorkerSilent,
)
from snakepit_mp.core.instructions import (
    FailRequest,
    GrantRequest,
    KillWorker,
    SpawnWorker,
    StartForkServer,
    StartTimer,
)
from snakepit_mp.core.lifecycle import WorkerState

S = WorkerState
ONCE = RestartPolicy(max_restarts=0)


# --- silence ---


def test_idle_worker_that_does_not_answer_gets_no_work() -> None:
    play = Play().up()
    silent = WorkerSilent(0, 1, stopped=False)
    assert play(silent) == [StartTimer(5.0, SilenceOverdue(0, 1, silence=1))]
    assert play(silent) == []  # asked again
    assert play.worker() is S.RECONNECTING
    assert without_timers(play.submit(1))[1:] == []
    assert play(WorkerHeard(0, 1)) == [GrantRequest(1, 0, 1, attempt=1)]
    assert play(SilenceOverdue(0, 1, silence=1)) == []


def test_idle_worker_that_stays_silent_is_replaced_though_it_never_served() -> None:
    play = Play(restart=ONCE).up()
    play(WorkerSilent(0, 1, stopped=True))
    assert play(SilenceOverdue(0, 1, silence=1)) == [KillWorker(0, 1)]
    assert SpawnWorker(0, 2, 1) in play(WorkerExited(0, 1))


def test_each_silence_has_its_own_timer() -> None:
    play = Play().up()
    for number in (1, 2):
        play(WorkerSilent(0, 1, stopped=False))
        if number == 1:
            play(WorkerHeard(0, 1))
    assert play(SilenceOverdue(0, 1, silence=1)) == []
    assert play(SilenceOverdue(0, 1, silence=2)) == [KillWorker(0, 1)]


def test_long_call_is_no_illness() -> None:
    play = Play().up()
    play.submit(1)
    assert play(WorkerSilent(0, 1, stopped=False)) == []
    assert play.worker() is S.EXECUTING
    play(RequestCompleted(1, 0, 1))
    assert play.worker() is S.READY


def test_stopped_worker_is_killed_under_its_call() -> None:
    play = Play().up()
    play.submit(1, idempotent=True)
    assert play(WorkerSilent(0, 1, stopped=True)) == [StartTimer(5.0, SilenceOverdue(0, 1, 1))]
    assert play.worker() is S.EXECUTING
    assert play(SilenceOverdue(0, 1, silence=1)) == [KillWorker(0, 1)]
    play(WorkerExited(0, 1, Phase.ENTERED))
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, attempt=2)]


def test_stopped_worker_that_is_continued_in_time() -> None:
    play = Play().up()
    play.submit(1)
    play(WorkerSilent(0, 1, stopped=True), WorkerHeard(0, 1))
    assert play(SilenceOverdue(0, 1, silence=1)) == []
    assert play(RequestCompleted(1, 0, 1)) == []
    assert play.worker() is S.READY


def test_deadline_takes_over_from_silence() -> None:
    play = Play().up()
    play.submit(1)
    play(WorkerSilent(0, 1, stopped=True), DeadlineExpired(1))
    assert play(SilenceOverdue(0, 1, silence=1)) == []
    assert play(ToolOverdue(0, 1, 1, final=True)) == [KillWorker(0, 1, overdue=True)]


def test_silent_worker_is_not_asked_to_stop() -> None:
    play = Play().up()
    play(WorkerSilent(0, 1, stopped=True))
    assert play(StopRequested()) == [KillWorker(0, 1)]


def test_silent_worker_goes_with_its_fork_server() -> None:
    play = Play().up()
    play(WorkerSilent(0, 1, stopped=True))
    assert KillWorker(0, 1) in play(ForkServerLost(1))


# --- restart ---


def test_restart_tries_what_had_failed_again() -> None:
    play = Play(restart=ONCE).start()
    play(SpawnFailed(0, 1, OSError("no memory")))
    assert play.worker() is S.FAILED
    assert without_timers(play(RestartRequested())) == [SpawnWorker(0, 2, 1)]
    assert play.state.start_failure() is None
    play.submit(1)
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, attempt=1)]


def test_restart_does_not_wait_for_a_backoff() -> None:
    play = Play().start()
    play(SpawnFailed(0, 1, OSError()))
    assert without_timers(play(RestartRequested())) == [SpawnWorker(0, 2, 1)]
    assert play(RestartDue(0, 2)) == []


def test_restart_forgives() -> None:
    play = Play(restart=RestartPolicy(max_restarts=1, jitter=0.0)).start()
    play(SpawnFailed(0, 1, OSError()), RestartRequested())
    assert play(SpawnFailed(0, 2, OSError())) == [StartTimer(0.1, RestartDue(0, 3))]


def test_restart_starts_a_fork_server_that_could_not_import() -> None:
    play = Play().start()
    play(ForkServerLost(1, ImportError("no such module"), permanent=True))
    assert play.worker() is S.FAILED
    assert play(RestartRequested()) == [StartForkServer(2)]
    assert without_timers(play(ForkServerStarted(2))) == [SpawnWorker(0, 2, 2)]


def test_restart_does_not_wait_for_the_fork_servers_backoff() -> None:
    play = Play().start()
    play(ForkServerLost(1))
    assert play(RestartRequested()) == [StartForkServer(2)]
    assert play(ForkServerDue(2)) == []


def test_restart_of_a_pool_that_is_well_changes_nothing() -> None:
    play = Play(workers=2).up()
    play.submit(1)
    before = play.state.workers()
    assert play(RestartRequested()) == []
    assert play.state.workers() == before


def test_restart_of_a_pool_that_ends_is_too_late() -> None:
    play = Play(restart=ONCE).start()
    play.submit(1)
    instructions = play(SpawnFailed(0, 1, OSError()), StopRequested(), RestartRequested())
    assert not [one for one in instructions if isinstance(one, SpawnWorker)]
    assert [one for one in instructions if isinstance(one, FailRequest)]


def test_silence_of_a_worker_that_has_to_leave_is_not_judged() -> None:
    """It has its time to leave; that it did not answer before is no news then."""
    play = Play().up()
    play(WorkerSilent(0, 1, stopped=True), StopRequested())
    assert play.worker() is S.STOPPING
    assert play(SilenceOverdue(0, 1, silence=1)) == []
