"""The leak gate itself: it has to see what it is there for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import fix_leaks
import pytest


@pytest.fixture
def before() -> Iterator[fix_leaks._Before]:
    snapshot = fix_leaks._Before.take()
    yield snapshot
    assert snapshot.leaks() == []


def test_thread_is_seen(before: fix_leaks._Before) -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="left-behind")
    thread.start()
    assert before.leaks() == ["thread left-behind"]
    release.set()
    thread.join()


def test_descriptor_is_seen(before: fix_leaks._Before) -> None:
    reader, writer = os.pipe()
    leaks = before.leaks()
    assert [line.split(":")[0] for line in leaks] == [
        f"file descriptor {reader}",
        f"file descriptor {writer}",
    ]
    os.close(reader)
    os.close(writer)


def test_forked_child_is_seen(before: fix_leaks._Before) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    assert [line for line in before.leaks() if line.startswith(f"process {pid}: ")]
    os.close(writer)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert before.leaks() == [f"process {pid}: never reaped"]
    os.waitpid(pid, 0)


def test_orphaned_grandchild_is_seen(before: fix_leaks._Before) -> None:
    """Its parent is gone, so that only the mark in its environment tells whose it is."""
    grandchild = "import sys; print('up', flush=True); sys.stdin.read()"
    parent = (
        "import subprocess, sys; "
        f"print(subprocess.Popen([sys.executable, '-c', {grandchild!r}]).pid, flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
    process.wait()
    (pid,) = lines - {"up"}
    assert [line for line in before.leaks() if line.startswith(f"process {pid}: ")]
    process.stdin.close()
    process.stdout.read()  # ends with the last process that holds the pipe
    process.stdout.close()
    assert fix_leaks._remaining(before) == []
