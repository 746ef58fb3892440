"""How do frames reach a worker over gRPC? `BridgeService` on the worker's own Unix socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import grpc

from ..bridge import snakepit_bridge_pb2 as pb
from ..bridge.snakepit_bridge_pb2_grpc import BridgeServiceStub
from ..errors import CodecError
from .envelope import Frame, Outbound, whole
from .lane import BegunStream, FrameStream, Lane, LaneBroken, LaneTimeout
from .packets import ITEMS_AHEAD
from .waits import wait_for

__all__ = ["MAX_FRAME", "TOKEN_KEY", "GrpcLane"]

#: The metadata key under which a pool shows its workers that it is theirs.
TOKEN_KEY = "x-snakepit-mp-token"  # noqa: S105 - the key, not the token

#: Bytes of the largest frame: a protobuf message ends at 2 GiB, and needs some for itself.
MAX_FRAME = (1 << 31) - 4096

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # never another worker's connection
    ("grpc.enable_retries", 0),  # a request must not be sent twice
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.default_authority", "localhost"),
)


class GrpcLane(Lane):
    """A channel to one incarnation of one worker.

    ``target``: where it serves, such as ``unix:/run/w1.sock``; ``token``: what it was
    started with. The connection is made by the first call. `close` waits for calls that
    are ending, so it must not be called by a ``done`` of `begin`.
    """

    name: ClassVar[str] = "grpc"

    def __init__(self, target: str, token: str) -> None:
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._stub: Any = BridgeServiceStub(self._channel)
        self._metadata = ((TOKEN_KEY, token),)
        self._lock = threading.Lock()
        self._running: set[Any] = set()
        self._cancelled = False

    def call(self, frame: Outbound, deadline: float | None = None) -> bytes:
        if deadline is not None and deadline <= time.monotonic():
            raise LaneTimeout("the deadline had passed before the call was sent")
        ended = threading.Event()
        rpc = self._start(self._stub.ExecuteTool.future, frame)
        try:
            # Not rpc.result(): it looks ten times a second whether it may go on.
            rpc.add_done_callback(lambda _: ended.set())
            if not wait_for(ended.wait, deadline):
                raise LaneTimeout("no reply before the deadline")
            return _reply_of(rpc)
        finally:
            rpc.cancel()  # without effect after its end
            self._forget(rpc)

    def begin(self, frame: Outbound, done: Callable[[Frame | LaneBroken], None]) -> None:
        try:
            rpc = self._start(self._stub.ExecuteTool.future, frame)
        except LaneBroken as error:
            done(error)
            return
        rpc.add_done_callback(partial(self._hand_over, done))

    def stream(self, frame: Outbound) -> FrameStream:
        start = partial(self._start, self._stub.ExecuteStreamingTool, frame)
        return _GrpcStream(start, self._forget)

    def begin_stream(
        self, frame: Outbound, arrived: Callable[[Frame | LaneBroken], None]
    ) -> BegunStream:
        _check_size(frame)
        return _PumpedStream(self.stream(frame), arrived)

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        for rpc in running:
            rpc.cancel()

    def close(self) -> None:
        self.cancel()
        self._channel.close()

    def _start(self, method: Callable[..., Any], frame: Outbound) -> Any:
        """Send a frame; the RPC is cancelled with the lane from here on."""
        _check_size(frame)
        if self._cancelled:
            raise LaneBroken("the lane was cancelled")
        try:
            rpc = method(pb.ExecuteToolRequest(envelope=whole(frame)), metadata=self._metadata)
        except (grpc.RpcError, ValueError) as error:  # ValueError: the channel is closed
            raise LaneBroken(f"the call cannot be sent: {error}") from error
        with self._lock:
            self._running.add(rpc)
            cancelled = self._cancelled
        if cancelled:  # just now, so that `cancel` missed it
            rpc.cancel()
        return rpc

    def _forget(self, rpc: Any) -> None:
        with self._lock:
            self._running.discard(rpc)

    def _hand_over(self, done: Callable[[Frame | LaneBroken], None], rpc: Any) -> None:
        self._forget(rpc)
        try:
            outcome: Frame | LaneBroken = _reply_of(rpc)
        except LaneBroken as error:
            outcome = error
        done(outcome)


class _GrpcStream(FrameStream):
    """The chunks of a server stream, which begins when the first one is asked for."""

    def __init__(self, start: Callable[[], Any], forget: Callable[[Any], None]) -> None:
        self._start = start
        self._forget = forget
        self._rpc: Any = None
        self._ended = False
        self._closed = False

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        if self._rpc is None and not self._closed:
            self._rpc = self._start()
        if self._closed:  # maybe in that moment, by another thread
            self.close()
            raise LaneBroken("the stream was closed")
        try:
            chunk = next(self._rpc)
        except StopIteration:
            self.close()
            raise LaneBroken("the stream ended without its last frame") from None
        except grpc.RpcError as error:
            self.close()
            raise _broken(self._rpc) from error
        except BaseException:
            self.close()
            raise
        if chunk.is_final:
            self._ended = True
            self.close()
        data: bytes = chunk.data
        return data

    def close(self) -> None:
        self._closed = True
        if self._rpc is not None:
            self._rpc.cancel()  # without effect after its end
            self._forget(self._rpc)


class _PumpedStream(BegunStream):
    """A stream that a thread reads: Python gRPC brings items to nobody."""

    def __init__(self, frames: FrameStream, arrived: Callable[[Frame | LaneBroken], None]) -> None:
        self._frames = frames
        self._arrived = arrived
        self._wanted = threading.Semaphore(ITEMS_AHEAD)
        self._closed = False
        thread = threading.Thread(target=self._pump, name="snakepit_mp-stream", daemon=True)
        thread.start()

    def more(self) -> None:
        self._wanted.release()

    def close(self) -> None:
        self._closed = True
        self._frames.close()
        self._wanted.release()

    def _pump(self) -> None:
        try:
            for frame in self._frames:
                self._wanted.acquire()
                if self._closed:
                    return
                self._arrived(frame)
        except LaneBroken as error:
            if not self._closed:
                self._arrived(error)


def _check_size(frame: Outbound) -> None:
    if len(frame) > MAX_FRAME:
        raise CodecError(
            f"arguments of {len(frame):,} bytes: the gRPC lane carries {MAX_FRAME:,}", path="args"
        )


def _reply_of(rpc: Any) -> bytes:
    """The reply of an RPC that has ended."""
    if rpc.code() is not grpc.StatusCode.OK:
        raise _broken(rpc)
    reply: bytes = rpc.result().envelope
    return reply


def _broken(rpc: Any) -> LaneBroken:
    return LaneBroken(f"{rpc.code().name}: {rpc.details()}")
