"""What does a worker do from its fork to its end? It starts, serves, and leaves."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any

from ..adapter import Adapter, tools_of
from ..lanes.blackbox import BlackBox
from ..lanes.envelope import encode_error
from ..lanes.frames import recv_frame, send_frame
from ..lanes.status import INTERRUPT_SIGNAL, StatusPage
from ..session import SessionContext
from ..values import codec
from .boot import WorkerBoot
from .descent import OnlyThisProcess
from .executor import ContextFactory, Executor
from .logs import ForwardingHandler
from .servicer import WorkerServer, serve
from .stderr import keep_stderr

__all__ = ["run"]

#: Seconds that the last reply may take to leave, after its tool has returned.
_FAREWELL = 1.0


def run(boot: WorkerBoot) -> int:
    """Be a worker, in the main thread, until told to stop; the process's exit code.

    Tells the application on ``boot.channel``: ``tools`` (where the adapter is imported
    here), ``started`` after `Adapter.start`, ``serving`` with the gRPC target, or
    ``failed``. Obeys ``stop``; ends at once when the channel is closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the application's business
    status = StatusPage.attach(boot.status_fd)
    status.begin(boot.incarnation)
    box = BlackBox(boot.status_fd)
    box.catch_fatal_signals()
    keep_stderr(box)
    running: list[Executor] = []
    _forward_logs(boot, lambda: running[0].current if running else (None, None))
    try:
        try:
            adapter, executor, server = _start(boot, status)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the application is told
            failure = encode_error(0, error, allow_pickle=boot.allow_pickle)
            _tell(boot.channel, {"event": "failed", "error": failure})
            return 1
        running.append(executor)
        _tell(boot.channel, {"event": "serving", "target": server.target})
    except ConnectionError:
        return 1  # the application is gone
    executor.run()
    server.stop(_FAREWELL)
    if adapter is not None:
        adapter.stop()
    return 0


def _start(boot: WorkerBoot, status: StatusPage) -> tuple[Adapter | None, Executor, WorkerServer]:
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
    )
    executor.interrupts.listen()
    # Threads that begin here leave the signal to the main thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, {INTERRUPT_SIGNAL})
    try:
        # No earlier: an adapter's start may fork, which is best done without threads.
        threading.Thread(
            target=_listen, args=(boot.channel, executor), name="snakepit_mp-listener", daemon=True
        ).start()
        server = serve(executor, socket_path=boot.socket_path, token=boot.token)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {INTERRUPT_SIGNAL})
    return adapter, executor, server


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
