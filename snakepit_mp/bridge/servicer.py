"""What does the application serve? ``BridgeService``, put together from its parts."""

# ruff: noqa: N802 - the protocol names the methods

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import grpc

from ..adapter import ToolSpec
from ..store.session_store import SessionStore
from . import snakepit_bridge_pb2 as pb
from . import snakepit_bridge_pb2_grpc as pb_grpc
from .announced import AnnouncedTools
from .rpc import RpcGate, ToolCalls
from .session_rpcs import SessionRpcs
from .tool_rpcs import Execute, Stream, ToolRpcs
from .variable_rpcs import VariableRpcs

__all__ = ["BridgeServicer"]


class BridgeServicer(SessionRpcs, VariableRpcs, ToolRpcs, pb_grpc.BridgeServiceServicer):
    """Sessions and variables from the store, tools through whoever executes them.

    ``tools`` tells which there are, ``most_tool_calls`` how many may run at one time.
    """

    def __init__(
        self,
        store: SessionStore,
        execute: Execute,
        stream: Stream,
        tools: Callable[[], Mapping[str, ToolSpec]],
        *,
        most_tool_calls: int,
    ) -> None:
        self.gate = RpcGate()
        self._store = store
        self._execute = execute
        self._stream = stream
        self._tools = tools
        self._announced = AnnouncedTools(store)
        self._calls = ToolCalls(most_tool_calls)

    # Not yet. The generated answers would write a traceback to the log each time.

    def WatchVariables(
        self, request: pb.WatchVariablesRequest, context: Any
    ) -> Iterator[pb.VariableUpdate]:
        _not_yet(context)

    def AddDependency(
        self, request: pb.AddDependencyRequest, context: Any
    ) -> pb.AddDependencyResponse:
        _not_yet(context)

    def StartOptimization(
        self, request: pb.StartOptimizationRequest, context: Any
    ) -> pb.StartOptimizationResponse:
        _not_yet(context)

    def StopOptimization(
        self, request: pb.StopOptimizationRequest, context: Any
    ) -> pb.StopOptimizationResponse:
        _not_yet(context)

    def GetVariableHistory(
        self, request: pb.GetVariableHistoryRequest, context: Any
    ) -> pb.GetVariableHistoryResponse:
        _not_yet(context)

    def RollbackVariable(
        self, request: pb.RollbackVariableRequest, context: Any
    ) -> pb.RollbackVariableResponse:
        _not_yet(context)


def _not_yet(context: Any) -> NoReturn:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "this RPC is not implemented yet")
    raise AssertionError("abort raises")
