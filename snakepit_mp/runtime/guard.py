"""Who ends the fork server while user code runs in it? A child that only watches.

The server has one thread. As long as that imports the user's modules, which may take
minutes or block, it cannot notice that the application is gone; its guard does.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import kernel
from .child import become
from .cleanup import kill_group, remove_if_abandoned

__all__ = ["guarded"]


@contextmanager
def guarded(channel: socket.socket, application: int, socket_directory: str) -> Iterator[None]:
    """A context that the process does not survive if the application ends or lets go.

    ``channel``: the socket to the application; ``application``: its exit descriptor. Only
    on Linux: elsewhere a closed channel cannot be told from one with unread data.
    """
    if not kernel.ON_LINUX:
        yield
        return
    server = os.getpid()
    guard = os.fork()
    if guard == 0:
        become(lambda: _watch(server, channel, application, Path(socket_directory)))
    try:
        yield
    finally:
        os.kill(guard, signal.SIGKILL)
        try:
            os.waitpid(guard, 0)
        except ChildProcessError:
            pass  # an imported module had the kernel reap all children


def _watch(server: int, channel: socket.socket, application: int, directory: Path) -> int:
    os.setpgid(0, 0)  # what it kills must not be itself
    kernel.die_with_parent(server)
    poller = select.poll()
    poller.register(application, select.POLLIN)
    poller.register(channel, select.POLLRDHUP)
    poller.poll()
    remove_if_abandoned(directory)
    kill_group(server)
    return 0
