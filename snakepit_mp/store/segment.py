"""Where do the bytes live? One anonymous, sparse, sealed memory file that all processes map.

The file has its final, virtual size from the start; memory appears where it is committed
(``fallocate``), so a full store is an error and never a ``SIGBUS``. It has no name, so
nothing is left behind when every process is killed. A second, tiny file carries the locks.

All offsets inside are indices of 8-byte words: ``words[i] = x`` is one aligned 8-byte
store, the unit that a kill cannot split. `layout` says what is where.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import tempfile
from pathlib import Path

from ..errors import StoreFull, StoreMismatch
from . import crashpoints, faults
from .layout import (
    DESCRIPTOR_WORDS,
    DESCRIPTORS,
    FAMILY,
    IDENTITY,
    LAYOUT_VERSION,
    MAGIC,
    MAGIC_VALUE,
    NAMESPACE,
    PAGE_BYTES,
    PAGE_WORDS,
    PROCESSES,
    READY,
    READY_VALUE,
    SEED,
    SIZE,
    STRIPE_WORDS,
    STRIPES,
    VERSION,
    WORD,
)

__all__ = ["Segment", "anonymous_file"]

_LARGEST = 64 << 30
#: It must hold the parts of fixed size, and some pages.
_SMALLEST = 16 << 20

#: What an operating system answers where memory or a quota is used up.
_FULL = frozenset({errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT, errno.EPERM})


def anonymous_file(name: str, size: int) -> int:
    """Return the descriptor of a file without a name, of a size that is final."""
    if not hasattr(os, "memfd_create"):  # macOS: a file that is unlinked at once
        with tempfile.TemporaryFile() as file:
            os.ftruncate(file.fileno(), size)
            return fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _pages_for(size: int) -> int:
    """How many pages of heap fit into a file of ``size`` bytes, their descriptors included."""
    spare = size - DESCRIPTORS * WORD - PAGE_BYTES
    return spare // (PAGE_BYTES + DESCRIPTOR_WORDS * WORD)


def _reserve(descriptor: int, offset: int, length: int) -> None:
    """Make the file own the memory of a range, or raise `OSError`."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, offset, length)
        return
    zeros = bytes(1 << 20)  # macOS: only what was written is owned
    for start in range(offset, offset + length, len(zeros)):
        os.pwrite(descriptor, zeros[: offset + length - start], start)


def _namespace() -> int:
    """What tells this PID namespace from others; 0 where there are none."""
    # Process numbers in the segment mean something in one namespace only.
    namespace = Path("/proc/self/ns/pid")
    return namespace.stat().st_ino if namespace.exists() else 0


