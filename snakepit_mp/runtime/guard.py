"""Who ends the fork server when the application is gone? Its parent, which only watches.

The application starts the guard, and the guard the fork server. It loads little and runs no
code of the user's, not even what an interpreter runs at its start: so it watches within
milliseconds, and nothing can keep it from acting. All that the fork server leaves behind when
it ends, its workers and their children too, becomes the guard's.

If the guard itself is killed, the kernel kills the fork server, and that its workers.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from .abandoned import remove_if_abandoned
from .kernel import (
    become_subreaper,
    children,
    die_with_parent,
    exit_descriptor,
    kill_family,
    reap,
)

__all__ = ["main"]


def main() -> None:
    """Be the guard; only on Linux.

    Arguments: the application's pid, the pool's directory of sockets, and the command that
    is the fork server. SIGTERM and SIGHUP order the end of all.
    """
    application, directory, *command = sys.argv[1:]
    ordered = _take_orders()
    become_subreaper()
    ended = _exit_descriptor_of_parent(int(application))
    if ended is not None:
        _watch(ended, ordered, command)
    remove_if_abandoned(directory)


def _take_orders() -> int:
    """Set the signals up; a descriptor that is readable once the end has been ordered."""
    # The first two may have been inherited from the application in an unusual state.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the application's business
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    # The kernel hangs a group up whose last tie to the terminal is gone, as at the
    # application's death, if one of its members is stopped.
    for order in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(order, lambda *_: None)  # without a handler nothing is written
    return reader


def _exit_descriptor_of_parent(parent: int) -> int | None:
    """``None`` if it is dead; checked afterwards, as its pid may be another's already."""
    try:
        ended = exit_descriptor(parent)
    except ProcessLookupError:
        return None
    return ended if os.getppid() == parent else None


def _watch(application: int, ordered: int, command: list[str]) -> None:
    """Run the fork server until it, the application or an order ends it; leave no process."""
    try:
        server = _start(command)
        poller = select.poll()
        for descriptor in (application, ordered, exit_descriptor(server)):
            poller.register(descriptor, select.POLLIN)
        poller.poll()
    finally:
        _end()


def _start(command: list[str]) -> int:
    guard = os.getpid()
    server = os.fork()
    if server == 0:
        try:
            die_with_parent(guard)
            os.execv(command[0], command)  # noqa: S606 (there is nothing for a shell to do)
        finally:
            os._exit(1)
    return server


def _end() -> None:
    # Killing a child may give us its children, which come before its own exit.
    while _kill_all(children()):
        reap(kill_family, wait=True)


def _kill_all(processes: list[int]) -> bool:
    """Whether there was one that could be killed."""
    return sum(kill_family(process) for process in processes) > 0
