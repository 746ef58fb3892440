"""Who may touch a stripe now? Byte-range locks that the kernel drops when their holder dies.

POSIX record locks belong to a process, which has three consequences here:

* they do not exclude threads of one process, so a thread lock lies on top of each;
* closing *any* descriptor of the file drops every lock that the process holds on it, so a
  process keeps all its descriptors of one lock file until the last user is gone;
* a forked child holds none of them: it starts with fresh thread locks.

A lock is tried, never waited for in the kernel, which has no time limit for that and
sees deadlocks between multi-threaded processes where there are none. So that many readers
cannot keep a writer out for ever, one that waits says until when, in a word of the lock
file itself, and readers that come later let it go first. The word is a hint that runs out
by itself: nobody depends on a waiting writer staying alive.

A signal handler may raise between any two instructions, also of what lets a lock go. So a
thread notes each lock before it takes it and until after it has let it go, together with the
frame of the call that wants it. Whoever enters the store next in that thread and finds a note
of a call that runs no more lets that lock go first. What such a call had begun is repaired as
if its process had died.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys
import threading
import time
from types import FrameType, TracebackType

from . import faults
from .layout import ALLOCATOR_LOCK, JANITOR_LOCK, LOCK_COUNT, WORD

__all__ = ["EXCLUSIVE", "LOCK_FILE_BYTES", "LOCK_TIMEOUT", "SHARED", "Lock", "LockFile"]

#: Locks that this class gives: of stripes, allocator and janitor. Those of processes are the
#: compiled twin's.
_LOCKS = JANITOR_LOCK + 1
#: A word for each byte that may be locked, those of processes included.
LOCK_FILE_BYTES = LOCK_COUNT * WORD

#: Seconds until a lock that is not given up means that its holder is stopped.
LOCK_TIMEOUT = 5.0

# The naps between two tries: a holder needs some tens of microseconds.
_FIRST_NAP, _LONGEST_NAP = 20e-6, 1e-3

# How long the word of a waiting writer counts, and a reader waits for one at most, in ns.
_WORD_COUNTS, _READER_WAITS = 5_000_000, 100_000_000
_POLITE_NAP = 2e-4

#: Nobody else reads or writes; nobody writes.
EXCLUSIVE, SHARED = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_SH | fcntl.LOCK_NB
_HELD_BY_OTHERS = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})

#: The lock files of this process, by the segment they belong to.
_files: dict[int, LockFile] = {}
# Reentrant: a garbage collection inside it may close another store.
_files_guard = threading.RLock()


class _Notes(threading.local):
    """The locks that a thread has, or is about to take, or has just let go; and for which call."""

    def __init__(self) -> None:
        self.held: dict[int, FrameType] = {}


class LockFile:
    """All locks of one segment in this process, one byte each; a file of `LOCK_FILE_BYTES`."""

    def __init__(self, descriptor: int) -> None:
        self.timeout = LOCK_TIMEOUT
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, _LOCKS * WORD)
        self.waiting = memoryview(self._map).cast("Q")
        self._descriptors: list[int] = []
        self._users = 0
        #: What the compiled twin has of this process in the segment, shared by all handles.
        self.process: object = None
        #: Held by the thread that makes it.
        self.claiming = threading.Lock()
        #: Held by the thread that has all stripes of the compiled twin.
        self.holding = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        # Reentrant ones know their owner, and no other thread can let them go. That a thread
        # takes one twice is for the notes to prevent.
        self._threads = [threading.RLock() for _ in range(_LOCKS)]
        self._notes = _Notes()

    @classmethod
    def open(cls, identity: int, descriptor: int) -> LockFile:
        """The one lock file of this process for a segment; takes the descriptor over."""
        with _files_guard:
            file = _files.get(identity)
            if file is None:
                file = _files[identity] = cls(descriptor)
            file._descriptors.append(descriptor)
            file._users += 1
            return file

    def close(self, identity: int) -> None:
        """One user less; the descriptors go with the last one."""
        with _files_guard:
            self._users -= 1
            if self._users:
                return
            del _files[identity]
        self.process = None
        self.descriptor = -1  # whoever comes now is told
        self.wait_until_unused()
        self.waiting.release()
        self._map.close()  # its own copy of the descriptor, too
        while self._descriptors:
            os.close(self._descriptors.pop())

    def renew(self) -> None:
        """Forget what threads of the parent held: they do not exist in this process."""
        self._forget()
        self.claiming = threading.Lock()
        self.holding = threading.RLock()

    def exclusive(self, index: int) -> Lock:
        """Nobody else reads or writes: a context manager that may raise `StoreBusy`."""
        return Lock(self, index, EXCLUSIVE)

    def shared(self, index: int) -> Lock:
        """Nobody writes: a context manager that may raise `StoreBusy`."""
        return Lock(self, index, SHARED)

    def leads(self) -> bool:
        """Whether this process is the store's janitor: the first that asked, while it lives."""
        descriptor = self.descriptor
        if descriptor < 0:
            raise faults.closed()
        return _is_obtained(descriptor, JANITOR_LOCK, EXCLUSIVE)

    def resign(self) -> None:
        """Let another process be the janitor."""
        if self._descriptors:
            fcntl.lockf(self._descriptors[0], fcntl.LOCK_UN, 1, JANITOR_LOCK)

    def wait_until_unused(self) -> None:
        """Return when no thread of this process is inside a lock.

        Raises `StoreBusy` where this thread is, in a call that something has interrupted.
        """
        self.put_right()
        if held := self._notes.held:
            raise faults.inside(next(iter(held)))
        for thread_lock in (*self._threads, self.holding):
            with thread_lock:
                pass

    # Taking one and letting it go. `let_go` is harmless for one that was not taken.

    def take(self, index: int, how: int, frame: FrameType, *, within: bool = False) -> None:
        """Take a lock for a call that runs in ``frame``, and that will let it go.

        ``within``: that call has others already. Raises `StoreBusy`.
        """
        held = self._notes.held
        if held and (index in held or not within):
            self.put_right()
            if index in held:
                raise faults.inside(index)
        held[index] = frame  # before: whatever is interrupted from here on has been noted
        try:
            if not self._threads[index].acquire(timeout=self.timeout):
                raise faults.busy(index, self.timeout)
            descriptor = self.descriptor  # a copy: whoever closes it waits for this thread
            if descriptor < 0:
                self._threads[index].release()  # here: there is nothing left to unlock
                raise faults.closed()
            if how == SHARED and self.waiting[index]:
                self._let_writers_pass(index)
            if not _is_obtained(descriptor, index, how):
                self._keep_trying(descriptor, index, how)
        except BaseException:
            self._let_go_if_taken(index)
            raise

    def let_go(self, index: int) -> None:
        """Let a lock go that this thread has."""
        # In this order, and no `finally`: the thread's lock says that there is more to let go.
        self._unlock(index)
        self._threads[index].release()
        self._notes.held.pop(index, None)

    def put_right(self) -> None:
        """Let the locks go of calls of this thread that run no more."""
        held = self._notes.held
        if not held:
            return
        running = set()
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            running.add(id(frame))
            frame = frame.f_back
        # The latest first: nobody else gets a stripe while its allocator is still locked.
        for index in reversed(list(held)):
            if id(held[index]) not in running:
                self._let_go_if_taken(index)

    def _let_go_if_taken(self, index: int) -> None:
        thread_lock = self._threads[index]
        # Not by trying: a handler may raise what would be taken for the answer.
        if _is_own(thread_lock):
            self._unlock(index)
            while _is_own(thread_lock):
                thread_lock.release()
        self._notes.held.pop(index, None)

    def _unlock(self, index: int) -> None:
        # Harmless where the lock was not obtained: no other thread can hold it. Not by
        # `descriptor`, which is gone as soon as somebody begins to close the file.
        if self._descriptors:
            fcntl.lockf(self._descriptors[0], fcntl.LOCK_UN, 1, index)

    def _keep_trying(self, descriptor: int, index: int, how: int) -> None:
        give_up = time.monotonic() + self.timeout
        nap = _FIRST_NAP
        while True:
            if how == EXCLUSIVE:
                self.waiting[index] = time.monotonic_ns() + _WORD_COUNTS
            time.sleep(nap)
            nap = min(2 * nap, _LONGEST_NAP)
            if _is_obtained(descriptor, index, how):
                break
            if time.monotonic() > give_up:
                raise faults.busy(index, self.timeout)
        if how == EXCLUSIVE:
            self.waiting[index] = 0

    def _let_writers_pass(self, index: int) -> None:
        patience = time.monotonic_ns() + _READER_WAITS
        while time.monotonic_ns() < min(self.waiting[index], patience):
            time.sleep(_POLITE_NAP)


class Lock:
    """One lock, held while its ``with`` block runs, for the call that has the block."""

    __slots__ = ("_file", "_how", "_index")

    def __init__(self, file: LockFile, index: int, how: int) -> None:
        self._file = file
        self._index = index
        self._how = how

    def __enter__(self) -> None:
        # A stripe may be held already by whoever wants the allocator.
        within = self._index == ALLOCATOR_LOCK
        self._file.take(self._index, self._how, sys._getframe(1), within=within)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.let_go(self._index)


def _is_own(thread_lock: threading.RLock) -> bool:
    """Whether this thread has it; `threading.Condition` asks the same way."""
    owned: bool = thread_lock._is_owned()  # type: ignore[attr-defined]
    return owned


def _is_obtained(descriptor: int, index: int, how: int) -> bool:
    try:
        fcntl.lockf(descriptor, how, 1, index)
    except OSError as error:
        if error.errno not in _HELD_BY_OTHERS:
            raise
        return False
    return True


def _renew_all() -> None:
    global _files_guard
    _files_guard = threading.RLock()
    for file in _files.values():
        file.renew()


os.register_at_fork(after_in_child=_renew_all)
