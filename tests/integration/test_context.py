"""What a call takes along of its caller's context: named variables, and the trace."""

from __future__ import annotations

import contextvars
import sys
import types

import grpc
import pytest
from context_adapters import NAMES, TENANT, USER, Seeing, seen
from fix_pool import until
from fix_timeouts import scaled

from snakepit_mp import Pool
from snakepit_mp.bridge import snakepit_bridge_pb2 as pb
from snakepit_mp.bridge.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_mp.errors import CodecError, ConfigError
from snakepit_mp.telemetry.trace import TraceContext, current_trace, trace_context

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def own_context(monkeypatch: pytest.MonkeyPatch):
    """What a test sets, no other one sees."""
    tokens = [USER.set("caller"), TENANT.set("t1")]
    yield
    USER.reset(tokens[0])
    TENANT.reset(tokens[1])


@pytest.fixture
def pool(make_pool) -> Pool:
    made: Pool = make_pool(Seeing, workers=1, context=NAMES, bridge="unix")
    return made


def test_named_variables_come_along_in_every_way_of_calling(pool: Pool) -> None:
    assert pool.execute("see") == ("caller", "t1")
    assert pool.submit("see").result(scaled(10)) == ("caller", "t1")
    assert list(pool.stream("see_twice")) == [("caller", "t1")] * 2
    assert list(pool.map("see", [{}, {}])) == [("caller", "t1")] * 2
    assert pool.execute("see_later") == ("caller", "t1")
    assert pool.execute(seen) == ("caller", "t1")


def test_each_call_has_its_own(pool: Pool) -> None:
    def call(name: str):
        USER.set(name)
        return pool.submit("see")

    futures = [contextvars.copy_context().run(call, name) for name in "abc"]
    assert [future.result(scaled(10))[0] for future in futures] == ["a", "b", "c"]


def test_what_is_not_set_is_not_set_there_either(pool: Pool) -> None:
    assert pool.execute("see") == ("caller", "t1")
    empty = contextvars.Context()
    assert empty.run(pool.execute, "see") == ("nobody", "none")


def test_what_was_not_named_stays_here(make_pool) -> None:
    pool = make_pool(Seeing, workers=1)
    assert pool.execute("see") == ("nobody", "none")


def test_value_that_cannot_be_sent_is_named(make_pool) -> None:
    pool = make_pool(Seeing, workers=1, context=NAMES, allow_pickle=False)
    USER.set(object())
    with pytest.raises(CodecError, match="context_adapters:USER"):
        pool.execute("see")


@pytest.mark.parametrize(
    "context",
    [
        "context_adapters:USER",
        ("USER",),
        (1,),
        ("a.b:",),
        ("nowhere_at_all:X",),
        ("context_adapters:MISSING",),
        ("context_adapters:PLAIN",),
    ],
)
def test_wrong_names_are_refused_at_once(context) -> None:
    with pytest.raises(ConfigError, match=r"PoolConfig\.context"):
        Pool(Seeing, workers=1, bridge=None, context=context)


def test_trace_comes_along(pool: Pool) -> None:
    assert pool.execute("trace") is None
    with trace_context(PARENT, "vendor=1"):
        assert pool.execute("trace") == (PARENT, "vendor=1")
        assert pool.execute("trace_later") == (PARENT, "vendor=1")
        future = pool.submit("trace")
        assert list(pool.stream("traces")) == [str((PARENT, "vendor=1"))]
    assert future.result(scaled(10)) == (PARENT, "vendor=1")
    assert pool.execute("trace") is None


def test_log_records_belong_to_the_trace(pool: Pool, caplog) -> None:
    with trace_context(PARENT):
        pool.execute("talk")
    until(lambda: "talked" in caplog.text)
    (record,) = [record for record in caplog.records if record.name == "context_adapters.talk"]
    assert (record.trace_id, record.span_id) == (PARENT[3:35], PARENT[36:52])


def test_trace_of_a_foreign_client_is_handed_on(pool: Pool) -> None:
    metadata = (("traceparent", PARENT), ("tracestate", "a=b"))
    with grpc.insecure_channel(pool.bridge_address) as channel:
        stub = BridgeServiceStub(channel)
        one = stub.ExecuteTool(
            pb.ExecuteToolRequest(tool_name="trace_later"), metadata=metadata, timeout=scaled(10)
        )
        many = stub.ExecuteStreamingTool(
            pb.ExecuteToolRequest(tool_name="traces"), metadata=metadata, timeout=scaled(10)
        )
        streamed = b"".join(chunk.data for chunk in many)
        without = stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="trace"), timeout=scaled(10))
    assert PARENT.encode() in one.result.value
    assert PARENT.encode() in streamed
    assert PARENT.encode() not in without.result.value


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        PARENT.upper(),
        PARENT + "-00",
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + "-01",
        PARENT[:-1],
    ],
)
def test_header_that_breaks_the_rules_is_dropped(header) -> None:
    assert TraceContext.parse(header) is None
    with trace_context(header) as trace:
        assert trace is None
        assert current_trace() is None


def test_later_version_and_wrong_state() -> None:
    assert TraceContext.parse("01" + PARENT[2:] + "-more") is not None
    trace = TraceContext.parse(PARENT, "x" * 513)
    assert trace is not None
    assert trace.tracestate == ""


def test_open_telemetry_is_asked_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    propagate = types.ModuleType("opentelemetry.propagate")
    propagate.inject = lambda carrier: carrier.update(traceparent=PARENT)
    monkeypatch.setitem(sys.modules, "opentelemetry.propagate", propagate)
    assert current_trace() == TraceContext(PARENT)
    propagate.inject = lambda carrier: None  # no span is current
    assert current_trace() is None
