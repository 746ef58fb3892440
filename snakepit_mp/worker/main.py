"""What does a worker do from its fork to its end? It starts, serves, and leaves."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..adapter import Adapter, tools_of
from ..errors import ConfigError
from ..lanes.blackbox import BlackBox
from ..lanes.envelope import encode_error
from ..lanes.frames import recv_frame, send_frame
from ..lanes.mailbox import workers_mailbox_of, works_here
from ..lanes.status import INTERRUPT_SIGNAL, StatusPage
from ..session import SessionContext
from ..telemetry.logs import logger
from ..values import codec
from .boot import WorkerBoot
from .descent import OnlyThisProcess
from .executor import ContextFactory, Executor
from .logs import ForwardingHandler
from .mailbox_inbox import MailboxInbox
from .socket_inbox import SocketInbox
from .stderr import keep_stderr

if TYPE_CHECKING:
    from .servicer import WorkerServer

__all__ = ["run"]

#: Seconds that the last reply may take to leave, after its tool has returned.
_FAREWELL = 1.0


def run(boot: WorkerBoot) -> int:
    """Be a worker, in the main thread, until told to stop; the process's exit code.

    Tells the application on ``boot.channel``: ``tools`` (where the adapter is imported
    here), ``started`` after `Adapter.start`, ``ready`` if calls come over a socket, ``serving``
    with the gRPC target, or ``failed``. Obeys ``stop``; ends at once when the channel is closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the application's business
    status = StatusPage.attach(boot.status_fd)
    status.begin(boot.incarnation)
    box = BlackBox(boot.status_fd)
    box.catch_fatal_signals()
    keep_stderr(box)
    running: list[Executor] = []
    serving = _Serving(boot)
    _forward_logs(boot, lambda: running[0].current if running else (None, None))
    try:
        try:
            adapter, executor = _start(boot, status)
            running.append(executor)
            if boot.lane is None:
                serving.start(executor)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the application is told
            failure = encode_error(0, error, allow_pickle=boot.allow_pickle)
            _tell(boot.channel, {"event": "failed", "error": failure})
            return 1
        if boot.lane is not None:
            _tell(boot.channel, {"event": "ready"})
            serving.start_apart(executor)
    except ConnectionError:
        return 1  # the application is gone
    executor.run()
    serving.stop()
    if adapter is not None:
        adapter.stop()
    return 0


class _Serving:
    """The worker's gRPC server, from whenever it was started."""

    def __init__(self, boot: WorkerBoot) -> None:
        self._boot = boot
        self._server: WorkerServer | None = None
        self._starting: threading.Thread | None = None

    def start(self, executor: Executor) -> None:
        """Serve, and tell where; calls may come by it."""
        with _without_interrupts():
            from .servicer import serve  # workers without gRPC do without

            boot = self._boot
            self._server = serve(executor, socket_path=boot.socket_path, token=boot.token)
        _tell(boot.channel, {"event": "serving", "target": self._server.target})

    def start_apart(self, executor: Executor) -> None:
        """The same in a thread, since calls come another way, and need not wait for it."""
        if self._boot.grpc:
            starter = threading.Thread(
                target=self._try, args=(executor,), name="snakepit_mp-serving", daemon=True
            )
            with _without_interrupts():
                starter.start()
            self._starting = starter

    def _try(self, executor: Executor) -> None:
        try:
            self.start(executor)
        except ConnectionError:
            pass  # the application is gone
        except (ImportError, OSError, RuntimeError):  # its pool does not need it
            logger.exception("the worker's gRPC server cannot start")

    def stop(self) -> None:
        if self._starting is not None:
            self._starting.join()
        if self._server is not None:
            self._server.stop(_FAREWELL)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Threads that begin in this block leave the signal to the main thread."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {INTERRUPT_SIGNAL})
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {INTERRUPT_SIGNAL})


def _start(boot: WorkerBoot, status: StatusPage) -> tuple[Adapter | None, Executor]:
    cls = boot.adapter
    if boot.load_adapter is not None:
        cls = boot.load_adapter()
        tools = {} if cls is None else {n: spec.to_dict() for n, spec in tools_of(cls).items()}
        _tell(boot.channel, {"event": "tools", "tools": tools})
    adapter = None
    if cls is not None:
        with OnlyThisProcess():
            adapter = cls()
            adapter.start()
    _tell(boot.channel, {"event": "started"})
    executor = Executor(
        adapter,
        status,
        context=_contexts_of(boot),
        on_session=lambda session_id: _note_session(boot, session_id),
        on_abandoned=lambda number, attempt: _tell(
            boot.channel, {"event": "released", "request_id": number, "attempt": attempt}
        ),
        allow_pickle=boot.allow_pickle,
        inbox=_inbox_of(boot, status),
    )
    executor.interrupts.listen()
    with _without_interrupts():
        # No earlier: an adapter's start may fork, which is best done without threads.
        threading.Thread(
            target=_listen, args=(boot.channel, executor), name="snakepit_mp-listener", daemon=True
        ).start()
    return adapter, executor


def _inbox_of(boot: WorkerBoot, status: StatusPage) -> SocketInbox | None:
    if boot.lane is None:
        return None
    if boot.mailbox:
        if not works_here():
            raise ConfigError(
                "the application uses lane='mailbox', but its workers have no compiled part: "
                "look for SNAKEPIT_MP_IMPL in PoolConfig.env, or set lane='socket'"
            )
        return MailboxInbox(boot.lane, workers_mailbox_of(status.fd, boot.spin))
    return SocketInbox(boot.lane, status.worker_is_on)


def _forward_logs(boot: WorkerBoot, current: Callable[[], tuple[int | None, str | None]]) -> None:
    root = logging.getLogger()
    root.setLevel(min(root.level or boot.log_level, boot.log_level))
    root.addHandler(ForwardingHandler(lambda event: _tell(boot.channel, event), current))


def _contexts_of(boot: WorkerBoot) -> ContextFactory:
    def context(
        session_id: str | None, attempt: int, deadline: float | None, cancelled: Callable[[], bool]
    ) -> SessionContext:
        return SessionContext(
            boot.store, session_id, attempt=attempt, deadline=deadline, cancelled=cancelled
        )

    return context


def _note_session(boot: WorkerBoot, session_id: str) -> None:
    if boot.store is not None:
        boot.store.note_worker(session_id, boot.worker_id)


def _listen(channel: socket.socket, executor: Executor) -> None:
    """Obey the application; leave without a word when it is gone."""
    try:
        while (frame := recv_frame(channel)) is not None:
            command = codec.decode(frame[0])["command"]
            if command == "stop":
                executor.stop()
            elif command == "ping":
                _tell(channel, {"event": "pong"})
        os._exit(0)
    except ConnectionError:
        os._exit(0)  # the application is gone
    except BaseException:  # noqa: BLE001 - a worker that is deaf is better dead
        traceback.print_exc()
    finally:
        os._exit(1)


# The listener and the main thread both tell.
_telling = threading.Lock()


def _tell(channel: socket.socket, event: dict[str, Any]) -> None:
    with _telling:
        send_frame(channel, codec.encode(event))
