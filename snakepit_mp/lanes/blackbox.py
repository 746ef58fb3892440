"""What had a worker to say before it died? The rest of its status page's file.

Behind the page are a ring with the latest of what it wrote to standard error, and the Python
stacks that `faulthandler` writes: by itself at a fatal signal, and when it is asked to. The
worker only ever writes, the application reads when it has to explain a death.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import struct

from .worker_file import BLACK_BOX_AT

__all__ = ["FILE_SIZE", "STACK_SIGNAL", "BlackBox"]

#: Tells a worker to write its stacks, which it does in any state but stopped.
STACK_SIGNAL = signal.SIGRTMIN + 6 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR1

_COUNT = struct.Struct("=Q")
_COUNT_AT = BLACK_BOX_AT
_RING_AT = _COUNT_AT + _COUNT.size
_RING_SIZE = 4096
_STACKS_AT = _RING_AT + _RING_SIZE
#: Bytes of stacks that are read; the first thread told is the one that matters.
_STACK_SIZE = 16384

#: Bytes that the file has from the start; stacks make it longer.
FILE_SIZE = _STACKS_AT


class BlackBox:
    """The part of the file ``fd``, which stays the status page's, that is not the page."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._written = 0

    # -- by the worker -----------------------------------------------------------------

    def catch_fatal_signals(self) -> None:
        """From here on a fatal signal, and `STACK_SIGNAL`, leave the stacks of all threads."""
        os.lseek(self._fd, _STACKS_AT, os.SEEK_SET)  # it writes wherever the file stands
        faulthandler.enable(file=self._fd, all_threads=True)
        faulthandler.register(STACK_SIGNAL, file=self._fd, all_threads=True)

    def note(self, text: bytes) -> None:
        """Add to the ring."""
        text = text[-_RING_SIZE:]
        at = self._written % _RING_SIZE
        room = _RING_SIZE - at
        os.pwrite(self._fd, text[:room], _RING_AT + at)
        if len(text) > room:
            os.pwrite(self._fd, text[room:], _RING_AT)
        self._written += len(text)
        os.pwrite(self._fd, _COUNT.pack(self._written), _COUNT_AT)

    # -- by the application ------------------------------------------------------------

    def stderr(self) -> str:
        """The last that was written to standard error, as far as it fits."""
        (written,) = _COUNT.unpack(os.pread(self._fd, _COUNT.size, _COUNT_AT))
        ring = os.pread(self._fd, _RING_SIZE, _RING_AT)
        at = written % _RING_SIZE
        text = ring[:written] if written <= _RING_SIZE else ring[at:] + ring[:at]
        return text.decode(errors="replace")

    def size(self) -> int:
        """Where the next stacks will begin, for `stacks`."""
        return os.fstat(self._fd).st_size

    def stacks(self, since: int = _STACKS_AT) -> str:
        """What `faulthandler` wrote from there on."""
        return os.pread(self._fd, _STACK_SIZE, since).decode(errors="replace").strip()
