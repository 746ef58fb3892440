"""What do the RPCs on tools do? They run them through the pool, as everybody else does."""

# ruff: noqa: N802 - the protocol names the methods

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, closing
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import grpc

from ..errors import (
    CodecError,
    InvalidArguments,
    RemoteError,
    SnakepitError,
    TaskTimeout,
    ToolNotFound,
)
from ..telemetry.logs import logger
from ..telemetry.trace import TraceContext, trace_context
from . import convert
from . import snakepit_bridge_pb2 as pb
from .announced import AnnouncedTools
from .rpc import RpcGate, ToolCalls, rpc, wants_lossless
from .status import details, shown, text_of

__all__ = ["Execute", "Stream", "ToolRpcs"]

#: gRPC tells a far-away moment where the client has set no deadline.
_NO_DEADLINE = 10 * 365 * 86_400.0


class Execute(Protocol):
    """Runs a tool and returns its value. ``timeout`` in seconds."""

    def __call__(
        self, name: str, args: dict[str, Any], session_id: str | None, timeout: float | None, /
    ) -> Any: ...


class Stream(Protocol):
    """Runs a streaming tool; the iterator's ``close`` ends it.

    ``timeout``, in seconds, is for each item.
    """

    def __call__(
        self, name: str, args: dict[str, Any], session_id: str | None, timeout: float | None, /
    ) -> Iterator[Any]: ...


class ToolRpcs:
    """The tool RPCs of ``BridgeService``."""

    gate: RpcGate
    _execute: Execute
    _stream: Stream
    _announced: AnnouncedTools
    _calls: ToolCalls

    @rpc
    def ExecuteTool(self, request: pb.ExecuteToolRequest, context: Any) -> pb.ExecuteToolResponse:
        call = _Call.read(request, context)
        started = time.monotonic()
        try:
            with self._calls.running(call.session_id), _trace_of(context):
                value = _run(lambda: self._execute(*call.arguments))
            result = _encoded(value, lossless=call.lossless)
            response = pb.ExecuteToolResponse(
                success=True, result=result.any, binary_result=result.binary
            )
        except _ToolFailed as failure:
            response = pb.ExecuteToolResponse(success=False, error_message=str(failure))
        response.execution_time_ms = round((time.monotonic() - started) * 1000)
        return response

    @rpc
    def ExecuteStreamingTool(
        self, request: pb.ExecuteToolRequest, context: Any
    ) -> Iterator[pb.ToolChunk]:
        call = _Call.read(request, context)
        number = 0
        try:
            with _trace_of(context):
                stream = self._stream(*call.arguments)
            for item in self._items(call, stream):
                data = _encoded(item, lossless=call.lossless, sibling=False).any
                metadata = {"type_url": data.type_url}
                yield pb.ToolChunk(chunk_id=str(number), data=data.value, metadata=metadata)
                number += 1
        except _ToolFailed as failure:
            # A chunk has no room for it.
            context.abort(grpc.StatusCode.UNKNOWN, details(str(failure)))
        yield pb.ToolChunk(chunk_id=str(number), is_final=True)

    def _items(self, call: _Call, stream: Iterator[Any]) -> Iterator[Any]:
        """What a streaming tool gives; the call ends when nobody asks for more."""
        with (
            self._calls.running(call.session_id),
            closing(cast("Any", stream)) as items,
        ):
            while (item := _run(lambda: next(items, _END))) is not _END:
                yield item

    @rpc
    def RegisterTools(
        self, request: pb.RegisterToolsRequest, context: Any
    ) -> pb.RegisterToolsResponse:
        ids = self._announced.add(request.session_id, request.tools, request.worker_id)
        return pb.RegisterToolsResponse(success=True, tool_ids=ids)

    @rpc
    def GetExposedElixirTools(
        self, request: pb.GetExposedElixirToolsRequest, context: Any
    ) -> pb.GetExposedElixirToolsResponse:
        return pb.GetExposedElixirToolsResponse()

    @rpc
    def ExecuteElixirTool(
        self, request: pb.ExecuteElixirToolRequest, context: Any
    ) -> pb.ExecuteElixirToolResponse:
        raise ToolNotFound(
            f"the application itself has no tool {request.tool_name!r}; those of its workers are "
            "called by ExecuteTool",
            name=request.tool_name,
        )


class _ToolFailed(Exception):
    """The tool itself raised, or returned what cannot be sent; the text is for the client."""


_T = TypeVar("_T")
_END = object()


def _run(step: Callable[[], _T]) -> _T:
    """What a tool gives; `_ToolFailed` for exceptions of its own, without their traceback."""
    try:
        return step()
    except Exception as error:
        refused = isinstance(error, (SnakepitError, CancelledError))
        if refused and not isinstance(error, RemoteError):
            raise
        # Paths and source lines are the application's own business, so they stay here.
        logger.debug("a tool called by a client raised", exc_info=error)
        raise _ToolFailed(shown(text_of(error))) from error


def _encoded(value: Any, *, lossless: bool, sibling: bool = True) -> convert.Encoded:
    try:
        return convert.encode(value, lossless=lossless, sibling=sibling)
    except CodecError as error:
        raise _ToolFailed(f"the result cannot be sent: {error}") from error


class _Call(NamedTuple):
    """A request, understood. ``arguments`` are those of `Execute` and `Stream`."""

    arguments: tuple[str, dict[str, Any], str | None, float | None]
    lossless: bool

    @property
    def session_id(self) -> str | None:
        return self.arguments[2]

    @classmethod
    def read(cls, request: pb.ExecuteToolRequest, context: Any) -> _Call:
        """Raises `CodecError`, `InvalidArguments`, `TaskTimeout`."""
        if request.envelope:
            raise InvalidArguments("envelope is for a pool and its own workers only")
        session_id = request.session_id or None
        arguments = (request.tool_name, _arguments(request), session_id, _timeout(context))
        sent = any(map(convert.is_lossless, request.parameters.values()))
        return cls(arguments, lossless=sent or wants_lossless(context))


def _trace_of(context: Any) -> AbstractContextManager[TraceContext | None]:
    """The trace to which the client says that its call belongs."""
    metadata = dict(context.invocation_metadata())
    return trace_context(metadata.get("traceparent"), metadata.get("tracestate", ""))


def _arguments(request: pb.ExecuteToolRequest) -> dict[str, Any]:
    """The arguments by name. Bytes that have no message beside them are just bytes."""
    given = {
        name: convert.decode(
            message, request.binary_parameters.get(name, b""), what=f"parameters[{name!r}]"
        )
        for name, message in request.parameters.items()
    }
    for name, data in request.binary_parameters.items():
        if name not in given:
            given[name] = _raw_bytes(name, data, request.metadata)
    return given


def _raw_bytes(name: str, data: bytes, metadata: Mapping[str, str]) -> bytes:
    form = metadata.get(f"binary_format:{name}", "raw")
    if form == "raw":
        return data
    what = f"binary_parameters[{name!r}]"
    raise CodecError(f"{what} has the binary_format {form!r}; only raw bytes are taken", path=what)


def _timeout(context: Any) -> float | None:
    """Seconds until the client's deadline, ``None`` if it has none."""
    left = context.time_remaining()
    if left is None or left > _NO_DEADLINE:
        return None
    if left <= 0:
        raise TaskTimeout("the deadline had passed before the call was read", timeout=0.0)
    return float(left)
