"""What is not built yet says so."""

from __future__ import annotations

import logging

import grpc
import pytest
from fix_bridge import Bridge, status_of

from snakepit_mp.bridge import snakepit_bridge_pb2 as pb


@pytest.mark.parametrize(
    "name",
    [
        "AddDependency",
        "StartOptimization",
        "StopOptimization",
        "GetVariableHistory",
        "RollbackVariable",
    ],
)
def test_not_yet(bridge: Bridge, name: str, caplog: pytest.LogCaptureFixture) -> None:
    request = getattr(pb, f"{name}Request")()
    with caplog.at_level(logging.ERROR):
        code, _ = status_of(lambda: getattr(bridge.stub, name)(request))
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert not caplog.records


def test_no_watching_yet(bridge: Bridge) -> None:
    request = pb.WatchVariablesRequest(session_id="s")
    code, _ = status_of(lambda: list(bridge.stub.WatchVariables(request)))
    assert code is grpc.StatusCode.UNIMPLEMENTED
