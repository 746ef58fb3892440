"""The tool RPCs, called by a client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from fix_bridge import Bridge, status_of
from fix_timeouts import scaled
from google.protobuf.any_pb2 import Any as AnyMessage

from snakepit_mp.bridge import convert
from snakepit_mp.bridge import snakepit_bridge_pb2 as pb
from snakepit_mp.bridge.rpc import VALUES_KEY

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def request(tool: str, /, *, lossless: bool = False, **args: Any) -> pb.ExecuteToolRequest:
    encoded = {name: convert.encode(value, lossless=lossless) for name, value in args.items()}
    return pb.ExecuteToolRequest(
        session_id="s",
        tool_name=tool,
        parameters={name: value.any for name, value in encoded.items()},
        binary_parameters={name: value.binary for name, value in encoded.items() if value.binary},
    )


def run(bridge: Bridge, tool: str, /, **args: Any) -> pb.ExecuteToolResponse:
    answer: pb.ExecuteToolResponse = bridge.stub.ExecuteTool(request(tool, **args))
    return answer


def test_execute(bridge: Bridge) -> None:
    answer = run(bridge, "scale", value=1.5, by=4)
    assert answer.success
    assert convert.decode(answer.result) == 6.0
    assert answer.error_message == ""
    assert answer.execution_time_ms >= 0
    ((name, args, session_id, timeout),) = bridge.tools.seen
    assert (name, session_id, timeout) == ("scale", "s", None)
    assert args == {"value": 1.5, "by": 4}
    assert type(args["by"]) is int


def test_without_a_session(bridge: Bridge) -> None:
    bridge.stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="echo"))
    assert bridge.tools.seen[0].session_id is None


def test_the_deadline_is_the_timeout(bridge: Bridge) -> None:
    bridge.stub.ExecuteTool(request("echo"), timeout=100)
    timeout = bridge.tools.seen[0].timeout
    assert timeout is not None
    assert 50 < timeout <= 101


@pytest.mark.parametrize(
    "value", [None, True, 2**70, 0.1, "é", b"\xff", [1, [2]], {"a": None}], ids=repr
)
def test_values_both_ways(bridge: Bridge, value: Any) -> None:
    answer = run(bridge, "echo", value=value)
    assert convert.decode(answer.result, answer.binary_result) == value
    assert bridge.tools.seen[0].args == {"value": value}


def test_arrays_both_ways(bridge: Bridge) -> None:
    array = np.arange(6000, dtype=np.int16)
    answer = run(bridge, "echo", value=array)
    assert answer.result.type_url.endswith("tensor.binary")
    np.testing.assert_array_equal(convert.decode(answer.result, answer.binary_result), array)
    assert bridge.tools.seen[0].args["value"].dtype == np.int16


def test_lossless_is_answered_to_those_who_send_it(bridge: Bridge) -> None:
    answer = bridge.stub.ExecuteTool(request("echo", lossless=True, value=(1, {2: 3})))
    assert convert.is_lossless(answer.result)
    assert convert.decode(answer.result) == (1, {2: 3})


def test_lossless_is_answered_to_those_who_ask(bridge: Bridge) -> None:
    answer = bridge.stub.ExecuteTool(request("echo", value=5), metadata=[(VALUES_KEY, "lossless")])
    assert convert.is_lossless(answer.result)


def test_clients_of_0_13(bridge: Bridge) -> None:
    label = "type.googleapis.com/google.protobuf.StringValue"
    answer = bridge.stub.ExecuteTool(
        pb.ExecuteToolRequest(
            tool_name="echo",
            parameters={"value": AnyMessage(type_url=label, value=b'{"n": [1, 2]}')},
        )
    )
    assert json.loads(answer.result.value) == {"n": [1, 2]}


def test_bytes_alone_are_bytes(bridge: Bridge) -> None:
    asked = pb.ExecuteToolRequest(tool_name="echo", binary_parameters={"value": b"\x80\x04N."})
    answer = bridge.stub.ExecuteTool(asked)
    assert answer.binary_result == b"\x80\x04N."
    asked.metadata["binary_format:value"] = "pickle"
    code, details = status_of(lambda: bridge.stub.ExecuteTool(asked))
    assert code is INVALID
    assert "pickle" in details


def test_the_tools_own_exception(bridge: Bridge) -> None:
    answer = run(bridge, "fail")
    assert not answer.success
    assert answer.error_message == "ValueError: no such luck"
    assert not answer.HasField("result")


def test_no_traceback_for_clients(bridge: Bridge) -> None:
    answer = run(bridge, "fail_remotely")
    assert answer.error_message == "other.Lost: gone"


def test_a_result_that_cannot_be_sent(bridge: Bridge) -> None:
    answer = run(bridge, "unsendable")
    assert not answer.success
    assert "result cannot be sent" in answer.error_message
    assert "object" in answer.error_message


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (lambda: request("nope"), grpc.StatusCode.NOT_FOUND),
        (lambda: request("scale"), INVALID),
        (lambda: request("scale", value="much"), INVALID),
        (lambda: request("scale", value=1.0, to=2), INVALID),
        (lambda: request("saturate"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (lambda: request("die"), grpc.StatusCode.INTERNAL),
        (lambda: pb.ExecuteToolRequest(tool_name="echo", envelope=b"x"), INVALID),
        (
            lambda: pb.ExecuteToolRequest(tool_name="echo", parameters={"value": AnyMessage()}),
            INVALID,
        ),
    ],
)
@pytest.mark.parametrize("rpc", ["ExecuteTool", "ExecuteStreamingTool"])
def test_refused(
    bridge: Bridge, rpc: str, asked: Callable[[], pb.ExecuteToolRequest], code: grpc.StatusCode
) -> None:
    def call() -> Any:
        answer = getattr(bridge.stub, rpc)(asked())
        return answer if rpc == "ExecuteTool" else list(answer)

    assert status_of(call)[0] is code


def test_the_error_names_the_argument(bridge: Bridge) -> None:
    asked = request("echo", value=1)
    asked.parameters["value"].value = b"{"
    assert "parameters['value']" in status_of(lambda: bridge.stub.ExecuteTool(asked))[1]


def stream(bridge: Bridge, tool: str, /, **args: Any) -> list[pb.ToolChunk]:
    return list(bridge.stub.ExecuteStreamingTool(request(tool, **args)))


def test_stream(bridge: Bridge) -> None:
    *chunks, last = stream(bridge, "count", n=3)
    assert [json.loads(chunk.data) for chunk in chunks] == [0, 1, 2]
    assert [chunk.chunk_id for chunk in (*chunks, last)] == ["0", "1", "2", "3"]
    assert [chunk.is_final for chunk in (*chunks, last)] == [False, False, False, True]
    assert last.data == b""


def test_empty_stream(bridge: Bridge) -> None:
    (last,) = stream(bridge, "count", n=0)
    assert last.is_final


def test_chunks_say_what_they_hold(bridge: Bridge) -> None:
    *chunks, _ = stream(bridge, "mixed")
    decoded = [
        convert.decode(AnyMessage(type_url=chunk.metadata["type_url"], value=chunk.data))
        for chunk in chunks
    ]
    assert decoded[:2] == [{"a": [1, None]}, b"\xff"]
    np.testing.assert_array_equal(decoded[2], np.arange(3000.0))


def test_stream_that_fails(bridge: Bridge) -> None:
    chunks = bridge.stub.ExecuteStreamingTool(request("fail_later"))
    assert json.loads(next(chunks).data) == 1
    assert status_of(lambda: next(chunks)) == (
        grpc.StatusCode.UNKNOWN,
        "ValueError: half way",
    )


def test_cancel_ends_the_tool(bridge: Bridge) -> None:
    chunks = bridge.stub.ExecuteStreamingTool(request("endless"))
    assert json.loads(next(chunks).data) == "more"
    chunks.cancel()
    assert bridge.tools.adapter.closed.wait(scaled(5))


def test_a_stream_counts_as_a_call(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(most_tool_calls=1)
    chunks = bridge.stub.ExecuteStreamingTool(request("endless"))
    next(chunks)
    code, _ = status_of(lambda: run(bridge, "echo"))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    chunks.cancel()
    assert bridge.tools.adapter.closed.wait(scaled(5))


def test_the_application_has_no_tools_of_its_own(bridge: Bridge) -> None:
    asked = pb.GetExposedElixirToolsRequest(session_id="s")
    assert not bridge.stub.GetExposedElixirTools(asked).tools
    code, details = status_of(
        lambda: bridge.stub.ExecuteElixirTool(pb.ExecuteElixirToolRequest(tool_name="echo"))
    )
    assert code is grpc.StatusCode.NOT_FOUND
    assert "'echo'" in details
