"""Fork servers for tests, without a pool: the test plays the application."""

from __future__ import annotations

import itertools
import os
import select
import socket
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fix_timeouts import scaled

from snakepit_mp.config import PoolConfig, StoreConfig
from snakepit_mp.lanes import envelope
from snakepit_mp.lanes.frames import recv_frame, send_frame
from snakepit_mp.lanes.status import StatusPage
from snakepit_mp.runtime.cleanup import SocketDirectory
from snakepit_mp.runtime.forkserver import Exited, Forked, ForkPlan, ForkServer, Imported
from snakepit_mp.store.session_store import SessionStore
from snakepit_mp.values import codec

__all__ = ["Application", "Spawned", "application", "make_module", "wait_readable"]

_M = TypeVar("_M")
_PATIENCE = 20.0
_numbers = itertools.count()


def wait_readable(descriptor: int, seconds: float = _PATIENCE) -> bool:
    """Wait until the descriptor is readable; a pidfd is when its process has ended."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(scaled(seconds) * 1000))


@dataclass
class Spawned:
    """A worker, as the application sees it."""

    worker_id: int
    channel: socket.socket
    status: StatusPage
    socket_path: str
    token: str = "secret"
    pid: int = 0
    pidfd: int = -1

    def next_event(self) -> dict[str, Any] | None:
        """What the worker tells next; ``None`` after its last word."""
        frame = recv_frame(self.channel)
        return None if frame is None else codec.decode(frame[0])

    def event(self, name: str) -> dict[str, Any]:
        """The next event, which must have this name."""
        event = self.next_event()
        assert event is not None, f"the worker ended; awaited was {name!r}"
        if event["event"] == "failed" != name:
            raise envelope.decode_reply(event["error"], allow_pickle=True).error
        assert event["event"] == name, event
        return event

    def serve(self) -> str:
        """Wait until it serves; the target."""
        self.event("started")
        return self.event("serving")["target"]

    def order_stop(self) -> None:
        send_frame(self.channel, codec.encode({"command": "stop"}))

    def close(self) -> None:
        self.channel.close()
        self.status.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)


@dataclass
class Application:
    """The application's side: a store, a directory, a fork server and what it was asked for."""

    store: SessionStore
    directory: SocketDirectory
    server: ForkServer = None  # type: ignore[assignment]
    spawned: list[Spawned] = field(default_factory=list)

    def start(self, adapter: Any = None, **settings: Any) -> ForkServer:
        """Start a server and return at once."""
        plan = ForkPlan.make(adapter, PoolConfig(store=self.store, **settings))
        plan = plan.with_directory(self.directory.path)
        self.server = ForkServer.start(plan, self.store.descriptors())
        self.server.channel.settimeout(scaled(_PATIENCE))
        return self.server

    def start_imported(self, adapter: Any = None, **settings: Any) -> Imported:
        """Start a server and wait until it has imported."""
        self.start(adapter, **settings)
        return self.receive(Imported)

    def receive(self, kind: type[_M]) -> _M:
        """The server's next message, which must be of this kind."""
        message = self.server.receive()
        if not isinstance(message, kind):
            raise AssertionError(f"not {kind.__name__}: {message!r}") from getattr(
                message, "error", None
            )
        return message

    def request(self, worker_id: int = 0, incarnation: int = 0) -> Spawned:
        """Ask for a worker; the answer is still to be received."""
        ours, theirs = socket.socketpair()
        ours.settimeout(scaled(_PATIENCE))
        path = self.directory.socket_path(worker_id, incarnation)
        spawned = Spawned(worker_id, ours, StatusPage.create(), path)
        self.spawned.append(spawned)
        with theirs:
            self.server.spawn(
                worker_id,
                incarnation,
                channel_fd=theirs.fileno(),
                status_fd=spawned.status.fd,
                socket_path=path,
                token=spawned.token,
            )
        return spawned

    def answered(self, spawned: Spawned) -> Spawned:
        """Receive the `Forked` for a worker."""
        forked = self.receive(Forked)
        assert forked.worker_id == spawned.worker_id
        spawned.pid, spawned.pidfd = forked.pid, forked.pidfd
        return spawned

    def spawn(self, worker_id: int = 0, incarnation: int = 0) -> Spawned:
        """Have a worker forked."""
        return self.answered(self.request(worker_id, incarnation))

    def exited(self, spawned: Spawned) -> tuple[int | None, str | None]:
        """Receive the `Exited` of a worker; its exit code and signal."""
        message = self.receive(Exited)
        assert (message.worker_id, message.pid) == (spawned.worker_id, spawned.pid)
        return message.exit_code, message.signal

    def close(self) -> None:
        if self.server is not None:
            self.server.stop()
            if self.server.pidfd >= 0:
                wait_readable(self.server.pidfd)
            self.server.close()
        for spawned in self.spawned:
            spawned.close()
        self.directory.remove()
        self.store.close()


@pytest.fixture
def application() -> Iterator[Application]:
    store = SessionStore(StoreConfig(max_bytes=1 << 22))
    application = Application(store, SocketDirectory.create())
    yield application
    application.close()


@pytest.fixture
def make_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module that fork servers can import; returns its name, new each time."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(source: str) -> str:
        name = f"made_{os.getpid()}_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        return name

    return make
