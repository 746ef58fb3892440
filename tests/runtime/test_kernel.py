"""The kernel keeps processes together as it is asked to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from fix_forkserver import wait_readable

from snakepit_mp.runtime import kernel


@pytest.fixture
def child():
    """A child that waits for the end of its input."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def test_an_exit_descriptor_becomes_readable_at_the_end(child):
    descriptor = kernel.exit_descriptor(child.pid)
    assert not wait_readable(descriptor, 0)
    child.kill()
    assert wait_readable(descriptor)
    os.close(descriptor)


def test_children_are_listed_until_they_are_reaped(child):
    assert child.pid in kernel.children()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.pid in kernel.children()
    child.wait()
    assert child.pid not in kernel.children()


def test_children_are_found_without_the_kernels_list(child, monkeypatch):
    monkeypatch.setattr("os.path.exists", lambda path: False)
    assert child.pid in kernel.children()


SCRIPT = """
import os, signal, sys
from snakepit_mp.runtime import kernel

def reaped(**how):
    seen = []
    result = kernel.reap(lambda pid: seen.append((pid, os.path.exists(f"/proc/{pid}"))), **how)
    return result, seen

def forked(life):
    pid = os.fork()
    if pid == 0:
        life()
        os._exit(0)
    return pid
"""


def run(script):
    """In a process that has no other children."""
    subprocess.run([sys.executable, "-c", SCRIPT + script], check=True)


def test_a_child_still_exists_before_it_is_reaped():
    run("""
assert reaped() == (None, [])
pid = forked(lambda: os._exit(3))
result, seen = reaped(wait=True)
assert result[:2] == (pid, 3 << 8) and result[2] > 1 << 20 and seen == [(pid, True)]
assert reaped(wait=True) == (None, [])
pid = forked(signal.pause)
assert reaped() == (None, [])
os.kill(pid, signal.SIGKILL)
assert reaped(wait=True)[0][:2] == (pid, signal.SIGKILL)
""")


def test_stops_are_told_once_and_are_no_exits():
    run("""
assert list(kernel.stops()) == []
pid = forked(signal.pause)
os.kill(pid, signal.SIGSTOP)
os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
assert kernel.reap(print) is None
assert list(kernel.stops()) == [(pid, True)]
assert list(kernel.stops()) == []
os.kill(pid, signal.SIGCONT)
os.waitid(os.P_PID, pid, os.WCONTINUED | os.WNOWAIT)
assert list(kernel.stops()) == [(pid, False)]
os.kill(pid, signal.SIGKILL)
assert kernel.reap(int, wait=True)[0] == pid
""")


def test_a_child_dies_with_its_parent():
    run("""
kernel.become_subreaper()
reader, writer = os.pipe()

def middle():
    server = os.getpid()
    def leaf():
        kernel.die_with_parent(server)
        os.write(writer, str(os.getpid()).encode())
        signal.pause()
    forked(leaf)
    signal.pause()

pid = forked(middle)
leaf = int(os.read(reader, 20))
os.kill(pid, signal.SIGKILL)
ended = dict(kernel.reap(int, wait=True)[:2] for _ in range(2))
assert ended == {pid: signal.SIGKILL, leaf: signal.SIGKILL}
""")


def test_a_child_whose_parent_is_gone_already_leaves():
    run("""
pid = forked(lambda: kernel.die_with_parent(1 << 22))
assert kernel.reap(int, wait=True)[:2] == (pid, 1 << 8)
""")


def test_signals_have_names_and_real_time_signals_numbers():
    assert kernel.signal_name(9) == "SIGKILL"
    assert kernel.signal_name(signal.SIGRTMIN + 2) == f"SIG{signal.SIGRTMIN + 2}"
