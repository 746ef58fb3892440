"""What a worker's server answers, and to whom."""

from __future__ import annotations

import gc
import time
from concurrent.futures import Future
from typing import Any

import grpc
import pytest
from fix_timeouts import scaled
from fix_worker import TOKEN, GrpcWorker, wait_for
from grpc_health.v1 import health_pb2, health_pb2_grpc

from snakepit_mp.bridge import snakepit_bridge_pb2 as pb
from snakepit_mp.bridge.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_mp.errors import CodecError
from snakepit_mp.lanes.envelope import Kind, decode_reply
from snakepit_mp.lanes.grpc import TOKEN_KEY
from snakepit_mp.worker import servicer
from snakepit_mp.worker.servicer import serve

OURS = ((TOKEN_KEY, TOKEN),)


@pytest.fixture
def worker(make_worker) -> GrpcWorker:
    return make_worker("grpc")


@pytest.fixture
def channel(worker):
    with grpc.insecure_channel(
        worker.server.target, options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return BridgeServiceStub(channel)


def code_of(call, *args, **kwargs) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, timeout=scaled(10), **kwargs)
    return caught.value.code()


def test_ping(stub) -> None:
    before = time.time()
    response = stub.Ping(pb.PingRequest(message="hello"), metadata=OURS, timeout=scaled(10))
    assert response.message == "hello"
    assert before - 1 <= response.server_time.ToNanoseconds() / 1e9 <= time.time() + 1


@pytest.mark.parametrize(
    "metadata", [(), ((TOKEN_KEY, ""),), ((TOKEN_KEY, "guess"),), ((TOKEN_KEY, TOKEN + "x"),)]
)
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Ping", pb.PingRequest()),
        ("ExecuteTool", pb.ExecuteToolRequest()),
        ("GetSession", pb.GetSessionRequest()),
    ],
)
def test_without_the_token_nothing_is_served(stub, metadata, method, request_) -> None:
    code = code_of(getattr(stub, method), request_, metadata=metadata)
    assert code is grpc.StatusCode.UNAUTHENTICATED


def test_without_the_token_nothing_streams(worker, stub) -> None:
    request = pb.ExecuteToolRequest(envelope=worker.frame("endless", streaming=True, size=1))
    stream = stub.ExecuteStreamingTool(request, timeout=scaled(10))
    assert code_of(lambda timeout: next(stream)) is grpc.StatusCode.UNAUTHENTICATED
    assert worker.main.status.notes == []


def test_what_only_the_application_serves(stub) -> None:
    code = code_of(stub.GetSession, pb.GetSessionRequest(session_id="s"), metadata=OURS)
    assert code is grpc.StatusCode.UNIMPLEMENTED


def test_execute_tells_success_outside_the_envelope_too(worker, stub) -> None:
    for command, kwargs, success in (
        ("echo", {"value": 3}, True),
        ("fail", {"text": "x"}, False),
    ):
        request = pb.ExecuteToolRequest(envelope=worker.frame(command, **kwargs))
        response = stub.ExecuteTool(request, metadata=OURS, timeout=scaled(10))
        assert response.success is success
        assert (decode_reply(response.envelope).error is None) is success


def test_chunks_are_numbered_and_the_last_one_is_marked(worker, stub) -> None:
    request = pb.ExecuteToolRequest(envelope=worker.frame("count", streaming=True, n=3))
    chunks = list(stub.ExecuteStreamingTool(request, metadata=OURS, timeout=scaled(10)))
    assert [chunk.chunk_id for chunk in chunks] == ["0", "1", "2", "3"]
    assert [chunk.is_final for chunk in chunks] == [False, False, False, True]
    assert decode_reply(chunks[-1].data).kind is Kind.END


def test_a_request_without_envelope(stub) -> None:
    code = code_of(stub.ExecuteTool, pb.ExecuteToolRequest(tool_name="echo"), metadata=OURS)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_result_too_large_for_the_lane(worker, stub, monkeypatch) -> None:
    monkeypatch.setattr(servicer, "MAX_FRAME", 1000)
    error = decode_reply(worker.lane.call(worker.frame("echo", value=bytes(1000)))).error
    assert isinstance(error, CodecError)
    assert error.path == "result"
    frames = list(worker.lane.stream(worker.frame("endless", streaming=True, size=1000)))
    assert [decode_reply(frame).kind for frame in frames] == [Kind.ERROR]
    wait_for(worker.adapter.closed)


def test_health_is_open_to_all_and_answers_while_a_tool_runs(worker, channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    worker.lane.begin(worker.frame("wait"), lambda outcome: None)
    wait_for(worker.adapter.entered)
    response = stub.Check(health_pb2.HealthCheckRequest(), timeout=scaled(10))
    assert response.status == health_pb2.HealthCheckResponse.SERVING
    watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(20)]
    for watch in watches:  # more than the server has threads
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_stop_waits_for_the_call_in_hand(worker) -> None:
    outcome: Future[Any] = Future()
    worker.lane.begin(worker.frame("wait"), outcome.set_result)
    wait_for(worker.adapter.entered)
    worker.adapter.gate.set()
    worker.server.stop(scaled(10))
    # What the server has sent may still be on its way to the callback.
    assert decode_reply(outcome.result(scaled(10))).value == "done"


def test_stop_lets_go_of_who_watches_the_health(worker, channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    begun = time.monotonic()
    worker.server.stop(scaled(60))
    worker.server.stop(scaled(60))
    assert time.monotonic() - begun < scaled(30)
    assert [reply.status for reply in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]


def test_a_path_that_cannot_be_bound(worker, tmp_path) -> None:
    with pytest.raises(RuntimeError):
        serve(worker.main.executor, socket_path=str(tmp_path / "no" / "w.sock"), token=TOKEN)
    gc.collect()  # the error's traceback holds what was never started
