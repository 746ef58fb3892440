"""The session RPCs, called by a client."""

from __future__ import annotations

import time

import grpc
import pytest
from fix_bridge import Bridge, status_of
from fix_pool import until
from fix_timeouts import scaled
from google.protobuf.timestamp_pb2 import Timestamp

from snakepit_mp.bridge import convert
from snakepit_mp.bridge import snakepit_bridge_pb2 as pb
from snakepit_mp.bridge.rpc import VALUES_KEY

NOT_FOUND = grpc.StatusCode.NOT_FOUND


def _is_now(moment: Timestamp) -> bool:
    return abs(moment.ToNanoseconds() / 1e9 - time.time()) < 60


def test_ping(bridge: Bridge) -> None:
    answer = bridge.stub.Ping(pb.PingRequest(message="hi"))
    assert answer.message == "hi"
    assert _is_now(answer.server_time)


def test_initialize_creates(bridge: Bridge) -> None:
    config = pb.SessionConfig(enable_caching=True, cache_ttl_seconds=60)
    answer = bridge.stub.InitializeSession(
        pb.InitializeSessionRequest(session_id="s", metadata={"user": "u"}, config=config)
    )
    assert answer.success
    assert not answer.initial_variables
    assert set(answer.available_tools) == set(bridge.tools.tools())
    assert answer.available_tools["count"].supports_streaming
    assert bridge.store.get_session("s").metadata == {
        "user": "u",
        "config.enable_caching": "true",
        "config.cache_ttl_seconds": "60",
        "config.enable_telemetry": "false",
    }


def test_initialize_returns_what_is_there(bridge: Bridge) -> None:
    bridge.store.create_session("s", metadata={"user": "first"})
    bridge.store.register_variable("s", "x", "any", (1, 2))
    request = pb.InitializeSessionRequest(session_id="s", metadata={"user": "second"})
    answer = bridge.stub.InitializeSession(request)
    assert convert.decode(answer.initial_variables["x"].value) == [1, 2]
    assert bridge.store.get_session("s").metadata == {"user": "first"}
    answer = bridge.stub.InitializeSession(request, metadata=[(VALUES_KEY, "lossless")])
    assert convert.decode(answer.initial_variables["x"].value) == (1, 2)


def test_initialize_needs_an_id(bridge: Bridge) -> None:
    code, details = status_of(lambda: bridge.stub.InitializeSession(pb.InitializeSessionRequest()))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "session_id" in details


def test_bad_header(bridge: Bridge) -> None:
    code, details = status_of(
        lambda: bridge.stub.ListVariables(
            pb.ListVariablesRequest(session_id="s"), metadata=[(VALUES_KEY, "xml")]
        )
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'xml'" in details


def test_get(bridge: Bridge) -> None:
    bridge.store.create_session("s", metadata={"n": 1})
    bridge.store.register_variable("s", "x", None, 1)
    answer = bridge.stub.GetSession(pb.GetSessionRequest(session_id="s"))
    assert answer.session_id == "s"
    assert dict(answer.metadata) == {"n": "1"}
    assert _is_now(answer.created_at)
    assert answer.variable_count == 1
    assert answer.tool_count == len(bridge.tools.tools())


def test_heartbeat_renews(bridge: Bridge) -> None:
    bridge.store.create_session("s", ttl=100)
    before = bridge.store.list_sessions("s")[0].last_accessed

    def renewed() -> bool:
        """The clock of uses goes in steps of some milliseconds."""
        answer = bridge.stub.Heartbeat(pb.HeartbeatRequest(session_id="s"))
        assert answer.session_valid
        assert _is_now(answer.server_time)
        return bool(bridge.store.list_sessions("s")[0].last_accessed > before + 0.001)

    until(renewed)


def test_heartbeat_of_nobody_is_no_error(bridge: Bridge) -> None:
    assert not bridge.stub.Heartbeat(pb.HeartbeatRequest(session_id="s")).session_valid


def test_cleanup(bridge: Bridge) -> None:
    bridge.store.create_session("s")
    for name in "abc":
        bridge.store.register_variable("s", name, None, 1)
    answer = bridge.stub.CleanupSession(pb.CleanupSessionRequest(session_id="s"))
    assert (answer.success, answer.resources_cleaned) == (True, 3)
    assert not bridge.store.exists("s")


@pytest.mark.parametrize(
    ("rpc", "request_of"),
    [
        ("GetSession", pb.GetSessionRequest),
        ("CleanupSession", pb.CleanupSessionRequest),
        ("RegisterTools", pb.RegisterToolsRequest),
    ],
)
def test_unknown_session(bridge: Bridge, rpc: str, request_of: type) -> None:
    code, details = status_of(lambda: getattr(bridge.stub, rpc)(request_of(session_id="nobody")))
    assert code is NOT_FOUND
    assert "'nobody'" in details


def test_cleanup_under_a_running_call_needs_force(bridge: Bridge) -> None:
    bridge.store.create_session("s")
    call = bridge.stub.ExecuteTool.future(pb.ExecuteToolRequest(session_id="s", tool_name="block"))
    assert bridge.tools.adapter.entered.wait(scaled(5))
    request = pb.CleanupSessionRequest(session_id="s")
    code, details = status_of(lambda: bridge.stub.CleanupSession(request))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "force" in details
    assert bridge.store.exists("s")
    request.force = True
    assert bridge.stub.CleanupSession(request).success
    bridge.tools.adapter.gate.set()
    assert call.result(timeout=scaled(5)).success


def test_cleanup_after_a_call_needs_no_force(bridge: Bridge) -> None:
    bridge.store.create_session("s")
    assert bridge.stub.ExecuteTool(pb.ExecuteToolRequest(session_id="s", tool_name="echo")).success
    assert bridge.stub.CleanupSession(pb.CleanupSessionRequest(session_id="s")).success
