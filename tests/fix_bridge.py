"""A bridge over a real store, with tools that run in the test's own process."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from fix_timeouts import scaled

from snakepit_mp import Adapter, SessionStore, StoreConfig, tool
from snakepit_mp.adapter import methods_of
from snakepit_mp.bridge import snakepit_bridge_pb2_grpc as pb_grpc
from snakepit_mp.bridge.server import BridgeServer
from snakepit_mp.errors import PoolSaturated, RemoteError, ToolNotFound, WorkerDied

__all__ = ["Bridge", "InProcess", "Seen", "bridge", "make_bridge", "status_of"]


class LocalTools(Adapter):
    """What the tests' clients can call."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.closed = threading.Event()

    @tool
    def echo(self, value: Any = None) -> Any:
        """Give it back."""
        return value

    @tool
    def scale(self, value: float, *, by: int = 2) -> float:
        return value * by

    @tool
    def fail(self) -> None:
        raise ValueError("no such luck")

    @tool
    def fail_remotely(self) -> None:
        raise RemoteError("gone", type_name="other.Lost", traceback="File secret.py")

    @tool
    def saturate(self) -> None:
        raise PoolSaturated("the line is full")

    @tool
    def die(self) -> None:
        raise WorkerDied("the worker was killed", signal="SIGKILL")

    @tool
    def unsendable(self) -> Any:
        return object()

    @tool
    def block(self) -> str:
        self.entered.set()
        self.gate.wait(scaled(30))
        return "through"

    @tool
    def count(self, n: int) -> Iterator[Any]:
        yield from range(n)

    @tool
    def mixed(self) -> Iterator[Any]:
        yield {"a": (1, None)}
        yield b"\xff"
        yield np.arange(3000.0)

    @tool
    def fail_later(self) -> Iterator[Any]:
        yield 1
        raise ValueError("half way")

    @tool
    def endless(self) -> Iterator[Any]:
        try:
            while True:
                yield "more"
        finally:
            self.closed.set()


class Seen(NamedTuple):
    """What a tool was called with."""

    name: str
    args: dict[str, Any]
    session_id: str | None
    timeout: float | None


class InProcess:
    """Runs tools as a pool would, without one."""

    def __init__(self) -> None:
        self.adapter = LocalTools()
        self.methods = methods_of(self.adapter)
        self.seen: list[Seen] = []

    def execute(
        self, name: str, args: dict[str, Any], session_id: str | None, timeout: float | None
    ) -> Any:
        self.seen.append(Seen(name, args, session_id, timeout))
        if name not in self.methods:
            raise ToolNotFound(f"no tool {name!r}", name=name)
        spec, method = self.methods[name]
        return method(**spec.bind(kwargs=args))

    def tools(self) -> dict[str, Any]:
        return {name: spec for name, (spec, _) in self.methods.items()}


class Bridge(NamedTuple):
    """A server that runs, and a client of it."""

    server: BridgeServer
    store: SessionStore
    tools: InProcess
    channel: grpc.Channel
    stub: Any


def status_of(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """The status that a call ends with, and what it says."""
    # Not pytest.raises: its record of the error and the error keep each other, and gRPC's
    # descriptors with them, alive.
    try:
        answer = call()
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    pytest.fail(f"no error, but {answer}")


@pytest.fixture
def make_bridge() -> Iterator[Callable[..., Bridge]]:
    """Makes bridges on Unix sockets that end with the test."""
    made: list[Bridge] = []
    with tempfile.TemporaryDirectory(prefix="bridge-") as folder:

        def make(address: str = "", **settings: Any) -> Bridge:
            store = SessionStore(StoreConfig(max_bytes=16 << 20))
            tools = InProcess()
            server = BridgeServer(
                store,
                tools.execute,
                tools.execute,
                tools.tools,
                address=address or f"unix:{folder}/{len(made)}.sock",
                **settings,
            )
            channel = grpc.insecure_channel(server.start())
            made.append(Bridge(server, store, tools, channel, pb_grpc.BridgeServiceStub(channel)))
            return made[-1]

        yield make
        for bridge in made:
            bridge.tools.adapter.gate.set()
            bridge.channel.close()
            bridge.server.stop(0)
            bridge.store.close()


@pytest.fixture
def bridge(make_bridge: Callable[..., Bridge]) -> Bridge:
    """One bridge for one test."""
    return make_bridge()
