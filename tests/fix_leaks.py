"""Did a test leave anything behind? Processes, threads and file descriptors, after every test.

Processes are found even where their parent is gone: all that a test starts inherit a mark
in their environment, and a forked child is a descendant of the test process.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
from fix_timeouts import scaled

__all__ = ["no_leaks"]

#: How long what is ending may take to end.
_PATIENCE = 5.0
_MARK = "SNAKEPIT_MP_TEST_RUN"
_RUN = uuid.uuid4().hex
os.environ[_MARK] = _RUN


def _descriptors() -> dict[int, str]:
    """Open file descriptors, each with what it is."""
    found = {}
    for name in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(name))
            what = stat.filemode(status.st_mode)
            if sys.platform == "linux":
                what = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that listed the folder
        found[int(name)] = f"{what} (inode {status.st_ino})"
    return found


def _is_ours(process: psutil.Process) -> bool:
    if process.environ().get(_MARK) == _RUN:
        return True
    # A fork without exec shows the environment its ancestor was started with.
    return any(parent.pid == os.getpid() for parent in process.parents())


def _describe(process: psutil.Process) -> str | None:
    """The command line of a process of ours, ``None`` for anybody else's."""
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return " ".join(process.cmdline()) or process.name() if _is_ours(process) else None
    except psutil.ZombieProcess:
        pass
    # Other zombies are for their own parents to reap.
    return "never reaped" if process.ppid() == os.getpid() else None


def _processes(known: set[int]) -> dict[int, str]:
    """Processes that this test run started and that were not there before the test."""
    found = {}
    for pid in set(psutil.pids()) - known:
        try:
            what = _describe(psutil.Process(pid))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended meanwhile, or somebody else's
        if what is not None:
            found[pid] = what
    return found


@dataclass(frozen=True)
class _Before:
    """What existed before a test."""

    processes: set[int]
    threads: set[threading.Thread]
    descriptors: dict[int, str]

    @classmethod
    def take(cls) -> _Before:
        return cls(set(psutil.pids()), set(threading.enumerate()), _descriptors())

    def leaks(self) -> list[str]:
        """One line for each thing that exists now and did not before."""
        lines = [f"process {pid}: {what}" for pid, what in _processes(self.processes).items()]
        lines += [f"thread {t.name}" for t in threading.enumerate() if t not in self.threads]
        lines += [
            f"file descriptor {fd}: {what}"
            for fd, what in _descriptors().items()
            if self.descriptors.get(fd) != what
        ]
        return lines


def _remaining(before: _Before) -> list[str]:
    """Leaks that are still there when what was ending has had time to end."""
    limit = time.monotonic() + scaled(_PATIENCE)
    pause = 0.001
    while leaks := before.leaks():
        if time.monotonic() > limit:
            break
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return leaks


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail the test that leaves a process, a thread or a file descriptor behind."""
    before = _Before.take()
    yield
    if leaks := _remaining(before):
        pytest.fail("left behind by this test:\n  " + "\n  ".join(leaks), pytrace=False)
