"""The application is killed: nothing of its fork server is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fix_forkserver import wait_readable
from fix_pool import until
from fix_timeouts import scaled

SCRIPT = Path(__file__).parents[1] / "isolated" / "fork_application.py"


@pytest.fixture
def start_application(tmp_path):
    """Runs the script and returns its process with what it printed."""
    started = []

    def start(mode):
        process = subprocess.Popen(
            [sys.executable, SCRIPT, mode],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        facts = json.loads(process.stdout.readline())
        started.append((process, facts))
        return process, facts

    yield start
    for process, facts in started:
        if facts["bystander"]:
            os.kill(facts["bystander"], signal.SIGKILL)
        with process:
            process.kill()


def gone_within(pidfds, seconds):
    """Which of them ended in time; dead is dead, whether somebody has reaped them or not."""
    limit = time.monotonic() + scaled(seconds)
    ended = [wait_readable(fd, max(limit - time.monotonic(), 0) / scaled(1)) for fd in pidfds]
    for fd in pidfds:
        os.close(fd)
    return ended


@pytest.mark.parametrize(
    ("mode", "processes"),
    [
        ("serving", 8),
        ("serving,held", 8),
        ("importing", 4),
        ("importing,held", 4),
        ("starting", 4),
        ("begun", 1),
    ],
)
def test_nothing_outlives_the_application_for_a_second(start_application, mode, processes):
    application, facts = start_application(mode)
    pidfds = [os.pidfd_open(pid) for pid in facts["pids"]]
    assert len(pidfds) == processes
    application.kill()
    assert all(gone_within(pidfds, 1))
    assert not Path(facts["directory"]).exists()
    if facts["bystander"]:
        os.kill(facts["bystander"], 0)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_fork_server_that_can_do_nothing_about_it(start_application, number):
    """It is stopped, or killed in the same moment as the application."""
    application, facts = start_application("serving")
    pidfds = [os.pidfd_open(pid) for pid in facts["pids"]]
    os.kill(facts["pids"][1], number)
    application.kill()
    assert all(gone_within(pidfds, 1))
    # The guard of a dead server may have gone before the application did.
    assert number == signal.SIGKILL or not Path(facts["directory"]).exists()


def test_nothing_outlives_the_fork_server(start_application):
    application, facts = start_application("serving")
    pidfds = [os.pidfd_open(pid) for pid in facts["pids"]]
    os.kill(facts["pids"][1], signal.SIGKILL)
    assert all(gone_within(pidfds, 1))
    assert application.poll() is None
    assert Path(facts["directory"]).exists()


def test_a_stopped_application_is_not_gone(start_application):
    application, facts = start_application("serving")
    _, server, worker, near, _, other = facts["pids"][:6]
    near_ended = os.pidfd_open(near)
    application.send_signal(signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    assert all(gone_within([near_ended], 10))
    until(lambda: worker not in [child.pid for child in psutil.Process(server).children()])
    assert other in [child.pid for child in psutil.Process(server).children()]
