"""What a worker leaves behind: the end of its standard error, and its stacks."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from snakepit_mp.lanes.blackbox import STACK_SIGNAL, BlackBox
from snakepit_mp.lanes.status import StatusPage


@pytest.fixture
def page():
    page = StatusPage.create()
    yield page
    page.close()


@pytest.fixture
def box(page: StatusPage) -> BlackBox:
    return BlackBox(page.fd)


def test_a_fresh_one_is_empty(box: BlackBox):
    assert box.stderr() == ""
    assert box.stacks() == ""


def test_what_was_written_is_read(box: BlackBox):
    worker = BlackBox(box._fd)
    worker.note(b"one\n")
    worker.note("zw\N{LATIN SMALL LETTER O WITH DIAERESIS}lf\n".encode())
    assert box.stderr() == "one\nzw\N{LATIN SMALL LETTER O WITH DIAERESIS}lf\n"


@pytest.mark.parametrize("step", [1, 7, 1000, 4095, 4096, 4097, 9000])
def test_only_the_last_is_kept(box: BlackBox, step: int):
    text = b"".join(b"%d\n" % n for n in range(4000))
    for start in range(0, len(text), step):
        box.note(text[start : start + step])
    assert box.stderr().encode() == text[-4096:]


def test_the_page_is_left_alone(page: StatusPage, box: BlackBox):
    page.entered(7)
    box.note(b"x" * 10000)
    assert page.note()[0] == 7


def died(page: StatusPage, script: str) -> int:
    """Another process that runs ``script`` with its black box; its exit code."""
    script = (
        "import faulthandler, os, signal, sys; "
        "from snakepit_mp.lanes.blackbox import BlackBox; "
        f"box = BlackBox(int(sys.argv[1])); box.catch_fatal_signals()\n{script}"
    )
    done = subprocess.run([sys.executable, "-c", script, str(page.fd)], pass_fds=[page.fd])
    return done.returncode


def test_a_fatal_signal_leaves_the_stack(page: StatusPage, box: BlackBox):
    code = died(page, "def tool():\n    os.kill(os.getpid(), signal.SIGSEGV)\ntool()")
    assert code == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in box.stacks()
    assert "in tool" in box.stacks()


def test_stacks_can_be_asked_for_again_and_again(page: StatusPage, box: BlackBox):
    size = box.size()
    assert died(page, f"def first():\n    signal.raise_signal({STACK_SIGNAL})\nfirst()") == 0
    assert "in first" in box.stacks(size)
    assert "in first" not in box.stacks(box.size())
