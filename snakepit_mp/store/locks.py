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
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
import time
from types import TracebackType

from . import faults
from .layout import JANITOR_LOCK, LOCK_COUNT, WORD

__all__ = ["LOCK_FILE_BYTES", "LOCK_TIMEOUT", "Lock", "LockFile"]

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

_EXCLUSIVE, _SHARED = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_SH | fcntl.LOCK_NB
_HELD_BY_OTHERS = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})

#: The lock files of this process, by the segment they belong to.
_files: dict[int, LockFile] = {}
# Reentrant: a garbage collection inside it may close another store.
_files_guard = threading.RLock()


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
        self._threads = [threading.Lock() for _ in range(_LOCKS)]

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
        self.descriptor = -1  # whoever comes now is told; whoever is inside has a copy
        self.wait_until_unused()
        self.waiting.release()
        self._map.close()  # its own copy of the descriptor, too
        for descriptor in self._descriptors:
            os.close(descriptor)

    def renew(self) -> None:
        """Forget what threads of the parent held: they do not exist in this process."""
        self._threads = [threading.Lock() for _ in self._threads]

    def exclusive(self, index: int) -> Lock:
        """Nobody else reads or writes: a context manager that may raise `StoreBusy`."""
        return Lock(self, index, _EXCLUSIVE)

    def shared(self, index: int) -> Lock:
        """Nobody writes: a context manager that may raise `StoreBusy`."""
        return Lock(self, index, _SHARED)

    def leads(self) -> bool:
        """Whether this process is the store's janitor: the first that asked, while it lives."""
        if self.descriptor < 0:
            raise faults.closed()
        try:
            fcntl.lockf(self.descriptor, _EXCLUSIVE, 1, JANITOR_LOCK)
        except OSError as error:
            if error.errno not in _HELD_BY_OTHERS:
                raise
            return False
        return True

    def wait_until_unused(self) -> None:
        """Return when no thread of this process is inside a lock."""
        for thread_lock in self._threads:
            with thread_lock:
                pass


class Lock:
    """One lock, held while its ``with`` block runs."""

    __slots__ = ("_descriptor", "_file", "_how", "_index", "_thread")

    def __init__(self, file: LockFile, index: int, how: int) -> None:
        self._file = file
        self._descriptor = -1
        self._index = index
        self._how = how
        self._thread = file._threads[index]

    def __enter__(self) -> None:
        file = self._file
        if not self._thread.acquire(timeout=file.timeout):
            raise faults.busy(self._index, file.timeout)
        try:
            self._descriptor = file.descriptor
            if self._descriptor < 0:
                raise faults.closed()
            if self._how != _EXCLUSIVE and file.waiting[self._index]:
                self._let_writers_pass()
            try:
                fcntl.lockf(self._descriptor, self._how, 1, self._index)
            except OSError as error:
                self._keep_trying(error)
        except BaseException:
            self._release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release()

    def _release(self) -> None:
        # Harmless where the lock was not obtained: no other thread can hold it.
        try:
            if self._descriptor >= 0:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, self._index)
        finally:
            self._thread.release()

    def _keep_trying(self, error: OSError) -> None:
        file = self._file
        give_up = time.monotonic() + file.timeout
        nap = _FIRST_NAP
        while True:
            if error.errno not in _HELD_BY_OTHERS:
                raise error
            if time.monotonic() > give_up:
                raise faults.busy(self._index, file.timeout)
            if self._how == _EXCLUSIVE:
                file.waiting[self._index] = time.monotonic_ns() + _WORD_COUNTS
            time.sleep(nap)
            nap = min(2 * nap, _LONGEST_NAP)
            try:
                fcntl.lockf(self._descriptor, self._how, 1, self._index)
            except OSError as again:
                error = again
                continue
            if self._how == _EXCLUSIVE:
                file.waiting[self._index] = 0
            return

    def _let_writers_pass(self) -> None:
        waiting, index = self._file.waiting, self._index
        patience = time.monotonic_ns() + _READER_WAITS
        while time.monotonic_ns() < min(waiting[index], patience):
            time.sleep(_POLITE_NAP)


def _renew_all() -> None:
    global _files_guard
    _files_guard = threading.RLock()
    for file in _files.values():
        file.renew()


os.register_at_fork(after_in_child=_renew_all)
