"""How does a large frame cross a socket? As a descriptor of memory that holds it.

The sender writes it into a memory file, seals that against every further change, and sends the
descriptor. The receiver looks at the seals and maps the file: from then on it can be read like
`bytes`, which nobody changes, and arrays in it need no copy. The kernel gives the memory back when
the last of the two has let go of it, or is dead.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import weakref

from .envelope import LONG, Outbound, Pieces
from .lane import LaneBroken

__all__ = ["LARGE", "Block", "map_block"]

#: Bytes from which on a frame crosses as a descriptor: below it copying costs less.
LARGE = LONG if sys.platform == "linux" else sys.maxsize

if sys.platform == "linux":
    _SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    _PROT_READ, _MAP_PRIVATE, _MAP_FAILED = 1, 2, ctypes.c_void_p(-1).value
    # Not the mmap module's, which keeps a descriptor open for each.
    _libc = ctypes.CDLL(None, use_errno=True)
    _mmap, _munmap = _libc.mmap, _libc.munmap
    _mmap.restype = ctypes.c_void_p
    _mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    _munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Block:
    """A sealed memory file with a frame in it. ``OSError`` if there is no room for it."""

    fd = -1

    def __init__(self, frame: Outbound) -> None:
        parts = frame.parts if isinstance(frame, Pieces) else (frame,)
        self.fd = os.memfd_create("snakepit_mp-frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            for part in parts:
                with memoryview(part) as view:
                    written = 0
                    while written < len(view):
                        written += os.write(self.fd, view[written:])
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()  # of a call that came to nothing


def map_block(fd: int) -> memoryview:
    """The frame in a block that somebody sent; ``fd`` stays the caller's to close.

    `LaneBroken` for what is no sealed memory, so that it might change while it is read.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        size = os.fstat(fd).st_size
    except OSError as error:
        raise LaneBroken(f"a descriptor came that is no memory file: {error}") from error
    if seals & _SEALS != _SEALS or not size:
        raise LaneBroken("a frame came in memory that is not sealed")
    address = _mmap(None, size, _PROT_READ, _MAP_PRIVATE, fd, 0)
    if address == _MAP_FAILED:
        raise LaneBroken(f"a frame cannot be mapped: {os.strerror(ctypes.get_errno())}")
    memory = (ctypes.c_ubyte * size).from_address(address)
    # Whoever has a part of it keeps all of it; at the interpreter's end it goes by itself.
    weakref.finalize(memory, _munmap, address, size).atexit = False
    return memoryview(memory).cast("B").toreadonly()
