"""News, late, or impossible: late events do nothing, impossible ones raise and change nothing."""

from __future__ import annotations

import pytest
from pool_play import Play

from snakepit_mp.core.events import (
    DeadlineExpired,
    Event,
    ForkServerLost,
    LaneBroke,
    Phase,
    PoolStarted,
    QueueTimeExpired,
    Request,
    RequestCancelled,
    RequestCompleted,
    RequestProgressed,
    RequestSubmitted,
    StopRequested,
    WorkerExited,
    WorkerReady,
)
from snakepit_mp.core.lifecycle import InvalidTransition


@pytest.mark.parametrize(
    "event",
    [
        PoolStarted(),
        RequestSubmitted(Request(1)),
        RequestProgressed(2),
        RequestCompleted(2, 0, 1),
        RequestCompleted(1, 0, 2),
        RequestCompleted(1, 7, 1),
        LaneBroke(2, 0, 1),
        ForkServerLost(2),
        WorkerReady(7, 1),
        WorkerReady(-1, 1),
        Event(),
    ],
    ids=repr,
)
def test_illegal_events_raise_and_change_nothing(event: Event) -> None:
    play = Play().up()
    play.submit(1)
    play.submit(2)
    before = play.picture()
    with pytest.raises(InvalidTransition):
        play(event)
    assert play.picture() == before


def test_start_after_stop_is_illegal() -> None:
    play = Play()
    play(StopRequested())
    with pytest.raises(InvalidTransition):
        play(PoolStarted())


@pytest.mark.parametrize(
    "event",
    [RequestCancelled(1), DeadlineExpired(1), QueueTimeExpired(1), RequestProgressed(1)],
)
@pytest.mark.parametrize("over", ["never was", "completed", "failed"])
def test_events_about_requests_that_are_over_are_late(event: object, over: str) -> None:
    play = Play().up()
    if over != "never was":
        play.submit(1)
        play(RequestCompleted(1, 0, 1) if over == "completed" else WorkerExited(0, 1, Phase.DONE))
    assert play(event) == []  # type: ignore[arg-type]


def test_reply_that_comes_after_the_next_grant_is_late() -> None:
    play = Play(workers=2).up()
    play.submit(1, idempotent=True)
    play(WorkerExited(0, 1, Phase.DONE))
    assert play.row(1).request_id == 1
    assert play(RequestCompleted(1, 0, 1)) == []
    assert play.row(1).request_id == 1
