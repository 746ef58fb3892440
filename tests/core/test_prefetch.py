"""What goes along with a request, and comes back."""

from __future__ import annotations

import pytest
from pool_play import Play

from snakepit_mp.core.events import (
    DeadlineExpired,
    KillRequested,
    Phase,
    Request,
    RequestCancelled,
    RequestCompleted,
    RequestSplit,
    WorkerExited,
)
from snakepit_mp.core.instructions import FailRequest, GrantRequest, Instruction
from snakepit_mp.core.lifecycle import InvalidTransition
from snakepit_mp.core.requests import Prefetch
from snakepit_mp.telemetry.events import Announcer


def busy(**settings: object) -> Play:
    """One worker, which has request 1 in hand."""
    play = Play(**settings).up()
    play.submit(1)
    return play


def kin(count: int, *, most: int = 8, room: int = 100, **settings: object) -> Play:
    """One worker, which has request 1 in hand, and others of a kin behind it."""
    play = busy(prefetch=Prefetch(lambda _: most, room), **settings)
    for number in range(2, 2 + count):
        play.submit(number, kin=b"kin", weight=10)
    return play


def granted(instructions: list[Instruction]) -> list[tuple[int, ...]]:
    return [(one.request_id, *one.ahead) for one in instructions if isinstance(one, GrantRequest)]


def test_kin_goes_along_as_far_as_there_is_room():
    assert granted(kin(4)(RequestCompleted(1, 0, 1))) == [(2, 3, 4, 5)]
    assert granted(kin(4, most=3)(RequestCompleted(1, 0, 1))) == [(2, 3, 4)]
    assert granted(kin(4, room=20)(RequestCompleted(1, 0, 1))) == [(2, 3)]
    play = kin(2)
    play.submit(4, kin=b"other", weight=1)
    play.submit(5, kin=b"kin", weight=1)
    assert granted(play(RequestCompleted(1, 0, 1))) == [(2, 3)], "nobody is overtaken"


def test_each_worker_gets_its_share():
    play = Play(workers=2, prefetch=Prefetch(lambda _: 8, 100)).up()
    for worker in range(2):
        play.submit(worker + 1)
    for number in range(3, 7):
        play.submit(number, kin=b"kin", weight=1)
    assert granted(play(RequestCompleted(1, 0, 1))) == [(3, 4)]
    assert granted(play(RequestCompleted(2, 1, 1))) == [(5,)]


def test_what_was_fetched_ahead_is_counted_with_the_first():
    play = kin(3)
    play(RequestCompleted(1, 0, 1), RequestCompleted(2, 0, 1))
    assert (play.state.counters().completed, play.row().tasks) == (4, 4)


def test_what_is_taken_back_is_first_in_line_and_free():
    play = kin(4)
    play(RequestCompleted(1, 0, 1))
    rest = tuple(Request(number, kin=b"kin", weight=10) for number in (4, 5))
    assert play(RequestSplit(2, 1, rest)) == []
    assert granted(play(RequestCompleted(2, 0, 1))) == [(4, 5)]
    assert play.state.counters().completed == 3


@pytest.mark.parametrize("phase", [None, Phase.IDLE, Phase.TAKEN])
def test_a_death_brings_back_all_of_it_and_blames_the_first(phase: Phase | None):
    play = kin(3)
    play(RequestCompleted(1, 0, 1), WorkerExited(0, 1, phase))
    assert play.state.counters().waiting == 3
    assert granted(play.ready(0, 2)) == [(2,)], "who had a worker die travels alone"
    assert granted(play(RequestCompleted(2, 0, 2))) == [(3, 4)]


def test_a_split_into_what_is_in_line_cannot_have_happened():
    play = kin(2, most=1)
    play(RequestCompleted(1, 0, 1))
    with pytest.raises(InvalidTransition):
        play(RequestSplit(2, 0, (Request(3, kin=b"kin", weight=10),)))


def test_nothing_is_fetched_ahead_while_somebody_listens():
    class Heard(Announcer):
        active = True

    assert granted(kin(3, announcer=Heard())(RequestCompleted(1, 0, 1))) == [(2,)]


def test_each_is_told_of_the_end_of_all():
    play = kin(2)
    play(RequestCompleted(1, 0, 1))
    told = [one.request_id for one in play(KillRequested()) if isinstance(one, FailRequest)]
    assert told == [2, 3]
    assert play.state.counters().cancelled == 2


def test_what_is_split_when_all_was_answered_is_told_and_not_counted():
    play = kin(2)
    play(RequestCompleted(1, 0, 1), KillRequested())
    late = play(RequestSplit(2, 0, (Request(3, kin=b"kin", weight=10),)))
    assert [one.request_id for one in late if isinstance(one, FailRequest)] == [3]
    assert play.state.counters().cancelled == 2


@pytest.mark.parametrize("kind", [RequestCancelled, DeadlineExpired])
def test_the_end_of_the_first_is_not_that_of_the_others(kind: type[RequestCancelled]):
    """Its batch was never sent: else it would have been split before."""
    play = kin(2)
    told = play(RequestCompleted(1, 0, 1), kind(2))
    assert [one.request_id for one in told if isinstance(one, FailRequest)] == [2]
    assert play.state.counters().waiting == 1
