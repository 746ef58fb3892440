"""What does a worker serve over gRPC? Execution for its own pool, and health for anyone."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health_pb2_grpc

from ..bridge import snakepit_bridge_pb2 as pb
from ..bridge.health import HealthServicer
from ..errors import CodecError
from ..lanes.envelope import Kind, encode_error, header_of
from ..lanes.grpc import MAX_FRAME, TOKEN_KEY
from .executor import Executor
from .job import Job, JobCancelled, JobRefused

__all__ = ["WorkerServer", "WorkerServicer", "serve"]

_SERVICE = "snakepit.bridge.BridgeService"
#: One call runs at a time; the others answer pings, and end calls that were given up.
_THREADS = 8
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
)


class WorkerServicer:
    """``BridgeService`` as far as a worker has it: frames in, frames out."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server is given; all other methods are ``UNIMPLEMENTED``."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Ping": grpc.unary_unary_rpc_method_handler(
                self.ping,
                request_deserializer=pb.PingRequest.FromString,
                response_serializer=pb.PingResponse.SerializeToString,
            ),
            "ExecuteTool": grpc.unary_unary_rpc_method_handler(
                self.execute,
                request_deserializer=pb.ExecuteToolRequest.FromString,
                response_serializer=pb.ExecuteToolResponse.SerializeToString,
            ),
            "ExecuteStreamingTool": grpc.unary_stream_rpc_method_handler(
                self.stream,
                request_deserializer=pb.ExecuteToolRequest.FromString,
                response_serializer=pb.ToolChunk.SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler(_SERVICE, methods)

    def ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        response = pb.PingResponse(message=request.message)
        response.server_time.GetCurrentTime()
        return response

    def execute(self, request: pb.ExecuteToolRequest, context: Any) -> pb.ExecuteToolResponse:
        job = self._accept(request, context)
        try:
            reply = _fitting(job.result())
        except (JobCancelled, JobRefused) as error:
            _give_up(error, context)
        return pb.ExecuteToolResponse(
            success=header_of(reply).kind is not Kind.ERROR, envelope=reply
        )

    def stream(self, request: pb.ExecuteToolRequest, context: Any) -> Iterator[pb.ToolChunk]:
        job = self._accept(request, context, streaming=True)
        try:
            for number, frame in enumerate(job.frames()):
                reply = _fitting(frame)
                final = header_of(reply).kind is not Kind.ITEM
                yield pb.ToolChunk(chunk_id=str(number), data=reply, is_final=final)
                if final:
                    return
        except (JobCancelled, JobRefused) as error:
            _give_up(error, context)
        finally:
            job.cancel()

    def _accept(
        self, request: pb.ExecuteToolRequest, context: Any, *, streaming: bool = False
    ) -> Job:
        try:
            job = self._executor.submit(request.envelope, streaming=streaming)
        except CodecError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        except JobRefused as error:
            _give_up(error, context)
        if not context.add_callback(job.cancel):
            job.cancel()  # it is over already
        return job


def _fitting(reply: bytes) -> bytes:
    """The reply, or an error where it is too large for the lane."""
    if len(reply) <= MAX_FRAME:
        return reply
    error = CodecError(
        f"a result of {len(reply):,} bytes: the gRPC lane carries {MAX_FRAME:,}", path="result"
    )
    return encode_error(header_of(reply).request_id, error)


def _give_up(error: JobCancelled | JobRefused, context: Any) -> NoReturn:
    if isinstance(error, JobRefused):
        context.abort(grpc.StatusCode.UNAVAILABLE, "the worker is stopping")
    context.abort(grpc.StatusCode.CANCELLED, "the call was cancelled")
    raise error


class _OwnPoolOnly(grpc.ServerInterceptor):
    """Lets calls of `BridgeService` through only with the token; other services are open."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._refusal: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            self._refuse
        )

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        if details.method.startswith(f"/{_SERVICE}/") and not self._is_ours(details):
            return self._refusal
        return continuation(details)

    def _is_ours(self, details: Any) -> bool:
        shown = dict(details.invocation_metadata).get(TOKEN_KEY, "")
        shown = shown if isinstance(shown, bytes) else shown.encode()
        return hmac.compare_digest(shown, self._token)

    @staticmethod
    def _refuse(request: Any, context: Any) -> NoReturn:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "this worker serves its own pool only")
        raise AssertionError("abort raises")


class WorkerServer:
    """A running server. ``target`` is what a `GrpcLane` connects to."""

    def __init__(
        self, server: Any, health: HealthServicer, threads: ThreadPoolExecutor, target: str
    ) -> None:
        self._server = server
        self._health = health
        self._threads = threads
        self.target = target

    def stop(self, grace: float | None = None) -> None:
        """Take no more calls, wait for those in hand, after ``grace`` seconds cancel them.

        A second call does nothing.
        """
        server, self._server = self._server, None  # gRPC frees its descriptors with it
        if server is None:
            return
        self._health.stop()
        server.stop(grace).wait()
        self._threads.shutdown()


def serve(executor: Executor, *, socket_path: str, token: str) -> WorkerServer:
    """Serve an executor on a Unix socket, for those who show ``token``; returns at once.

    `RuntimeError` if the socket cannot be bound.
    """
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="snakepit_mp-grpc")
    server = grpc.server(threads, interceptors=[_OwnPoolOnly(token)], options=_OPTIONS)
    server.add_generic_rpc_handlers((WorkerServicer(executor).handler(),))
    health = HealthServicer([_SERVICE])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    target = f"unix:{socket_path}"
    try:
        server.add_insecure_port(target)
    except RuntimeError:
        server.start()  # only a server that ran frees its descriptors
        server.stop(None).wait()
        raise
    server.start()
    return WorkerServer(server, health, threads, target)
