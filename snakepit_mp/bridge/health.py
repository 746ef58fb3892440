"""Is a server healthy? The standard health service, ``grpc.health.v1.Health``.

The servicer that comes with gRPC sends to watchers while it holds a lock that the server's
own thread needs when a watcher leaves: a watcher that comes while another one goes can stop
the whole server. This one sends outside its lock, and a watcher holds no thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = ["HealthServicer"]

_Status = health_pb2.HealthCheckResponse
_Send = Callable[[Any], None]


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Tells of each of ``services``, and of the server as a whole (``""``), that it serves."""

    def __init__(self, services: Iterable[str] = ()) -> None:
        self._services = {"", *services}
        self._lock = threading.Lock()
        self._status: Any = _Status.SERVING
        self._watchers: set[_Send] = set()

    def stop(self) -> None:
        """From here on nothing serves any more; those who watch are told, and let go."""
        with self._lock:
            self._status = _Status.NOT_SERVING
            watchers = tuple(self._watchers)
        for send in watchers:
            send(_Status(status=_Status.NOT_SERVING))
            send(None)

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.service not in self._services:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no service named {request.service!r}")
        return _Status(status=self._status)

    def Watch(self, request: Any, context: Any, send: _Send) -> None:  # type: ignore[override]  # noqa: N802
        """Tell the status now and when it changes; the call stays open without a thread."""
        if request.service not in self._services:
            send(_Status(status=_Status.SERVICE_UNKNOWN))
            return
        send(_Status(status=self._status))
        with self._lock:
            stopped = self._status != _Status.SERVING
            if not stopped:
                self._watchers.add(send)
        if stopped:
            send(_Status(status=_Status.NOT_SERVING))
            send(None)
        elif not context.add_callback(lambda: self._forget(send)):
            self._forget(send)  # it has left already

    # How gRPC is asked to hand over a way to send instead of wanting an iterator.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]

    def _forget(self, send: _Send) -> None:
        with self._lock:
            self._watchers.discard(send)
