"""Locks exclude threads and processes, end with their holder, and tell when it is stopped."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from fix_store import FORKS, in_child
from fix_timeouts import scaled

from snakepit_mp.errors import StoreBusy, StoreClosed
from snakepit_mp.store import locks as module
from snakepit_mp.store.locks import LOCK_FILE_BYTES, Lock, LockFile
from snakepit_mp.store.segment import anonymous_file

pytestmark = FORKS
IDENTITY = 1234


@pytest.fixture
def locks() -> Iterator[LockFile]:
    file = LockFile.open(IDENTITY, anonymous_file("locks", LOCK_FILE_BYTES))
    yield file
    file.close(IDENTITY)


class Holder:
    """A forked process that holds a lock until it is let go."""

    def __init__(self, take: Callable[[], Lock]) -> None:
        self._held, holding = os.pipe()
        waiting, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            with take():
                os.write(holding, b"x")
                os.read(waiting, 1)
            os._exit(0)
        os.close(holding)
        os.close(waiting)
        assert os.read(self._held, 1) == b"x"

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._go)
        os.waitpid(self.pid, 0)
        os.close(self._held)


def is_busy(lock: Lock) -> bool:
    lock._file.timeout = 0.01
    try:
        with lock:
            return False
    except StoreBusy:
        return True


def test_processes_exclude_each_other_by_lock(locks: LockFile) -> None:
    with Holder(lambda: locks.exclusive(1)):
        assert is_busy(locks.exclusive(1))
        assert is_busy(locks.shared(1))
        assert not is_busy(locks.exclusive(2))
    assert not is_busy(locks.exclusive(1))


def test_readers_admit_readers_only(locks: LockFile) -> None:
    with Holder(lambda: locks.shared(1)):
        assert not is_busy(locks.shared(1))
        assert is_busy(locks.exclusive(1))


def test_threads_of_one_process_exclude_each_other(locks: LockFile) -> None:
    found: list[bool] = []
    with locks.exclusive(0):
        thread = threading.Thread(target=lambda: found.append(is_busy(locks.exclusive(0))))
        thread.start()
        thread.join()
    assert found == [True]


def test_one_thread_waits_for_another(locks: LockFile) -> None:
    locks.timeout = scaled(5)
    order = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with locks.exclusive(0):
            order.append(2)

    with locks.exclusive(0):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        order.append(1)
    thread.join()
    assert order == [1, 2]


def test_a_killed_holder_holds_nothing(locks: LockFile) -> None:
    with Holder(lambda: locks.exclusive(1)) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        locks.timeout = scaled(5)
        with locks.exclusive(1):
            pass


def test_a_stopped_holder_is_reported(locks: LockFile) -> None:
    with Holder(lambda: locks.exclusive(1)) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        locks.timeout = 0.05
        with pytest.raises(StoreBusy, match=r"stopped"), locks.exclusive(1):
            pass
        os.kill(holder.pid, signal.SIGCONT)


def test_a_forked_child_holds_nothing_and_can_lock(locks: LockFile) -> None:
    def child() -> None:
        assert is_busy(locks.exclusive(1))  # the parent's
        with locks.exclusive(2):
            pass

    with locks.exclusive(1):
        assert in_child(child) == 0


def test_a_false_deadlock_is_tried_again(locks: LockFile, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [errno.EDEADLK, errno.EDEADLK]
    true = fcntl.lockf

    def lockf(*args: int) -> None:
        if answers:
            raise OSError(answers.pop(), "deadlock")
        true(*args)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with locks.exclusive(1):
        assert answers == []


def test_other_errors_are_not_mistaken_for_a_busy_lock(
    locks: LockFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(*args: int) -> None:
        if args[1] != fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, "no locks")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "lockf", lockf)
        with pytest.raises(OSError, match="no locks"), locks.exclusive(1):
            pass
    assert not is_busy(locks.exclusive(1))  # the thread's lock was let go


def test_a_writer_that_waits_says_so_and_readers_let_it_pass(locks: LockFile) -> None:
    with Holder(lambda: locks.shared(1)):
        assert is_busy(locks.exclusive(1))
        assert locks.waiting[1] > 0
    until = locks.waiting[1] = time.monotonic_ns() + 10_000_000
    with locks.shared(1):
        assert time.monotonic_ns() >= until


def test_a_writer_that_got_the_lock_waits_no_more(locks: LockFile) -> None:
    locks.timeout = scaled(5)
    with Holder(lambda: locks.shared(1)) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        results: list[int] = []

        def write() -> None:
            with locks.exclusive(1):
                results.append(locks.waiting[1])

        thread = threading.Thread(target=write)
        thread.start()
        while not locks.waiting[1]:
            thread.join(0.001)
        os.kill(holder.pid, signal.SIGKILL)
        thread.join()
    assert results == [0]


def test_a_reader_does_not_wait_for_a_writer_for_ever(
    locks: LockFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READER_WAITS", 1_000_000)
    locks.waiting[1] = time.monotonic_ns() + 10**18
    with locks.shared(1):
        pass


def test_handles_of_one_segment_share_their_locks(locks: LockFile) -> None:
    other = LockFile.open(IDENTITY, os.dup(locks.descriptor))
    assert other is locks
    with locks.exclusive(1):
        other.close(IDENTITY)  # closing its descriptor now would drop the lock
        assert in_child(lambda: None if is_busy(locks.exclusive(1)) else os._exit(2)) == 0


def test_a_closed_file_says_so() -> None:
    file = LockFile.open(IDENTITY, anonymous_file("locks", LOCK_FILE_BYTES))
    lock = file.exclusive(1)
    file.close(IDENTITY)
    with pytest.raises(StoreClosed), lock:
        pass
