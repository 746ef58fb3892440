"""Which way calls take, and what a worker serves beside it."""

from __future__ import annotations

import grpc
import psutil
import pytest
from fix_pool import until
from fix_timeouts import scaled
from grpc_health.v1 import health_pb2, health_pb2_grpc

from snakepit_mp.errors import ConfigError
from snakepit_mp.lanes.mailbox import works_here


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("auto", "mailbox" if works_here() else "socket"),
        ("socket", "socket"),
        ("grpc", "grpc"),
    ],
)
def test_the_lane_that_is_used_is_told(make_pool, asked: str, used: str):
    pool = make_pool(lane=asked)
    assert {row.lane for row in pool.workers()} == {used}
    assert pool.execute("add", (1, 2)) == 3


def test_a_worker_serves_grpc_beside_its_lane(make_pool):
    pool = make_pool(lane="socket", workers=1)
    address = until(lambda: pool.workers()[0].address)

    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=scaled(10))

    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    assert pool.execute("add", (1, 2)) == 3


def test_without_grpc_a_worker_has_no_address_and_fewer_threads(make_pool):
    pool = make_pool(lane="socket", workers=1, grpc=False)
    assert pool.execute("add", (1, 2)) == 3
    [row] = pool.workers()
    assert row.address is None
    maps = {mapped.path for mapped in psutil.Process(row.pid).memory_maps()}
    assert not any("grpc" in path for path in maps)


def test_a_worker_that_cannot_serve_grpc_serves_its_pool(make_pool, caplog):
    """Its socket's place is taken: others cannot reach it, its pool does."""
    pool = make_pool(lane="socket", workers=1, ready=False)
    directory = pool._directory.path
    (directory / "w0-2.sock").mkdir()
    first = until(lambda: pool.workers()[0].pid)
    pool.execute("add", (1, 2))
    psutil.Process(first).kill()
    until(lambda: pool.workers()[0].pid not in (None, first))

    assert pool.execute("add", (1, 2)) == 3
    until(lambda: "gRPC server cannot start" in caplog.text)
    (directory / "w0-2.sock").rmdir()


@pytest.mark.skipif(works_here(), reason="here it works")
def test_a_mailbox_that_cannot_be_had_is_refused_at_once(make_pool):
    with pytest.raises(ConfigError, match="compiled part"):
        make_pool(lane="mailbox")
