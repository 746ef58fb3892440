"""What runs in the fork server? One thread that imports once, then forks, reaps and reports.

`main` is the whole life of the process: take the plan, import, serve, and, when the
application has ended or let go, leave no process behind.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
from collections import deque

from ..adapter import tools_of
from ..errors import WorkerStartError
from ..lanes.frames import recv_frame, send_frame
from ..store.session_store import SessionStore
from ..worker.descent import flush_output
from ..worker.stderr import copy_stderr
from . import kernel
from .child import Heritage, become, become_worker
from .cleanup import kill_group, remove_if_abandoned
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
    decode_request,
    encode_message,
)
from .oom import OomKills
from .plan import ForkPlan
from .preparation import import_adapter, settle
from .threads import ThreadBlame, refuse_threads

__all__ = ["main"]

_MAX_PLAN_FDS = 16
# The application has closed its end; told apart from data that is still unread.
_CLOSED = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


def main(channel_fd: int) -> None:
    """Be the fork server at the other end of ``channel_fd``; does not return."""
    become(lambda: _live(socket.socket(fileno=channel_fd)))


def _live(channel: socket.socket) -> int:
    # The first two may have been inherited from the application in an unusual state.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the application's business
    kernel.become_subreaper()
    introduction = recv_frame(channel, max_fds=_MAX_PLAN_FDS)
    if introduction is None:
        return 0
    payload, fds = introduction
    application = fds.pop(0) if kernel.ON_LINUX else kernel.exit_descriptor(os.getppid())
    plan = ForkPlan.decode(payload)
    server = _Server(channel, application, plan, fds)
    try:
        if not server.prepare():
            return 1
        server.serve()
        return 0
    finally:
        server.end()


class _Server:
    """The state of the process: its plan, its workers, and what it could not send yet."""

    def __init__(
        self, channel: socket.socket, application: int, plan: ForkPlan, store_fds: list[int]
    ) -> None:
        self._channel = channel
        self._application = application
        self._wakeup, self._wakeup_sender = socket.socketpair()
        self._plan = plan
        self._store_fds = store_fds
        self._heritage: Heritage | None = None
        self._workers: dict[int, SpawnRequest] = {}
        self._oom_kills = OomKills()
        self._outbox: deque[tuple[bytes, list[int]]] = deque()

    # -- importing ---------------------------------------------------------------------

    def prepare(self) -> bool:
        """Import the user's code and tell the outcome: whether workers can be forked."""
        message: ServerMessage
        try:
            message = self._import()
        except BaseException as error:  # noqa: BLE001 - the user's modules may raise anything
            message = ImportFailed(error)
        self._send(message)
        return isinstance(message, Imported)

    def _import(self) -> Imported:
        copy_stderr()
        adapter = tools = None
        store = SessionStore.attach(self._store_fds, self._plan.store)
        with ThreadBlame() as blame:
            settle(self._plan)
            if self._plan.grpc:
                importlib.import_module("..worker.servicer", __package__)  # once for all workers
            if self._plan.import_in == "server":
                adapter = import_adapter(self._plan)
                tools = {} if adapter is None else tools_of(adapter)
        refuse_threads(blame)
        flush_output()
        self._heritage = Heritage(
            os.getpid(), self._disown, self._plan, store, adapter, collect=gc.isenabled()
        )
        # A collection here would write to, and so copy, what is shared with workers.
        gc.disable()
        gc.collect()
        gc.freeze()
        pid = os.getpid()
        return Imported(tools, pid, kernel.exit_descriptor(pid))

    # -- serving -----------------------------------------------------------------------

    def serve(self) -> None:
        """Fork, reap and report, until the application has ended or closed the channel."""
        self._wake_on_signals()
        channel, wakeup = self._channel.fileno(), self._wakeup.fileno()
        poller = select.poll()
        poller.register(self._application, select.POLLIN)
        poller.register(wakeup, select.POLLIN)
        while True:
            unsent = select.POLLOUT if self._outbox else 0
            poller.register(channel, select.POLLIN | _CLOSED | unsent)
            ready = dict(poller.poll())
            if self._application in ready or ready.get(channel, 0) & _CLOSED:
                return
            if wakeup in ready:
                if signal.SIGCONT in self._wakeup.recv(4096):
                    self._send(Resumed())
                self._notice_exits()
                self._notice_stops()
            if ready.get(channel, 0) & select.POLLIN and not self._serve_request():
                return
            self._flush()

    def _wake_on_signals(self) -> None:
        for end in (self._wakeup, self._wakeup_sender):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_sender.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGCONT):
            signal.signal(number, lambda *_: None)  # without a handler nothing is written

    def _serve_request(self) -> bool:
        """Take one request; false if there will be no more."""
        frame = recv_frame(self._channel, max_fds=3)
        if frame is None:
            return False
        payload, fds = frame
        request = decode_request(payload)
        try:
            self._fork(request, *fds)
        except (OSError, WorkerStartError) as error:
            self._send(ForkRefused(request.worker_id, request.incarnation, error))
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _fork(self, request: SpawnRequest, *fds: int) -> None:
        assert self._heritage is not None
        refuse_threads()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                become_worker(self._heritage, request, *fds)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setpgid(pid, pid)
        try:
            pidfd = kernel.exit_descriptor(pid)
        except OSError:
            kill_group(pid)  # there is no descriptor left: nobody could notice its end
            raise
        self._workers[pid] = request
        self._send(Forked(request.worker_id, request.incarnation, pid, pidfd))

    def _disown(self) -> None:
        """In a forked worker: close what is this process's alone."""
        self._channel.close()
        self._wakeup.close()
        self._wakeup_sender.close()
        os.close(self._application)
        while self._outbox:
            _close(self._outbox.popleft()[1])

    def _notice_exits(self) -> None:
        while self._reap():
            pass

    def _reap(self, *, wait: bool = False) -> bool:
        """Reap one child, a worker or an adopted one; false if there was none."""
        ended = kernel.reap(self._kill_group_of, wait=wait)
        if ended is None:
            return False
        pid, status, peak_rss = ended
        request = self._workers.pop(pid, None)
        if request is not None:
            code = os.waitstatus_to_exitcode(status)
            self._send(
                Exited(
                    request.worker_id,
                    request.incarnation,
                    pid,
                    exit_code=code if code >= 0 else None,
                    signal=kernel.signal_name(-code) if code < 0 else None,
                    oom=code == -signal.SIGKILL and self._oom_kills.happened(),
                    peak_rss=peak_rss,
                )
            )
        return True

    def _kill_group_of(self, pid: int) -> None:
        if pid in self._workers:
            kill_group(pid)

    def _notice_stops(self) -> None:
        for pid, stopped in kernel.stops():
            request = self._workers.get(pid)
            if request is not None:
                self._send(Stopped(request.worker_id, request.incarnation, pid, stopped))

    # -- telling -----------------------------------------------------------------------

    def _send(self, message: ServerMessage) -> None:
        payload = encode_message(message, allow_pickle=self._plan.allow_pickle)
        fds = [message.pidfd] if isinstance(message, (Imported, Forked)) else []
        self._outbox.append((payload, fds))
        self._flush()

    def _flush(self) -> None:
        """Send what the channel takes without blocking, since the application may be stopped,
        or busy sending us requests itself."""
        writable = select.poll()
        writable.register(self._channel, select.POLLOUT)
        while self._outbox and writable.poll(0):
            payload, fds = self._outbox.popleft()
            try:
                send_frame(self._channel, payload, fds if kernel.ON_LINUX else ())
            except ConnectionError:
                pass  # the application is gone, or reads no more; the poll in `serve` tells
            finally:
                _close(fds)

    # -- ending ------------------------------------------------------------------------

    def end(self) -> None:
        """Leave no process and, if the application is dead, no file behind."""
        for pid in self._workers:
            kill_group(pid)
        while True:
            # Killing a child may give us its children, which come before its own exit.
            for pid in kernel.children():
                kernel.kill_family(pid)
            if not self._reap(wait=True):
                break
        self._flush()
        remove_if_abandoned(self._plan.socket_directory)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
