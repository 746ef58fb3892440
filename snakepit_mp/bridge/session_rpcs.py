"""What do the RPCs on whole sessions do? Ping, create, show, keep alive, delete."""

# ruff: noqa: N802 - the protocol names the methods

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from ..adapter import ToolSpec
from ..errors import InvalidArguments, SessionNotFound
from ..store.records import SessionInfo
from ..store.session_store import SessionStore
from . import messages
from . import snakepit_bridge_pb2 as pb
from .announced import AnnouncedTools
from .rpc import RpcGate, ToolCalls, rpc, wants_lossless

__all__ = ["SessionRpcs"]


class SessionRpcs:
    """The session RPCs of ``BridgeService``."""

    gate: RpcGate
    _store: SessionStore
    _tools: Callable[[], Mapping[str, ToolSpec]]
    _announced: AnnouncedTools
    _calls: ToolCalls

    @rpc
    def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        return pb.PingResponse(message=request.message, server_time=messages.timestamp(time.time()))

    @rpc
    def InitializeSession(
        self, request: pb.InitializeSessionRequest, context: Any
    ) -> pb.InitializeSessionResponse:
        lossless = wants_lossless(context)
        if not request.session_id:
            # The response has no room to tell an id that the store made up.
            raise InvalidArguments("session_id is missing")
        metadata = {**request.metadata, **_config(request)}
        info = self._store.create_session(request.session_id, metadata=metadata)
        variables = self._store.list_variables(info.id)
        return pb.InitializeSessionResponse(
            success=True,
            available_tools=self._tools_of(info),
            initial_variables={
                variable.name: variable
                for variable in (messages.variable(v, lossless=lossless) for v in variables)
            },
        )

    @rpc
    def CleanupSession(
        self, request: pb.CleanupSessionRequest, context: Any
    ) -> pb.CleanupSessionResponse:
        running = self._calls.count(request.session_id)
        if running and not request.force:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{running} tool calls run in the session; set force to delete it all the same",
            )
        cleaned = self._store.delete_session(request.session_id)
        self._announced.forget(request.session_id)
        return pb.CleanupSessionResponse(success=True, resources_cleaned=cleaned)

    @rpc
    def GetSession(self, request: pb.GetSessionRequest, context: Any) -> pb.GetSessionResponse:
        info = self._store.get_session(request.session_id)
        return pb.GetSessionResponse(
            session_id=request.session_id,
            metadata=messages.strings(info.metadata),
            created_at=messages.timestamp(info.created_at),
            variable_count=info.variable_count,
            tool_count=len(self._tools_of(info)),
        )

    @rpc
    def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:
        try:
            self._store.touch_session(request.session_id)
            valid = True
        except SessionNotFound:
            valid = False  # the answer to the question, no error
        return pb.HeartbeatResponse(
            server_time=messages.timestamp(time.time()), session_valid=valid
        )

    def _tools_of(self, info: SessionInfo) -> dict[str, pb.ToolSpec]:
        """What can be called in a session; the pool's own tools come first."""
        ours = {name: messages.tool(spec) for name, spec in self._tools().items()}
        return {**self._announced.of(info.id, info.created_at), **ours}


def _config(request: pb.InitializeSessionRequest) -> dict[str, str]:
    """The wishes in ``SessionConfig``, kept among the session's metadata."""
    if not request.HasField("config"):
        return {}
    config = request.config
    return {
        "config.enable_caching": json.dumps(config.enable_caching),
        "config.cache_ttl_seconds": json.dumps(config.cache_ttl_seconds),
        "config.enable_telemetry": json.dumps(config.enable_telemetry),
    }
