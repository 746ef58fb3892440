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

# The kernel hangs a group up whose last tie to the terminal is gone, as at the application's
# death, if one of its members is stopped.
_ORDERS = (signal.SIGTERM, signal.SIGHUP)
# Who wants the terminal and may not have it is stopped again at once.
_IN_VAIN = (signal.SIGTTIN, signal.SIGTTOU)


def main() -> None:
    """Be the guard; only on Linux.

    Arguments: the application's pid, the pool's directory of sockets, and the command that
    is the fork server. SIGTERM and SIGHUP order the end of all. A fork server that a signal
    has stopped is continued, since only its parent is told of that.
    """
    application, directory, *command = sys.argv[1:]
    signals = _take_signals()
    become_subreaper()
    ended = _exit_descriptor_of_parent(int(application))
    if ended is not None:
        _watch(ended, signals, command)
    remove_if_abandoned(directory)


def _take_signals() -> int:
    """Set the signals up; a descriptor that gives those that came, a byte for each."""
    # The mask may have been inherited from the application in an unusual state.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the application's business
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (*_ORDERS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # without a handler nothing is written
    return reader


def _exit_descriptor_of_parent(parent: int) -> int | None:
    """``None`` if it is dead; checked afterwards, as its pid may be another's already."""
    try:
        ended = exit_descriptor(parent)
    except ProcessLookupError:
        return None
    return ended if os.getppid() == parent else None


def _watch(application: int, signals: int, command: list[str]) -> None:
    """Run the fork server until it, the application or an order ends it; leave no process."""
    try:
        server = _start(command)
        poller = select.poll()
        for descriptor in (application, signals, exit_descriptor(server)):
            poller.register(descriptor, select.POLLIN)
        while [ready for ready, _ in poller.poll()] == [signals] and not _ordered(signals):
            _continue(server)
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


def _ordered(signals: int) -> bool:
    return any(number in _ORDERS for number in os.read(signals, 4096))


def _continue(server: int) -> None:
    notice = os.waitid(os.P_PID, server, os.WSTOPPED | os.WNOHANG)
    if notice is not None and notice.si_status not in _IN_VAIN:
        os.kill(server, signal.SIGCONT)


def _end() -> None:
    # Killing a child may give us its children, which come before its own exit.
    while _kill_all(children()):
        reap(kill_family, wait=True)


def _kill_all(processes: list[int]) -> bool:
    """Whether there was one that could be killed."""
    return sum(kill_family(process) for process in processes) > 0
