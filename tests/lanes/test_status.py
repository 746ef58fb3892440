"""The page tells how far a worker has come, also after its death."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from snakepit_mp.lanes.status import Phase, StatusPage


@pytest.fixture
def page():
    page = StatusPage.create()
    yield page
    page.close()


def attach(page: StatusPage) -> StatusPage:
    """As another process would, which got the descriptor."""
    return StatusPage.attach(os.dup(page.fd))


def test_a_fresh_page_is_idle(page):
    assert page.read() == (0, Phase.IDLE)


def test_phases_follow_the_worker(page):
    worker = attach(page)
    seen = []
    for note in (worker.taken, worker.entered, worker.done):
        note(42)
        seen.append(page.read())
    worker.close()
    assert seen == [(42, Phase.TAKEN), (42, Phase.ENTERED), (42, Phase.DONE)]


def test_large_request_numbers_keep_their_phase(page):
    number = (1 << 46) - 1
    page.entered(number)
    assert page.read() == (number, Phase.ENTERED)


def test_the_worker_keeps_an_account(page):
    before = time.monotonic()
    worker = attach(page)
    worker.begin(3)
    for number in (1, 2):
        worker.taken(number)
        worker.entered(number)
        time.sleep(0.002)
        worker.done(number)
    worker.measure(1 << 24)
    worker.close()
    account = page.account()
    assert (account.incarnation, account.tasks, account.rss) == (3, 2, 1 << 24)
    assert 0.004 <= account.busy <= account.since - before
    assert account.since <= time.monotonic()


def test_an_account_of_nothing(page):
    assert page.account() == (0, 0.0, 0, 0.0, None)


def test_attempts_are_told_apart(page):
    page.done(5, 1)
    assert page.phase_of(5, 1) is Phase.DONE
    assert page.phase_of(5, 2) is None
    page.taken(5, 2)
    assert page.note() == (5, 2, Phase.TAKEN)
    assert page.phase_of(5, 1) is None
    page.done(5, 1 << 20)
    assert page.phase_of(5, 1 << 20) is Phase.DONE


def test_the_application_notes_what_is_to_stop(page):
    worker = attach(page)
    assert worker.interrupted() == 0
    page.interrupt(9)
    assert worker.interrupted() == 9
    worker.close()


@contextmanager
def worker_on(page: StatusPage, script: str):
    """Another process that runs ``script`` on its ``page`` and says when it has begun."""
    script = (
        "import sys; from snakepit_mp.lanes.status import StatusPage; "
        f"page = StatusPage.attach(int(sys.argv[1])); {script}"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(page.fd)], pass_fds=[page.fd], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline()
        yield
        process.kill()


def test_the_notes_of_a_killed_process_remain(page):
    with worker_on(page, "page.entered(9); print(flush=True); sys.stdin.read()"):
        pass
    assert page.read() == (9, Phase.ENTERED)


def test_a_request_and_its_phase_change_in_one_step(page):
    """A reader sees no number with another number's phase."""
    script = """page.taken(1); print(flush=True)
number = 1
while True:  # odd numbers are only ever TAKEN, even ones only ever ENTERED
    number += 1
    (page.taken if number % 2 else page.entered)(number)
"""
    with worker_on(page, script):
        seen = {(number % 2, phase) for number, phase in (page.read() for _ in range(20_000))}
    assert seen <= {(1, Phase.TAKEN), (0, Phase.ENTERED)}


def test_close_twice_does_nothing(page):
    page.close()
    page.close()
    assert page.fd == -1
