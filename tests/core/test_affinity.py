"""Which worker a session gets: preferred, waited for, or demanded."""

from __future__ import annotations

from pool_play import Play

from snakepit_mp.core.events import (
    ForkServerLost,
    Phase,
    RequestCancelled,
    RequestCompleted,
    WorkerExited,
    WorkerSilent,
)
from snakepit_mp.core.instructions import AdmitRequest, FailRequest, GrantRequest, Instruction
from snakepit_mp.errors import SessionWorkerUnavailable

QUEUE, FAST = "strict_queue", "strict_fail_fast"


def bound(**settings: object) -> Play:
    """Two workers; session ``s`` was served by worker 0, which is busy with something else."""
    play = Play(**{"workers": 2, **settings}).up()
    play.submit(1, session_id="s")
    play(RequestCompleted(1, 0, 1))
    play.submit(2, session_id="s")
    return play


def granted(instructions: list[Instruction]) -> list[tuple[int, int]]:
    return [
        (one.request_id, one.worker_id) for one in instructions if isinstance(one, GrantRequest)
    ]


def test_hint_does_not_wait() -> None:
    assert granted(bound().submit(3, session_id="s")) == [(3, 1)]


def test_strict_call_waits_for_its_worker_while_another_is_idle() -> None:
    play = bound()
    assert play.submit(3, session_id="s", affinity=QUEUE) == [AdmitRequest(3)]
    assert granted(play(RequestCompleted(2, 0, 1))) == [(3, 0)]


def test_strict_call_holds_up_nobody() -> None:
    play = bound()
    play.submit(3, session_id="s", affinity=QUEUE)
    assert granted(play.submit(4)) == [(4, 1)]


def test_strict_call_gets_its_worker_before_those_who_take_any() -> None:
    play = bound()
    play.submit(3, session_id="s", affinity=QUEUE)
    play.submit(4)
    play.submit(5)
    assert granted(play(RequestCompleted(2, 0, 1))) == [(3, 0)]
    assert granted(play(RequestCompleted(4, 1, 1))) == [(5, 1)]


def test_strict_calls_of_a_session_keep_their_order() -> None:
    play = bound()
    for request_id in (3, 4, 5):
        play.submit(request_id, session_id="s", affinity=QUEUE)
    order = []
    for done in (2, 3, 4):
        order += granted(play(RequestCompleted(done, 0, 1)))
    assert order == [(3, 0), (4, 0), (5, 0)]


def test_new_session_takes_whom_it_gets() -> None:
    play = bound()
    assert granted(play.submit(3, session_id="new", affinity=QUEUE)) == [(3, 1)]
    play(RequestCompleted(3, 1, 1))
    assert granted(play.submit(4, session_id="newer", affinity=FAST)) == [(4, 1)]


def test_call_without_a_session_is_bound_to_nobody() -> None:
    assert granted(bound().submit(3, affinity=FAST)) == [(3, 1)]


def test_busy_worker_fails_a_call_in_a_hurry_at_once() -> None:
    play = bound()
    (failed,) = play.submit(3, session_id="s", affinity=FAST)
    assert isinstance(failed, FailRequest)
    assert isinstance(failed.failure, SessionWorkerUnavailable)
    assert (failed.failure.session_id, failed.failure.worker_id) == ("s", 0)
    assert play.state.counters().failed == 1


def test_idle_worker_serves_a_call_in_a_hurry() -> None:
    play = bound()
    play(RequestCompleted(2, 0, 1))
    assert granted(play.submit(3, session_id="s", affinity=FAST)) == [(3, 0)]


def test_call_in_a_hurry_that_waited_for_any_worker_may_find_its_own_busy() -> None:
    """It had none when it came; the call before it has bound its session."""
    play = Play(workers=2).up()
    play.submit(1)
    play.submit(2)
    play.submit(3, session_id="s")
    play.submit(4, session_id="s", affinity=FAST)
    assert granted(play(RequestCompleted(1, 0, 1))) == [(3, 0)]
    (failed,) = play(RequestCompleted(2, 1, 1))
    assert isinstance(failed, FailRequest)
    assert isinstance(failed.failure, SessionWorkerUnavailable)


def test_session_moves_when_its_worker_dies() -> None:
    play = bound()
    play.submit(3, session_id="s", affinity=QUEUE)
    assert granted(play(WorkerExited(0, 1, Phase.ENTERED))) == [(3, 1)]


def test_order_is_kept_when_the_worker_dies() -> None:
    play = bound()
    play.submit(3, session_id="s", affinity=QUEUE)
    play.submit(4, session_id="s", affinity=QUEUE)
    play.submit(5)  # has the other worker
    play(WorkerExited(0, 1, Phase.ENTERED))
    assert granted(play(RequestCompleted(5, 1, 1))) == [(3, 1)]
    assert granted(play(RequestCompleted(3, 1, 1))) == [(4, 1)]


def test_session_moves_with_its_fork_server() -> None:
    play = bound()
    play.submit(3, session_id="s", affinity=QUEUE)
    play(ForkServerLost(1), WorkerExited(0, 1, Phase.ENTERED), WorkerExited(1, 1))
    assert play.state.counters().waiting == 1


def test_silent_worker_is_waited_for() -> None:
    play = bound()
    play(RequestCompleted(2, 0, 1), WorkerSilent(0, 1, stopped=False))
    assert granted(play.submit(3, session_id="s", affinity=QUEUE)) == []
    assert isinstance(play.submit(4, session_id="s", affinity=FAST)[0], FailRequest)


def test_parked_call_can_be_cancelled_and_makes_room() -> None:
    play = bound(queue_size=1)
    assert play.submit(3, session_id="s", affinity=QUEUE) == [AdmitRequest(3)]
    assert play.submit(4, session_id="s", affinity=QUEUE) == []
    assert AdmitRequest(4) in play(RequestCancelled(3))
    assert granted(play(RequestCompleted(2, 0, 1))) == [(4, 0)]
