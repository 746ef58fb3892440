"""The server: addresses, health, reflection, and how it ends."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

import grpc
import pytest
from fix_bridge import Bridge, status_of
from fix_timeouts import scaled
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from snakepit_mp.bridge import snakepit_bridge_pb2 as pb
from snakepit_mp.bridge.server import BridgeServer
from snakepit_mp.errors import ConfigError

SERVICE = "snakepit.bridge.BridgeService"
SERVING = health_pb2.HealthCheckResponse.SERVING


def _server(address: str) -> BridgeServer:
    nothing = lambda *_: None  # noqa: E731
    return BridgeServer(nothing, nothing, nothing, dict, address=address)  # type: ignore[arg-type]


def _health(bridge: Bridge, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(bridge.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    status: int = stub.Check(request, timeout=scaled(5)).status
    return status


def test_unix_socket_is_the_target_and_goes_with_the_server(bridge: Bridge) -> None:
    assert bridge.server.target is not None
    path = bridge.server.target.removeprefix("unix:")
    assert os.path.exists(path)
    bridge.server.stop(0)
    assert not os.path.exists(path)


def test_free_port(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge("127.0.0.1:0")
    assert bridge.server.target is not None
    host, port = bridge.server.target.split(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert bridge.stub.Ping(pb.PingRequest(message="hi")).message == "hi"


def test_taken_port(make_bridge: Callable[..., Bridge]) -> None:
    target = make_bridge("127.0.0.1:0").server.target
    assert target is not None
    with pytest.raises(ConfigError, match=target):
        make_bridge(target)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:50051", "example.org:1", ":0", ""])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="TLS"):
        _server(address)


def test_long_socket_path() -> None:
    with pytest.raises(ConfigError, match="107 bytes"):
        _server("unix:/" + "x" * 107)


def test_health(bridge: Bridge) -> None:
    assert _health(bridge) == SERVING
    assert _health(bridge, SERVICE) == SERVING
    assert status_of(lambda: _health(bridge, "other"))[0] is grpc.StatusCode.NOT_FOUND


def test_reflection(bridge: Bridge) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(bridge.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]))
    names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


def test_blocked_tools_block_nobody_else(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(most_tool_calls=2)
    blocked = [
        bridge.stub.ExecuteTool.future(pb.ExecuteToolRequest(tool_name="block")) for _ in range(2)
    ]
    assert bridge.tools.adapter.entered.wait(scaled(5))
    while len(bridge.tools.seen) < 2:  # the second is on its way
        assert _health(bridge) == SERVING
    code, details = status_of(
        lambda: bridge.stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="echo"))
    )
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 tool calls" in details
    assert bridge.stub.Heartbeat(pb.HeartbeatRequest(session_id="s")).session_valid is False
    bridge.tools.adapter.gate.set()
    assert [call.result().success for call in blocked] == [True, True]


def test_stop_waits_for_calls_in_hand(bridge: Bridge) -> None:
    call = bridge.stub.ExecuteTool.future(pb.ExecuteToolRequest(tool_name="block"))
    assert bridge.tools.adapter.entered.wait(scaled(5))
    stopper = threading.Thread(target=bridge.server.stop)
    stopper.start()
    watch = health_pb2_grpc.HealthStub(bridge.channel).Watch(health_pb2.HealthCheckRequest())
    assert any(answer.status != SERVING for answer in watch)
    watch.cancel()
    assert stopper.is_alive()
    code, _ = status_of(lambda: bridge.stub.Ping(pb.PingRequest()))
    assert code is grpc.StatusCode.UNAVAILABLE
    bridge.tools.adapter.gate.set()
    assert call.result(timeout=scaled(5)).success
    stopper.join(scaled(5))
    assert not stopper.is_alive()


def test_stop_cuts_off_after_the_grace(bridge: Bridge) -> None:
    call = bridge.stub.ExecuteTool.future(pb.ExecuteToolRequest(tool_name="block"))
    assert bridge.tools.adapter.entered.wait(scaled(5))
    bridge.server.stop(0)
    assert call.exception(timeout=scaled(5)).code() is grpc.StatusCode.UNAVAILABLE


def test_stop_does_not_wait_for_those_who_watch(bridge: Bridge) -> None:
    watch = health_pb2_grpc.HealthStub(bridge.channel).Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == SERVING
    bridge.server.stop()
    with contextlib.suppress(grpc.RpcError):  # cut off before or after the last message
        assert [answer.status for answer in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]
    assert not watch.is_active()


def test_stop_twice_and_without_start(bridge: Bridge) -> None:
    bridge.server.stop(0)
    bridge.server.stop(0)
    _server("127.0.0.1:0").stop()
