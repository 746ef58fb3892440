"""Somebody else's process uses sessions, variables and tools, over the protocol alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from fix_bridge import status_of
from fix_pool import Gate, until
from fix_timeouts import scaled
from pool_adapters import Tools

import snakepit_mp
from snakepit_mp import Pool
from snakepit_mp.adapter import tools_of
from snakepit_mp.bridge import convert
from snakepit_mp.bridge import snakepit_bridge_pb2 as pb
from snakepit_mp.bridge import snakepit_bridge_pb2_grpc as pb_grpc

CLIENT = Path(__file__).parent / "foreign_client.py"
FORGETFUL = Path(__file__).parent.parent / "isolated" / "forgetful_application.py"
GENERATED = Path(snakepit_mp.__file__).parent / "bridge"


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder with the generated modules, under the names by which they import each other."""
    package = tmp_path / "snakepit_mp" / "bridge"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    for name in ("snakepit_bridge_pb2.py", "snakepit_bridge_pb2_grpc.py"):
        shutil.copy(GENERATED / name, package)
    return tmp_path


def _run(target: str, stubs: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(CLIENT), target],
        env={**os.environ, "PYTHONPATH": str(stubs)},
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.mark.parametrize("bridge", ["unix", "127.0.0.1:0"])
def test_foreign_client(make_pool: Callable[..., Pool], stubs: Path, bridge: str) -> None:
    pool = make_pool(bridge=bridge)
    assert pool.bridge_address is not None
    seen = _run(pool.bridge_address, stubs)
    assert seen["modules"] == [
        "snakepit_mp",
        "snakepit_mp.bridge",
        "snakepit_mp.bridge.snakepit_bridge_pb2",
        "snakepit_mp.bridge.snakepit_bridge_pb2_grpc",
    ]
    assert seen["sessions"] == {
        "created": True,
        "tools": sorted(tools_of(Tools)),
        "alive": True,
        "metadata": {"language": "any"},
    }
    assert seen["variables"] == {
        "registered": True,
        "before": [0.7, 1],
        "written": 2,
        "after": [0.9, 2],
        "conflict": "ABORTED",
        "out of bounds": "INVALID_ARGUMENT",
    }
    assert seen["tools"] == {
        "sum": 5,
        "session": ["foreign", 1],
        "seen by the tool": 1.5,
        "written by the tool": [1.5, 3],
        "failed": [False, "PlainError: as itself"],
        "chunks": [0, 1, 2],
        "unknown": "NOT_FOUND",
    }
    assert pool.store.get_value("foreign", "temperature") == 1.5


@pytest.fixture
def bridged(make_pool: Callable[..., Pool]) -> Pool:
    return make_pool(bridge="unix")


def _request(tool: str, /, **args: Any) -> pb.ExecuteToolRequest:
    parameters = {name: convert.encode(value).any for name, value in args.items()}
    return pb.ExecuteToolRequest(tool_name=tool, parameters=parameters)


def test_a_clients_deadline_ends_the_tool(bridged: Pool, gate: Gate) -> None:
    with grpc.insecure_channel(bridged.bridge_address) as channel:
        stub = pb_grpc.BridgeServiceStub(channel)
        call = stub.ExecuteTool.future(_request("note_and_wait", **gate.args), timeout=scaled(1))
        gate.wait_entered()
        code, _ = status_of(call.result)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: {worker.state for worker in bridged.workers()} == {"READY"})


@pytest.mark.usefixtures("patience")
def test_a_killed_worker_is_the_applications_fault(bridged: Pool) -> None:
    with grpc.insecure_channel(bridged.bridge_address) as channel:
        stub = pb_grpc.BridgeServiceStub(channel)
        code, details = status_of(lambda: stub.ExecuteTool(_request("die")))
        assert code is grpc.StatusCode.INTERNAL
        assert "SIGKILL" in details
        assert stub.ExecuteTool(_request("add", a=1)).success


def test_shutdown_finishes_what_a_client_has_in_hand(bridged: Pool, gate: Gate) -> None:
    with grpc.insecure_channel(bridged.bridge_address) as channel:
        stub = pb_grpc.BridgeServiceStub(channel)
        call = stub.ExecuteTool.future(_request("note_and_wait", **gate.args))
        gate.wait_entered()
        closer = threading.Thread(target=bridged.shutdown)
        closer.start()
        until(lambda: _code(stub) is grpc.StatusCode.UNAVAILABLE)
        gate.open()
        assert convert.decode(call.result(timeout=scaled(10)).result) == "open"
        closer.join(scaled(10))
        assert not closer.is_alive()


def test_a_clients_tool_does_not_keep_the_application(gate: Gate) -> None:
    with subprocess.Popen(
        [sys.executable, str(FORGETFUL)],
        env={**os.environ, "PYTHONPATH": str(FORGETFUL.parent.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as application:
        assert application.stdin is not None
        assert application.stdout is not None
        with grpc.insecure_channel(application.stdout.readline().strip()) as channel:
            stub = pb_grpc.BridgeServiceStub(channel)
            call = stub.ExecuteTool.future(_request("note_and_wait", **gate.args))
            gate.wait_entered()
            application.stdin.close()
            assert application.wait(scaled(10)) == 0
            code, _ = status_of(call.result)
    assert code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


def _code(stub: Any) -> grpc.StatusCode | None:
    try:
        stub.ExecuteTool(_request("add", a=1))
    except grpc.RpcError as error:
        return error.code()
    return None
