from __future__ import annotations

from typing import Any

import pytest

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.restart import RestartIntensity


def intensity(drawn: float = 0.0, **policy: Any) -> RestartIntensity:
    return RestartIntensity(RestartPolicy(**{"jitter": 0.0, **policy}), lambda: drawn)


def test_backoff_doubles_and_then_it_is_denied() -> None:
    rule = intensity()
    assert [rule.record_death(0.0) for _ in range(4)] == [0.1, 0.2, 0.4, None]


def test_no_restart_at_all() -> None:
    assert intensity(max_restarts=0).record_death(0.0) is None


def test_backoff_stays_under_its_maximum_however_many_there_were() -> None:
    rule = intensity(max_restarts=5000, max_backoff=3.0)
    delays = [rule.record_death(0.0) for _ in range(3000)]
    assert delays[4] == pytest.approx(1.6)
    assert set(delays[5:]) == {3.0}


@pytest.mark.parametrize(("drawn", "delay"), [(-1.0, 0.75), (0.0, 1.0), (1.0, 1.25)])
def test_jitter_moves_the_delay_both_ways(drawn: float, delay: float) -> None:
    assert intensity(drawn, backoff=1.0, jitter=0.25).record_death(0.0) == delay


def test_deaths_age_out_of_the_window() -> None:
    rule = intensity(backoff=0.0, max_restarts=2)
    assert [rule.record_death(now) for now in (0.0, 4.0, 8.0, 12.0)] == [0.0] * 4
    assert rule.record_death(13.0) is None  # 8, 12, 13


def test_the_window_is_closed_at_its_far_end() -> None:
    rule = intensity(backoff=0.0, max_restarts=1)
    assert rule.record_death(0.0) == 0.0
    assert rule.record_death(5.0) is None


def test_a_start_that_takes_long_to_fail_is_caught_as_surely_as_a_quick_one() -> None:
    """On a plain clock each death would have left the window before the next one."""
    rule = intensity(backoff=0.0)
    delays = [rule.record_death(now, spent=60.0) for now in (60.0, 120.0, 180.0, 240.0)]
    assert delays == [0.0, 0.0, 0.0, None]


def test_long_backoff_does_not_carry_deaths_out_of_the_window() -> None:
    rule = intensity(backoff=4.0, max_restarts=3)
    now, delays = 0.0, []
    for _ in range(4):
        delays.append(rule.record_death(now))
        now += delays[-1] or 0.0
    assert delays == [4.0, 8.0, 16.0, None]


def test_time_in_which_it_was_well_does_count() -> None:
    rule = intensity(backoff=1.0, max_restarts=1)
    assert rule.record_death(10.0, spent=2.0) == 1.0
    assert rule.record_death(20.0, spent=2.0) == 1.0  # 7 s of health between them


def test_reset_forgets() -> None:
    rule = intensity(max_restarts=1)
    assert rule.record_death(0.0) == 0.1
    rule.reset()
    assert rule.record_death(0.0) == 0.1
    assert rule.record_death(0.0) is None
