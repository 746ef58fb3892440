"""How many items travel together, by what a worker took for the last ones."""

from __future__ import annotations

from snakepit_mp.runtime.pace import Pace


def test_it_starts_with_one_and_grows_by_steps():
    pace = Pace()
    assert pace.size == 1
    sizes = []
    for _ in range(5):
        pace.measured(1e-6)
        sizes.append(pace.size)
    assert sizes == [8, 64, 512, 2000, 2000]


def test_what_takes_longer_than_a_batch_travels_alone():
    pace = Pace()
    pace.measured(0.1)
    assert pace.size == 1


def test_slowness_is_believed_at_once_and_haste_by_and_by():
    pace = Pace()
    for _ in range(5):
        pace.measured(1e-6)
    pace.measured(0.001)
    assert pace.size == 2
    pace.measured(1e-6)
    assert 2 < pace.size < 8


def test_no_more_than_what_fits():
    pace = Pace()
    pace.at_most(10)
    for _ in range(5):
        pace.measured(1e-6)
    assert pace.size == 10
    pace.at_most(0)
    assert pace.size == 1


def test_a_clock_that_stood_still_is_no_division_by_nothing():
    pace = Pace()
    pace.measured(0.0)
    assert pace.size == 8
