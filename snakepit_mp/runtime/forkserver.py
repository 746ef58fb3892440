"""How does the application get workers? The handle of its fork server.

The server is a process of its own, started clean by ``exec``; `forking` is what runs there,
`messages` is what the two say to each other, and `guard` the process between them.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing import spawn
from pathlib import Path

from ..lanes.frames import recv_frame, send_frame
from .kernel import ON_LINUX, exit_descriptor, kill_group
from .messages import (
    Exited,
    Forked,
    ForkRefused,
    Imported,
    ImportFailed,
    Resumed,
    ServerMessage,
    SpawnRequest,
    Stopped,
    decode_message,
    encode_request,
)
from .plan import AdapterReference, ForkPlan
from .preparation import refuse_in_unguarded_main

__all__ = [
    "AdapterReference",
    "Exited",
    "ForkPlan",
    "ForkRefused",
    "ForkServer",
    "Forked",
    "ImportFailed",
    "Imported",
    "Resumed",
    "ServerMessage",
    "Stopped",
    "refuse_in_unguarded_main",
]

_SERVER = "import sys; sys.path[:] = {path!r}; from {package}.forking import main; main({fd})"
_GUARD = "import sys; sys.path.append({root!r}); from {package}.guard import main; main()"
# No site, which may run anything, nor the current directory, which may hold anything.
_BARE = ("-S", "-P")
_ROOT = str(Path(__file__).parents[2])
# Seconds in which the guard of a dead server kills what that has left.
_CLEARING = 1.0


class ForkServer:
    """The one process that forks a pool's workers, seen from the application.

    ``channel`` is readable when `receive` has something; ``pidfd`` when the process has
    ended. On Linux these two are its guard's, which ends after it; ``own_pid`` is that of the
    fork server itself, once it has imported. One thread may receive while others spawn, stop
    or kill.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], channel: socket.socket, allow_pickle: bool
    ) -> None:
        self._process = process
        self._allow_pickle = allow_pickle
        self._sending = threading.Lock()
        self._heard = False
        self.channel = channel
        self.pid = process.pid
        self.pidfd = exit_descriptor(process.pid)
        self.own_pid: int | None = None
        self._own_pidfd = -1

    @classmethod
    def start(cls, plan: ForkPlan, store_fds: Sequence[int] = ()) -> ForkServer:
        """Start the process; returns before it has imported anything.

        ``store_fds`` stay the caller's. Raises ``OSError`` if there can be no process.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = _execute(plan, theirs.fileno())
            server = cls(process, ours, plan.allow_pickle)
        except BaseException:
            ours.close()
            raise
        server._introduce(plan, store_fds)
        return server

    def _introduce(self, plan: ForkPlan, store_fds: Sequence[int]) -> None:
        application = exit_descriptor(os.getpid()) if sys.platform == "linux" else None
        fds = [*store_fds] if application is None else [application, *store_fds]
        try:
            send_frame(self.channel, plan.encode(), fds)
        except OSError:
            pass  # it died already, which its pidfd tells
        finally:
            if application is not None:
                os.close(application)

    def spawn(
        self,
        worker_id: int,
        incarnation: int,
        *,
        channel_fd: int,
        status_fd: int,
        lane_fd: int | None = None,
        socket_path: str,
        token: str,
    ) -> None:
        """Ask for a worker; `Forked` or `ForkRefused` answers, once the adapter is imported.

        The descriptors stay the caller's. Raises ``OSError`` if the server is gone.
        """
        request = SpawnRequest(worker_id, incarnation, socket_path, token)
        fds = [channel_fd, status_fd] + ([] if lane_fd is None else [lane_fd])
        with self._sending:
            send_frame(self.channel, encode_request(request), fds)

    def receive(self) -> ServerMessage | None:
        """The next message, blocking; ``None`` when no more will come."""
        frame = recv_frame(self.channel, max_fds=1)
        if frame is None:
            return None
        self._heard = True
        payload, fds = frame
        fd = fds[0] if fds else None
        message = decode_message(payload, fd, allow_pickle=self._allow_pickle)
        if isinstance(message, Imported):
            self.own_pid, self._own_pidfd = message.pid, message.pidfd
        return message

    def ended(self) -> bool:
        """Whether the fork server has ended, known as soon as the kernel knows.

        So before the ends of its workers are. Its guard then has a moment to end as well.
        """
        if self._own_pidfd >= 0 and _is_readable(self._own_pidfd):
            _is_readable(self.pidfd, _CLEARING)
            return True
        return _is_readable(self.pidfd)

    def resume(self) -> None:
        """Continue the process ``pid`` after a signal that stopped it."""
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Order the server to end: it kills the groups of all its workers and reaps them."""
        try:
            self.channel.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already
        if not self._heard:  # it is importing, and does not listen; its guard does
            self._process.terminate()

    def kill(self) -> None:
        """Kill the server and what its imports started; the kernel then kills its workers.

        What the workers started is left: the groups of known workers are the caller's to kill.
        """
        if self._process.poll() is None:
            kill_group(self.pid)

    def close(self) -> None:
        """Reap the process, killing it if it runs, and close all descriptors."""
        self.kill()
        self._process.wait()
        self.channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self._own_pidfd >= 0:
            os.close(self._own_pidfd)
            self._own_pidfd = -1


def _is_readable(descriptor: int, timeout: float = 0.0) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def _execute(plan: ForkPlan, channel: int) -> subprocess.Popen[bytes]:
    path = [entry or os.getcwd() for entry in sys.path]
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    python = [os.fsdecode(spawn.get_executable()), *flags]
    server = _SERVER.format(path=path, package=__package__, fd=channel)
    command = [*python, "-c", server]
    if ON_LINUX:
        guard = _GUARD.format(root=_ROOT, package=__package__)
        known = [str(os.getpid()), plan.socket_directory]
        command = [*python, *_BARE, "-c", guard, *known, *command]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=[channel],
        env=plan.environment(),
        process_group=0,
    )
