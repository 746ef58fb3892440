"""A tool that fails again and again is not called for a while."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_play import Play

from snakepit_mp.config import BreakerPolicy
from snakepit_mp.core.breaker import Breakers, BreakerState, CircuitBreaker
from snakepit_mp.core.events import (
    AttemptFailed,
    DeadlineExpired,
    ForkServerLost,
    Phase,
    RequestCancelled,
    RequestCompleted,
    WorkerExited,
)
from snakepit_mp.core.instructions import FailRequest, Instruction
from snakepit_mp.errors import CircuitOpen

S = BreakerState
POLICY = BreakerPolicy(failures=3, window=30.0, probe_after=10.0)


def everything(request_id: int) -> bool:
    return True


def nothing(request_id: int) -> bool:
    return False


def opened(at: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker(POLICY)
    for request_id in (1, 2, 3):
        breaker.record(request_id, at, failed=True)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = CircuitBreaker(POLICY)
    for request_id in (1, 2):
        breaker.record(request_id, 0.0, failed=True)
        assert breaker.admit(9, 0.0, nothing) is None
    breaker.record(3, 0.0, failed=True)
    assert breaker.state is S.OPEN
    assert breaker.admit(9, 4.0, nothing) == 6.0


def test_success_forgets_the_failures_before_it() -> None:
    breaker = CircuitBreaker(POLICY)
    for failed in (True, True, False, True, True):
        breaker.record(1, 0.0, failed=failed)
    assert breaker.state is S.CLOSED


def test_failures_that_are_far_apart_do_not_count() -> None:
    breaker = CircuitBreaker(POLICY)
    for at in (0.0, 31.0, 62.0, 93.0):
        breaker.record(1, at, failed=True)
    assert breaker.state is S.CLOSED


def test_one_probe_goes_through_and_success_closes() -> None:
    breaker = opened()
    assert breaker.admit(7, 10.0, everything) is None
    assert breaker.state is S.HALF_OPEN
    assert breaker.admit(8, 10.0, everything) == POLICY.probe_after
    breaker.record(7, 11.0, failed=False)
    assert breaker.state is S.CLOSED
    assert breaker.admit(8, 11.0, everything) is None


def test_failed_probe_opens_again() -> None:
    breaker = opened()
    breaker.admit(7, 10.0, everything)
    breaker.record(7, 12.0, failed=True)
    assert breaker.admit(8, 13.0, everything) == 9.0


def test_probe_that_ends_without_a_word_makes_room_for_another() -> None:
    breaker = opened()
    breaker.admit(7, 10.0, everything)
    assert breaker.admit(8, 10.0, nothing) is None
    breaker.record(7, 10.0, failed=False)  # not the probe any more
    assert breaker.state is S.HALF_OPEN


def test_stragglers_do_not_decide() -> None:
    breaker = opened()
    breaker.record(4, 1.0, failed=False)
    assert breaker.state is S.OPEN
    breaker.admit(7, 10.0, everything)
    breaker.record(4, 11.0, failed=True)
    assert breaker.state is S.HALF_OPEN


def test_without_a_policy_or_a_tool_there_is_no_breaker() -> None:
    assert Breakers(None).of("tool") is None
    breakers = Breakers(POLICY)
    assert breakers.of(None) is None
    assert breakers.of("tool") is breakers.of("tool")
    assert breakers.states() == {"tool": S.CLOSED}


_STEP = st.tuples(
    st.floats(0.0, 20.0), st.sampled_from(["call", "succeed", "fail", "vanish"]), st.integers(0, 9)
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(_STEP, max_size=60), st.integers(1, 4))
def test_promises_hold_in_any_order(steps: list[tuple[float, str, int]], failures: int) -> None:
    """Opens only after enough failures in a row; never two probes; always another chance."""
    policy = BreakerPolicy(failures=failures, window=30.0, probe_after=10.0)
    breaker = CircuitBreaker(policy)
    now, number, in_a_row = 0.0, 0, 0
    calls: list[int] = []
    for later, step, pick in steps:
        now += later
        before = breaker.state
        if step == "call":
            number += 1
            left = breaker.admit(number, now, calls.__contains__)
            assert left is None or (0 < left <= policy.probe_after and before is not S.CLOSED)
            if left is None:
                calls.append(number)
            if before is S.HALF_OPEN and left is None:
                assert breaker._probe == number
        elif calls:
            ended = calls.pop(pick % len(calls))
            if step == "vanish":
                continue
            in_a_row = in_a_row + 1 if step == "fail" else 0
            breaker.record(ended, now, failed=step == "fail")
            if before is S.CLOSED and breaker.state is S.OPEN:
                assert in_a_row >= failures
            if before is S.CLOSED and step == "succeed":
                assert breaker.state is S.CLOSED
    calls.clear()
    assert breaker.admit(number + 1, now + policy.probe_after, calls.__contains__) is None


# --- in a pool ---


def broken_pool(**settings: object) -> Play:
    return Play(breaker=BreakerPolicy(failures=1, probe_after=10.0), **settings).up()


def refused(instructions: list[Instruction]) -> CircuitOpen | None:
    for one in instructions:
        if isinstance(one, FailRequest) and isinstance(one.failure, CircuitOpen):
            return one.failure
    return None


@pytest.mark.parametrize(
    "event",
    [
        RequestCompleted(1, 0, 1, failed=True),
        AttemptFailed(1, 0, 1),
        DeadlineExpired(1),
        WorkerExited(0, 1, Phase.ENTERED),
    ],
)
def test_what_counts_as_a_failure(event: object) -> None:
    play = broken_pool()
    play.submit(1, tool="t")
    play(event)  # type: ignore[arg-type]
    error = refused(play.submit(2, tool="t"))
    assert error is not None
    assert (error.tool, error.retry_after) == ("t", 10.0)
    assert refused(play.submit(3, tool="other")) is None
    assert refused(play.submit(4)) is None


def test_what_does_not() -> None:
    for events in (
        [RequestCompleted(1, 0, 1)],
        [RequestCancelled(1)],
        [ForkServerLost(1), WorkerExited(0, 1, Phase.ENTERED)],
    ):
        play = broken_pool()
        play.submit(1, tool="t")
        play(*events)
        assert refused(play.submit(2, tool="t")) is None


def test_deadline_in_line_is_not_the_tools_fault() -> None:
    play = broken_pool()
    play.submit(1)
    play.submit(2, tool="t")
    play(DeadlineExpired(2))
    assert refused(play.submit(3, tool="t")) is None


def test_probe_decides() -> None:
    play = broken_pool()
    play.submit(1, tool="t")
    play(RequestCompleted(1, 0, 1, failed=True))
    play.now += 10.0
    assert refused(play.submit(2, tool="t")) is None
    assert refused(play.submit(3, tool="t")) is not None
    play(RequestCompleted(2, 0, 1))
    assert refused(play.submit(4, tool="t")) is None
