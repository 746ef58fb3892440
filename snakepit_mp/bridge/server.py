"""Where do other processes reach the application? A gRPC server with ``BridgeService``,
the standard health service and server reflection.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ..adapter import ToolSpec
from ..errors import ConfigError
from ..store.session_store import SessionStore
from ..telemetry.life import Life
from . import snakepit_bridge_pb2 as pb
from . import snakepit_bridge_pb2_grpc as pb_grpc
from .health import HealthServicer
from .servicer import BridgeServicer
from .threads import DaemonThreads
from .tool_rpcs import Execute, Stream

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["BridgeServer"]

#: The largest message in either direction, as Snakepit has it.
_LARGEST_MESSAGE = 100 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    ("grpc.max_send_message_length", _LARGEST_MESSAGE),
    ("grpc.so_reuseport", 0),  # a port that is taken is an error
)
#: Tool calls hold a thread each while they wait and run; these are for everything else.
_OTHER_THREADS = 32
_MOST_TOOL_CALLS = 256
_SERVICE = pb.DESCRIPTOR.services_by_name["BridgeService"].full_name
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
#: Bytes that the path of a Unix socket may have, its final NUL not counted.
_LONGEST_SOCKET_PATH = 107


class BridgeServer:
    """The application's gRPC server.

    ``execute`` and ``stream`` run tools, ``tools`` tells which there are. ``address``:
    ``"unix:<path>"``, or a loopback ``"host:port"`` (port 0 takes a free one); `ConfigError`
    for any other, since there is no TLS yet. At most ``most_tool_calls`` of clients run or
    wait at one time; more are answered ``RESOURCE_EXHAUSTED``.
    """

    def __init__(
        self,
        store: SessionStore,
        execute: Execute,
        stream: Stream,
        tools: Callable[[], Mapping[str, ToolSpec]],
        *,
        address: str,
        most_tool_calls: int = _MOST_TOOL_CALLS,
    ) -> None:
        _check(address)
        self._address = address
        self._servicer = BridgeServicer(
            store, execute, stream, tools, most_tool_calls=most_tool_calls
        )
        self._threads = DaemonThreads(most_tool_calls + _OTHER_THREADS, "snakepit_mp-bridge")
        self._running: tuple[grpc.Server, HealthServicer] | None = None
        self._stopping = threading.Lock()
        self._stopped = False
        self.life = Life()
        #: What clients connect to; ``None`` before `start`.
        self.target: str | None = None

    def start(self) -> str:
        """Serve, and return what clients connect to. `ConfigError` if the address is taken."""
        self._running, port = self._serve(self._address)
        host, _, number = self._address.rpartition(":")
        self.target = f"{host}:{port}" if number == "0" else self._address
        return self.target

    def failure(self) -> BaseException | None:
        """Why clients are not served any more; ``None`` while they are, or need not be."""
        with self._stopping:
            if self._stopped or self._running is None:
                return None
            serves = self._running[0].wait_for_termination(timeout=0)  # whether that took too long
        return None if serves else RuntimeError(f"the server at {self.target} has ended")

    def start_again(self) -> None:
        """Serve once more where clients expect it, after a `failure`."""
        with self._stopping:
            if not self._stopped and self.target is not None:
                self._running = None  # gives the address back
                self._running, _ = self._serve(self.target)

    def _serve(self, address: str) -> tuple[tuple[grpc.Server, HealthServicer], int]:
        server = grpc.server(cast("ThreadPoolExecutor", self._threads), options=_OPTIONS)
        health_servicer = HealthServicer((_SERVICE,))
        pb_grpc.add_BridgeServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        names = (_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            server.start()  # gRPC gives back what a server holds only if it has run
            server.stop(None)
            raise ConfigError(f"the bridge cannot listen on {address!r}: {error}") from error
        server.start()
        return (server, health_servicer), port

    def stop(self, grace: float | None = None) -> None:
        """Take no more calls, wait for those in hand, after ``grace`` seconds cut them off.

        ``None`` waits as long as they take. Cutting a call off ends the client's waiting; the
        tool goes on until its own end, or the pool's. A second call does nothing.
        """
        with self._stopping:
            self._stopped = True
            if self._running is None:
                return
            server, health_servicer = self._running
            health_servicer.stop()
            self._servicer.gate.close(grace)
            # What is left are calls over their grace, and streams that never end: those who
            # watch the health, or have asked for reflection.
            server.stop(None)
            self._running = None  # gRPC's descriptors are closed with its objects
            self._threads.shutdown()


def _check(address: str) -> None:
    path = address.removeprefix("unix:")
    if path != address:
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise ConfigError(
                f"the path of the bridge's socket has more than {_LONGEST_SOCKET_PATH} bytes: "
                f"{path!r}"
            )
    elif address.rpartition(":")[0] not in _LOOPBACK:
        raise ConfigError(f"{address!r} is not a loopback address; others need TLS")
