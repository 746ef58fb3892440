"""A client that knows nothing of the library: gRPC, the generated stubs, and the protocol.

Run by `test_foreign_client.py` as ``python foreign_client.py <target>``, with a copy of the
two generated modules on its path and nothing else of ours. Prints what it saw as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage

from snakepit_mp.bridge import snakepit_bridge_pb2 as pb
from snakepit_mp.bridge import snakepit_bridge_pb2_grpc as pb_grpc

SESSION = "foreign"


def value(type_: str, plain: Any) -> AnyMessage:
    return AnyMessage(
        type_url=f"type.googleapis.com/snakepit.{type_}", value=json.dumps(plain).encode()
    )


def sessions(stub: Any) -> dict[str, Any]:
    asked = pb.InitializeSessionRequest(session_id=SESSION, metadata={"language": "any"})
    created = stub.InitializeSession(asked)
    beat = stub.Heartbeat(pb.HeartbeatRequest(session_id=SESSION))
    seen = stub.GetSession(pb.GetSessionRequest(session_id=SESSION))
    return {
        "created": created.success,
        "tools": sorted(created.available_tools),
        "alive": beat.session_valid,
        "metadata": dict(seen.metadata),
    }


def variables(stub: Any) -> dict[str, Any]:
    registered = stub.RegisterVariable(
        pb.RegisterVariableRequest(
            session_id=SESSION,
            name="temperature",
            type="float",
            initial_value=value("float", 0.7),
            constraints_json='{"min": 0.0, "max": 2.0}',
        )
    )
    at = {"session_id": SESSION, "variable_identifier": "temperature"}
    before = stub.GetVariable(pb.GetVariableRequest(**at)).variable
    asked = pb.SetVariableRequest(**at, value=value("float", 0.9), expected_version=before.version)
    written = stub.SetVariable(asked)
    after = stub.GetVariable(pb.GetVariableRequest(**at)).variable
    return {
        "registered": registered.success,
        "before": [json.loads(before.value.value), before.version],
        "written": written.new_version,
        "after": [json.loads(after.value.value), after.version],
        "conflict": refusal(lambda: stub.SetVariable(asked)),
        "out of bounds": refusal(
            lambda: stub.SetVariable(pb.SetVariableRequest(**at, value=value("float", 9.0)))
        ),
    }


def tools(stub: Any) -> dict[str, Any]:
    def run(tool: str, /, **args: AnyMessage) -> pb.ExecuteToolResponse:
        answer: pb.ExecuteToolResponse = stub.ExecuteTool(
            pb.ExecuteToolRequest(session_id=SESSION, tool_name=tool, parameters=args), timeout=30
        )
        return answer

    run("write", name=value("string", "temperature"), value=value("float", 1.5))
    at = {"session_id": SESSION, "variable_identifier": "temperature"}
    written = stub.GetVariable(pb.GetVariableRequest(**at)).variable
    failed = run("fail", kind=value("string", "plain"))
    chunks = stub.ExecuteStreamingTool(
        pb.ExecuteToolRequest(tool_name="numbers", parameters={"n": value("integer", 3)})
    )
    unknown = pb.ExecuteToolRequest(tool_name="no such tool")
    return {
        "sum": json.loads(run("add", a=value("integer", 2), b=value("integer", 3)).result.value),
        "session": json.loads(run("session_of").result.value),
        "seen by the tool": json.loads(
            run("read", name=value("string", "temperature")).result.value
        ),
        "written by the tool": [json.loads(written.value.value), written.version],
        "failed": [failed.success, failed.error_message],
        "chunks": [json.loads(chunk.data) for chunk in chunks if not chunk.is_final],
        "unknown": refusal(lambda: stub.ExecuteTool(unknown)),
    }


def refusal(call: Any) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "none"


def main(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        stub = pb_grpc.BridgeServiceStub(channel)
        seen = {"sessions": sessions(stub), "variables": variables(stub), "tools": tools(stub)}
    ours = [name for name in sys.modules if name.startswith("snakepit_mp")]
    print(json.dumps({**seen, "modules": sorted(ours)}))


if __name__ == "__main__":
    main(sys.argv[1])
