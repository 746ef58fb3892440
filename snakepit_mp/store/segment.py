"""Where do the bytes live? One anonymous, sparse, sealed memory file that all processes map.

The file has its final, virtual size from the start; memory appears where it is committed
(``fallocate``), so a full store is an error and never a ``SIGBUS``. It has no name, so
nothing is left behind when every process is killed. A second, tiny file carries the locks.

All offsets inside are indices of 8-byte words: ``words[i] = x`` is one aligned 8-byte
store, the unit that a kill cannot split. ``docs/memory-layout.md`` draws the layout.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import tempfile

from ..errors import StoreClosed, StoreFull, StoreMismatch
from . import crashpoints

__all__ = [
    "ALLOCATOR",
    "DESCRIPTORS",
    "DESCRIPTOR_WORDS",
    "PAGE_BYTES",
    "PAGE_WORDS",
    "STRIPES",
    "STRIPE_COUNT",
    "STRIPE_WORDS",
    "WORD",
    "Segment",
    "anonymous_file",
]

WORD = 8
STRIPE_COUNT = 256
STRIPE_WORDS = 128
PAGE_WORDS = 2048
PAGE_BYTES = PAGE_WORDS * WORD
DESCRIPTOR_WORDS = 4

# Word indices of the parts; the heap begins where the descriptors end, on a page boundary.
ALLOCATOR = 512
STRIPES = 4096
DESCRIPTORS = STRIPES + STRIPE_COUNT * STRIPE_WORDS

# The header's words.
_MAGIC, _VERSION, _FAMILY, _SIZE, _ID, _SEED, _READY = 0, 1, 2, 3, 4, 5, 7

_MAGIC_VALUE = int.from_bytes(b"SNAKEPIT", "big")
_LAYOUT_VERSION = 1
#: Who may share the segment: processes that use byte-range locks for reads and writes.
_FAMILY_LOCKED = 1
_READY_VALUE = 1

_LARGEST = 64 << 30
_SMALLEST = 4 << 20

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


class Segment:
    """The mapped memory file: ``words`` (unsigned 64-bit) and ``data`` (the same bytes).

    Made by `create` in the application and by `attach` everywhere else.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._map = mmap.mmap(descriptor, self.size)
        if hasattr(mmap, "MADV_DONTDUMP"):
            self._map.madvise(mmap.MADV_DONTDUMP)
        self.data = memoryview(self._map)
        self.words: memoryview[int] = self.data.cast("Q")
        self.max_pages = _pages_for(self.size)
        heap = DESCRIPTORS + self.max_pages * DESCRIPTOR_WORDS
        #: Word index of the first page.
        self.heap = -(-heap // PAGE_WORDS) * PAGE_WORDS
        self.closed = False

    @classmethod
    def create(cls, max_bytes: int) -> Segment:
        """Make a segment that can hold ``max_bytes``, or less where limits refuse the size.

        Address space costs nothing, so the first try is generous.
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
        segment._write_header()
        return segment

    @classmethod
    def _of_size(cls, size: int) -> Segment:
        descriptor = anonymous_file("snakepit_mp", size)
        try:
            _reserve(descriptor, 0, DESCRIPTORS * WORD)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def attach(cls, descriptor: int) -> Segment:
        """Map a segment made by another process; the descriptor belongs to it from now on.

        Raises `StoreMismatch` for anything that this class did not make.
        """
        try:
            if os.fstat(descriptor).st_size < _SMALLEST // 4:
                raise StoreMismatch("the file is too small to be a session store")
            segment = cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        problem = segment._mismatch()
        if problem is not None:
            segment.close()
            raise StoreMismatch(f"cannot share this session store: {problem}")
        return segment

    def _write_header(self) -> None:
        words = self.words
        words[_MAGIC] = _MAGIC_VALUE
        words[_VERSION] = _LAYOUT_VERSION
        words[_FAMILY] = _FAMILY_LOCKED
        words[_SIZE] = self.size
        random = memoryview(os.urandom(3 * WORD)).cast("Q")
        words[_ID], words[_SEED], words[_SEED + 1] = random
        words[_READY] = _READY_VALUE  # last: whoever sees it sees the rest

    def _mismatch(self) -> str | None:
        found = self.words[_MAGIC : _READY + 1].tolist()
        if found[_MAGIC] != _MAGIC_VALUE:
            return "it is none, or of another byte order"
        if found[_VERSION] != _LAYOUT_VERSION:
            return f"its layout is version {found[_VERSION]}, this library's is {_LAYOUT_VERSION}"
        if found[_FAMILY] != _FAMILY_LOCKED:
            return "it was made by the other implementation (compiled or pure Python)"
        if found[_SIZE] != self.size:
            return "its size is not the one it was made with"
        if found[_READY] != _READY_VALUE:
            return "its maker died before it was ready"
        return None

    @property
    def identity(self) -> int:
        """A number that tells this segment from others."""
        return self.words[_ID]

    @property
    def seed(self) -> bytes:
        """The key of the hash of names: 16 bytes, random."""
        return bytes(self.data[_SEED * WORD : _READY * WORD])

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
            raise StoreFull(f"the machine has no memory left for the store: {error}") from error
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
            raise StoreClosed("the session store is closed")

    def close(self) -> None:
        """Unmap it here; other processes keep it. Nobody may be inside an operation."""
        self.closed = True
        self.words.release()
        self.data.release()
        with contextlib.suppress(BufferError):  # a view is still held: unmapped with it
            self._map.close()
        os.close(self.descriptor)
