"""What lies where in the memory file that a worker shares with the application?

First the status page, then the mailbox, last the black box, which grows. What nobody touches
costs no memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile

__all__ = ["BLACK_BOX_AT", "MAILBOX_AT", "MAILBOX_SIZE", "STATUS_SIZE", "memory_file"]

STATUS_SIZE = mmap.PAGESIZE
MAILBOX_AT = STATUS_SIZE
#: Room for one, in whole pages of any machine.
MAILBOX_SIZE = 192 << 10
BLACK_BOX_AT = MAILBOX_AT + MAILBOX_SIZE


def memory_file(size: int) -> int:
    """The descriptor of a new one, which nobody can make shorter under those who map it."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:  # macOS; it has no name either
            os.ftruncate(file.fileno(), size)
            return os.dup(file.fileno())
    fd = os.memfd_create("snakepit_mp-worker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    except BaseException:
        os.close(fd)
        raise
    return fd
