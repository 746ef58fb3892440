"""The health service: what it says, whom it tells, and that watchers cannot stop a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from fix_timeouts import scaled
from grpc_health.v1 import health_pb2, health_pb2_grpc

from snakepit_mp.bridge.health import HealthServicer

Status = health_pb2.HealthCheckResponse


@pytest.fixture
def health() -> HealthServicer:
    return HealthServicer(["snakes"])


@pytest.fixture
def stub(health, tmp_path) -> Iterator[health_pb2_grpc.HealthStub]:
    threads = ThreadPoolExecutor(2)
    server = grpc.server(threads)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    target = f"unix:{tmp_path}/health.sock"
    server.add_insecure_port(target)
    server.start()
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options) as channel:
        yield health_pb2_grpc.HealthStub(channel)
    server.stop(None).wait()
    threads.shutdown()


def request(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", "snakes"])
def test_check(stub, health, service) -> None:
    assert stub.Check(request(service), timeout=scaled(10)).status == Status.SERVING
    health.stop()
    assert stub.Check(request(service), timeout=scaled(10)).status == Status.NOT_SERVING


def test_check_of_an_unknown_service(stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(request("ladders"), timeout=scaled(10))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_watch_of_an_unknown_service(stub) -> None:
    watch = stub.Watch(request("ladders"), timeout=scaled(10))
    assert next(watch).status == Status.SERVICE_UNKNOWN
    watch.cancel()


def test_watchers_are_told_and_let_go_when_it_stops(stub, health) -> None:
    watches = [stub.Watch(request(), timeout=scaled(10)) for _ in range(10)]
    assert [next(watch).status for watch in watches] == [Status.SERVING] * 10
    health.stop()
    rest = [[reply.status for reply in watch] for watch in watches]
    assert rest == [[Status.NOT_SERVING]] * 10


def test_watch_after_the_stop(stub, health) -> None:
    health.stop()
    replies = [reply.status for reply in stub.Watch(request(), timeout=scaled(10))]
    assert set(replies) == {Status.NOT_SERVING}


def test_watchers_that_come_and_go_do_not_stop_the_server(stub) -> None:
    """More at once than there are threads, each leaving as soon as it has heard something."""

    def come_and_go() -> None:
        for _ in range(25):
            watch = stub.Watch(request(), timeout=scaled(20))
            assert next(watch).status == Status.SERVING
            watch.cancel()

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stub.Check(request(), timeout=scaled(10)).status == Status.SERVING


def test_a_watcher_that_left_is_forgotten(stub, health) -> None:
    watch = stub.Watch(request(), timeout=scaled(10))
    next(watch)
    left = threading.Event()
    forget = health._forget

    def forget_and_tell(send) -> None:
        forget(send)
        left.set()

    health._forget = forget_and_tell
    watch.cancel()
    assert left.wait(scaled(10))
    assert health._watchers == set()