class Segment:
    """The mapped ``memory`` file: ``words`` (unsigned 64-bit) and ``data`` (the same bytes).

    Made by `create` in the application and by `attach` everywhere else.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.memory = mmap.mmap(descriptor, self.size)
        if hasattr(mmap, "MADV_DONTDUMP"):
            self.memory.madvise(mmap.MADV_DONTDUMP)
        self.data = memoryview(self.memory)
        self.words: memoryview[int] = self.data.cast("Q")
        self.max_pages = _pages_for(self.size)
        heap = DESCRIPTORS + self.max_pages * DESCRIPTOR_WORDS
        #: Word index of the first page.
        self.heap = -(-heap // PAGE_WORDS) * PAGE_WORDS
        self.closed = False

    @classmethod
    def create(cls, max_bytes: int, family: int) -> Segment:
        """Make a segment that can hold ``max_bytes``, or less where limits refuse the size.

        Address space costs nothing, so the first try is generous. ``family``: see `layout`.
        """
        size = _LARGEST
        while size < 2 * max_bytes:
            size *= 2
        while True:
            try:
                segment = cls._of_size(size)
                break
            except OSError as error:  # RLIMIT_AS, RLIMIT_FSIZE
                if error.errno not in _FULL or size // 4 < _SMALLEST:
                    raise StoreFull(f"no memory for a session store: {error}") from error
                size //= 4
        segment._write_header(family)
        return segment

    @classmethod
    def _of_size(cls, size: int) -> Segment:
        descriptor = anonymous_file("snakepit_mp", size)
        try:
            _reserve(descriptor, 0, PROCESSES * WORD)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def attach(cls, descriptor: int, family: int) -> Segment:
        """Map a segment made by another process; the descriptor belongs to it from now on.

        Raises `StoreMismatch` for anything that cannot be shared.
        """
        try:
            if os.fstat(descriptor).st_size < _SMALLEST:
                raise StoreMismatch("the file is too small to be a session store")
            segment = cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        problem = segment._mismatch(family)
        if problem is not None:
            segment.close()
            raise StoreMismatch(f"cannot share this session store: {problem}")
        return segment

    def _write_header(self, family: int) -> None:
        words = self.words
        words[MAGIC] = MAGIC_VALUE
        words[VERSION] = LAYOUT_VERSION
        words[FAMILY] = family
        words[SIZE] = self.size
        random = memoryview(os.urandom(3 * WORD)).cast("Q")
        words[IDENTITY], words[SEED], words[SEED + 1] = random
        words[NAMESPACE] = _namespace()
        words[READY] = READY_VALUE  # last: whoever sees it sees the rest

    def _mismatch(self, family: int) -> str | None:
        found = self.words[MAGIC : NAMESPACE + 1].tolist()
        if found[MAGIC] != MAGIC_VALUE:
            return "it is none, or of another byte order"
        if found[VERSION] != LAYOUT_VERSION:
            return f"its layout is version {found[VERSION]}, this library's is {LAYOUT_VERSION}"
        if found[FAMILY] != family:
            return "it was made by the other implementation (compiled or pure Python)"
        if found[SIZE] != self.size:
            return "its size is not the one it was made with"
        if found[READY] != READY_VALUE:
            return "its maker died before it was ready"
        if found[NAMESPACE] != _namespace():
            return "its processes are those of another PID namespace"
        return None

    @property
    def identity(self) -> int:
        """A number that tells this segment from others."""
        return self.words[IDENTITY]

    @property
    def seed(self) -> bytes:
        """The key of the hash of names: 16 bytes, random."""
        return bytes(self.data[SEED * WORD : READY * WORD])

    def base_of(self, stripe: int) -> int:
        """Word index of a stripe's record."""
        return STRIPES + stripe * STRIPE_WORDS

    def descriptor_of(self, page: int) -> int:
        """Word index of a page's descriptor."""
        return DESCRIPTORS + page * DESCRIPTOR_WORDS

    def grow(self, page: int, count: int) -> None:
        """Own the memory of ``count`` pages from ``page`` on; raises `StoreFull`.

        Harmless when repeated, as after a kill between this and the record of it.
        """
        try:
            descriptors = self.descriptor_of(page) * WORD
            _reserve(self.descriptor, descriptors, count * DESCRIPTOR_WORDS * WORD)
            start = self.heap + page * PAGE_WORDS
            _reserve(self.descriptor, start * WORD, count * PAGE_BYTES)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise faults.no_memory() from error
        crashpoints.step("segment.grown")

    def read(self, word: int, length: int) -> bytes:
        """A private copy of ``length`` bytes from a word on."""
        start = word * WORD
        return bytes(self.data[start : start + length])

    def write(self, word: int, payload: bytes) -> None:
        start = word * WORD
        self.data[start : start + len(payload)] = payload

    def require_open(self) -> None:
        if self.closed:
            raise faults.closed()

    def close(self) -> None:
        """Unmap it here; other processes keep it. Nobody may be inside an operation."""
        self.closed = True
        self.words.release()
        self.data.release()
        with contextlib.suppress(BufferError):  # a view is still held: unmapped with it
            self.memory.close()
        del self.memory
        os.close(self.descriptor)
