"""``kill -9`` of the application, at any moment: within a second nothing of it is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from fix_timeouts import scaled

_ROUNDS = 20
_MARK = "SNAKEPIT_MP_TEST_APPLICATION"
_APPLICATION = Path(__file__).parent.parent / "isolated" / "busy_application.py"


def _marked(mark: str) -> dict[int, str]:
    """Living processes that carry the mark in their environment."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(_MARK) == mark:
                found[process.pid] = " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _left(mark: str, runtime: Path, seconds: float) -> list[str]:
    limit = time.monotonic() + seconds
    while True:
        # Before looking: on a busy machine that takes long, and finds what ended meanwhile.
        late = time.monotonic() > limit
        left = [f"{pid}: {what}" for pid, what in _marked(mark).items()]
        left += [str(path) for path in runtime.iterdir()]
        if not left or late:
            return left
        time.sleep(0.01)


@pytest.mark.timeout(scaled(300))
def test_nothing_is_left_of_a_killed_application(tmp_path: Path):
    """Random moments: while importing, forking, starting, working, dying and restarting."""
    moments = random.Random(20)
    for round_number in range(_ROUNDS):
        mark = uuid.uuid4().hex
        runtime = tmp_path / f"r{round_number}"
        runtime.mkdir(mode=0o700)
        application = subprocess.Popen(
            [sys.executable, str(_APPLICATION)],
            env={**os.environ, _MARK: mark, "XDG_RUNTIME_DIR": str(runtime)},
            stdout=subprocess.PIPE,
        )
        assert application.stdout is not None
        with application.stdout as output:
            assert output.readline() == b"made\n"
            time.sleep(moments.uniform(0.0, 1.2))  # the random moment, not a wait for something
            application.send_signal(signal.SIGKILL)
            application.wait()

        left = _left(mark, runtime, scaled(1.0))
        assert not left, f"round {round_number}"
