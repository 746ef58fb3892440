"""The page tells how far a worker has come, also after its death."""

from __future__ import annotations

import os
import signal

import pytest
from snakepit_mp.lanes.status import Phase, StatusPage


@pytest.fixture
def page():
    page = StatusPage.create(incarnation=7)
    yield page
    page.close()


def attach(page: StatusPage) -> StatusPage:
    """As another process would, which got the descriptor."""
    return StatusPage.attach(os.dup(page.fd))


def test_a_fresh_page_is_idle(page):
    assert page.read() == (0, Phase.IDLE)
    assert (page.incarnation, page.tasks) == (7, 0)


def test_phases_follow_the_worker(page):
    worker = attach(page)
    seen = []
    for note in (worker.taken, worker.entered, worker.done):
        note(42)
        seen.append(page.read())
    worker.close()
    assert seen == [(42, Phase.TAKEN), (42, Phase.ENTERED), (42, Phase.DONE)]


def test_large_request_numbers_keep_their_phase(page):
    number = (1 << 62) - 1
    page.entered(number)
    assert page.read() == (number, Phase.ENTERED)


def test_tasks_count_what_is_done(page):
    for number in (1, 2, 3):
        page.taken(number)
        page.entered(number)
        page.done(number)
    page.taken(4)
    assert page.tasks == 3


def test_since_moves_with_the_phase(page):
    before = page.since
    page.taken(1)
    assert page.since > before


def test_the_notes_of_a_killed_process_remain(page):
    pid = os.fork()
    if pid == 0:
        page.entered(9)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert page.read() == (9, Phase.ENTERED)


def test_a_request_and_its_phase_change_in_one_step(page):
    """A reader sees no number with another number's phase."""
    pid = os.fork()
    if pid == 0:
        number = 0
        while True:  # odd numbers are only ever TAKEN, even ones only ever ENTERED
            number += 1
            (page.taken if number % 2 else page.entered)(number)
    try:
        seen = {(number % 2, phase) for number, phase in (page.read() for _ in range(20_000))}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert seen <= {(0, Phase.IDLE), (1, Phase.TAKEN), (0, Phase.ENTERED)}


def test_close_twice_does_nothing(page):
    page.close()
    page.close()
    assert page.fd == -1
