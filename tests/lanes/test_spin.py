"""Who waits looks again for a moment, but never in the way of whom it waits for."""

from __future__ import annotations

import os
import sys
import time

import pytest

from snakepit_mp.lanes.spin import NOWHERE, current_cpu, nobody, spin
from snakepit_mp.lanes.status import StatusPage

ELSEWHERE = 1 << 20


def never() -> int:
    pytest.fail("there was no reason to look")


def test_what_comes_in_time_is_found() -> None:
    looks = iter([None, None, 7])
    assert spin(lambda: next(looks), lambda cpu: ELSEWHERE, 60.0) == 7


def test_it_ends_when_its_time_is_up() -> None:
    began = time.perf_counter()
    assert spin(lambda: None, lambda cpu: ELSEWHERE, 0.001) is None
    assert time.perf_counter() - began >= 0.001


def test_nobody_is_waited_for_who_is_nowhere() -> None:
    assert spin(never, nobody, 60.0) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="nobody can be held on a CPU here")
def test_nobody_is_waited_for_on_the_same_cpu() -> None:
    before = os.sched_getaffinity(0)
    here = min(before)
    os.sched_setaffinity(0, {here})
    try:
        assert current_cpu() == here
        assert spin(never, lambda cpu: cpu, 60.0) is None
    finally:
        os.sched_setaffinity(0, before)


def test_where_each_side_is_stands_on_the_page() -> None:
    page = StatusPage.create()
    assert page.caller_is_on(3) == NOWHERE
    assert page.worker_is_on(5) == 3
    assert page.caller_is_on(0) == 5
    assert page.worker_is_on(5) == 0
    page.close()
    assert page.caller_is_on(3) == NOWHERE


@pytest.mark.skipif(sys.platform != "linux", reason="only there a CPU's number can be told")
def test_the_number_of_a_cpu() -> None:
    assert 0 <= current_cpu() < (os.cpu_count() or 1) + 1024
