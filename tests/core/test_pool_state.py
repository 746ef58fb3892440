"""The pool as a whole: draining, stopping, refusing the impossible."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError

from pool_play import Play, without_timers

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import (
    DeadlineExpired,
    DrainRequested,
    KillRequested,
    Phase,
    RequestCancelled,
    RequestCompleted,
    SpawnFailed,
    StopRequested,
    WorkerExited,
)
from snakepit_mp.core.instructions import (
    FailRequest,
    GrantRequest,
    InterruptWorker,
    KillWorker,
    ReportIdle,
    ReportStopped,
    StopForkServer,
    StopWorker,
)
from snakepit_mp.core.lifecycle import WorkerState
from snakepit_mp.errors import PoolClosed

S = WorkerState


def failed_with(instructions: Sequence[object]) -> list[tuple[int, type]]:
    return [
        (one.request_id, type(one.failure)) for one in instructions if isinstance(one, FailRequest)
    ]


# --- draining ---


def test_drain_of_an_idle_pool() -> None:
    assert Play().up()(DrainRequested()) == [ReportIdle()]


def test_drain_waits_for_line_and_hands() -> None:
    play = Play().up()
    play.submit(1)
    play.submit(2)
    assert play(DrainRequested(), DrainRequested()) == []
    assert ReportIdle() not in play(RequestCompleted(1, 0, 1))
    assert play(RequestCompleted(2, 0, 1)) == [ReportIdle()]
    play.submit(3)  # it stays open
    assert play(RequestCompleted(3, 0, 1)) == []  # and was told once


def test_drain_waits_for_interrupted_tools() -> None:
    play = Play().up()
    play.submit(1)
    play(DrainRequested())
    assert ReportIdle() not in play(DeadlineExpired(1))
    assert play(RequestCompleted(1, 0, 1)) == [ReportIdle()]


def test_drain_when_workers_fail() -> None:
    play = Play().start()
    play.submit(1)
    play(DrainRequested())
    for incarnation in (1, 2, 3):
        (timer,) = play(SpawnFailed(0, incarnation, OSError()))
        play(timer.event)  # type: ignore[attr-defined]
    instructions = play(SpawnFailed(0, 4, OSError()))
    assert [type(one) for one in instructions] == [FailRequest, ReportIdle]


# --- stopping ---


def test_stop_finishes_the_line() -> None:
    play = Play().up()
    play.submit(1)
    play.submit(2)
    assert play(StopRequested()) == []
    assert play(RequestCompleted(1, 0, 1)) == [GrantRequest(2, 0, 1, attempt=1)]
    assert without_timers(play(RequestCompleted(2, 0, 1))) == [StopWorker(0, 1)]
    assert play(WorkerExited(0, 1)) == [StopForkServer(1), ReportStopped()]


def test_stop_that_cancels_what_waits() -> None:
    play = Play(queue_size=1).up()
    for request_id in (1, 2, 3):
        play.submit(request_id)
    cancelled = play(StopRequested(cancel_waiting=True))
    assert failed_with(cancelled) == [(2, CancelledError), (3, CancelledError)]
    assert len(cancelled) == 2  # nobody was let into a line that is being cleared
    assert without_timers(play(RequestCompleted(1, 0, 1))) == [StopWorker(0, 1)]


def test_second_stop_may_be_stricter() -> None:
    play = Play().up()
    play.submit(1)
    play.submit(2)
    play(StopRequested())
    assert failed_with(play(StopRequested(cancel_waiting=True))) == [(2, CancelledError)]


def test_stop_before_any_worker_is_up_still_serves_the_line() -> None:
    play = Play(workers=2).start()
    play.submit(1)
    assert play(StopRequested()) == []
    assert GrantRequest(1, 0, 1, attempt=1) in play.ready(0)
    assert play.worker(1) is S.STOPPING


def test_request_that_comes_back_while_stopping_gets_a_new_worker() -> None:
    play = Play(workers=2).up()
    play.submit(1, idempotent=True)
    play(StopRequested())
    play(WorkerExited(1, 1))
    play(WorkerExited(0, 1, Phase.ENTERED))
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, attempt=2)]
    play(RequestCompleted(1, 0, 2))
    assert ReportStopped() in play(WorkerExited(0, 2))


def test_line_that_nobody_can_serve_while_stopping() -> None:
    play = Play().up()
    play.submit(1)
    play(StopRequested())
    play(WorkerExited(0, 1, Phase.TAKEN))
    for incarnation in (2, 3, 4):
        (timer,) = play(SpawnFailed(0, incarnation, OSError()))
        play(timer.event)  # type: ignore[attr-defined]
    instructions = play(SpawnFailed(0, 5, OSError()))
    assert [type(one) for one in instructions] == [FailRequest, StopForkServer, ReportStopped]


def test_deadline_while_stopping() -> None:
    play = Play().up()
    play.submit(1)
    play(StopRequested())
    assert play(DeadlineExpired(1))[0] == InterruptWorker(0, 1, 1)
    assert without_timers(play(RequestCompleted(1, 0, 1))) == [StopWorker(0, 1)]
    assert play(WorkerExited(0, 1)) == [StopForkServer(1), ReportStopped()]


def test_kill_does_not_wait_for_an_interrupted_tool() -> None:
    play = Play().up()
    play.submit(1)
    play(DeadlineExpired(1))
    assert play(RequestCancelled(1), DeadlineExpired(1)) == []
    assert play(KillRequested()) == [KillWorker(0, 1)]
    assert ReportStopped() in play(WorkerExited(0, 1))


def test_no_request_is_taken_after_stop() -> None:
    play = Play().up()
    play(StopRequested())
    assert failed_with(play.submit(1)) == [(1, PoolClosed)]
    play(WorkerExited(0, 1))
    assert failed_with(play.submit(2)) == [(2, PoolClosed)]


def test_kill_answers_everybody() -> None:
    play = Play(queue_size=1).up()
    for request_id in (1, 2, 3):
        play.submit(request_id)
    instructions = play(KillRequested())
    assert instructions[0] == KillWorker(0, 1)
    assert sorted(failed_with(instructions)) == [(n, CancelledError) for n in (1, 2, 3)]
    assert play(RequestCompleted(1, 0, 1)) == []
    assert play(WorkerExited(0, 1, Phase.ENTERED)) == [StopForkServer(1), ReportStopped()]


def test_stopped_is_reported_once() -> None:
    play = Play().up()
    play(StopRequested(), WorkerExited(0, 1))
    assert play(StopRequested(), KillRequested(), WorkerExited(0, 1)) == []


def test_stop_of_a_pool_that_never_started() -> None:
    play = Play()
    play.submit(1)
    assert failed_with(play(StopRequested())) == [(1, CancelledError)]
    assert play.state.start_failure() is None


def test_requests_before_the_start_wait_for_it() -> None:
    play = Play()
    play.submit(1)
    play.start()
    assert play.ready() == [GrantRequest(1, 0, 1, attempt=1)]


# --- affinity ---


def test_session_returns_to_the_worker_it_had() -> None:
    play = Play(workers=3).up()
    play.submit(1, session_id="s")
    play(RequestCompleted(1, 0, 1))
    assert GrantRequest(2, 0, 1, attempt=1) in play.submit(2, session_id="s")
    assert GrantRequest(3, 1, 1, attempt=1) in play.submit(3, session_id="s")


# --- reading ---


def test_story_is_bounded_and_tells_what_was_late() -> None:
    play = Play(workers=2).up()
    play(RequestCancelled(99))
    assert play.state.story()[-1].endswith("(late)")
    assert any("worker_id=1" in line for line in play.state.story())
    assert not any("worker_id=1" in line for line in play.state.story(0))
    for _ in range(1000):
        play(RequestCancelled(99))
    assert len(play.state.story()) == 256


def test_request_in_hand() -> None:
    play = Play().up()
    assert play.state.request_in_hand(0, 1) is None
    play.submit(5)
    assert play.state.request_in_hand(0, 1) == 5
    play(WorkerExited(0, 1, Phase.ENTERED))
    assert play.state.request_in_hand(0, 1) is None


def test_start_failure_without_a_known_cause() -> None:
    play = Play(restart=RestartPolicy(max_restarts=0)).start()
    assert play.state.start_failure() is None
    play(WorkerExited(0, 1))
    assert "worker 0 ended before" in str(play.state.start_failure())
