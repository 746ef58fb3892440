"""Waiting in slices: what comes of it, how long it takes, and Ctrl-C."""

from __future__ import annotations

import threading
import time

import pytest
from fix_timeouts import scaled

from snakepit_mp.lanes.waits import SLICE, wait_for


def test_what_is_there_is_returned_at_once():
    assert wait_for(lambda seconds: "here") == "here"


def test_main_thread_waits_in_slices():
    asked: list[float | None] = []
    answers = iter([False, False, True])

    assert wait_for(lambda seconds: asked.append(seconds) or next(answers))
    assert asked == [SLICE] * 3


def test_other_threads_wait_in_one_piece():
    asked: list[float | None] = []
    thread = threading.Thread(target=lambda: wait_for(lambda s: asked.append(s) or True))
    thread.start()
    thread.join()
    assert asked == [threading.TIMEOUT_MAX]


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.02, 0.12])
def test_it_gives_up_at_the_deadline(seconds: float):
    before = time.monotonic()

    assert not wait_for(threading.Event().wait, before + seconds)

    passed = time.monotonic() - before
    assert max(seconds, 0.0) <= passed < scaled(seconds + 2)
