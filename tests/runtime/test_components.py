"""Components that are threads: started again when they fail, and the end of the pool at last."""

from __future__ import annotations

import logging

import grpc
import pytest
from fix_pool import Gate, until
from fix_timeouts import scaled

from snakepit_mp import RestartPolicy
from snakepit_mp.bridge import snakepit_bridge_pb2 as pb
from snakepit_mp.bridge.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_mp.errors import PoolClosed, PoolError
from snakepit_mp.runtime import components
from snakepit_mp.runtime.components import Components
from snakepit_mp.runtime.watcher import Watcher
from snakepit_mp.telemetry.life import Life


class Bug(Exception):
    pass


class Component:
    """Fails as often as it is told."""

    def __init__(self, failures: int) -> None:
        self.life = Life()
        self.failures = failures
        self.starts = 0

    def failure(self) -> BaseException | None:
        return Bug("it failed") if self.failures > self.starts else None

    def start_again(self) -> None:
        self.starts += 1


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "INTERVAL", 0.01)


@pytest.fixture
def watched():
    """A function that has a component looked after; what ended the watcher comes to ``ends``."""
    ends: list[BaseException] = []
    watcher = Watcher("test", ends.append)

    def watch(component: Component, most: int) -> list[BaseException]:
        policy = RestartPolicy(max_restarts=most, max_seconds=60, backoff=0.001, jitter=0.0)
        looks = Components(watcher, policy, lambda: 0.0)
        looks.add("test component", component)
        looks.begin()
        watcher.start()
        return ends

    yield watch
    watcher.stop()
    assert watcher.join(scaled(5))


def test_what_fails_is_started_again(watched, caplog: pytest.LogCaptureFixture) -> None:
    component = Component(failures=2)
    with caplog.at_level(logging.ERROR, logger="snakepit_mp"):
        ends = watched(component, 3)
        until(lambda: component.life.restarts == 2)
    assert ends == []
    assert component.life.error == "Bug: it failed"
    assert caplog.text.count("the test component failed") == 2
    assert "Bug: it failed" in caplog.text


def test_what_fails_too_often_is_the_end(watched) -> None:
    component = Component(failures=100)
    ends = watched(component, 3)
    until(lambda: ends)
    assert component.starts == 3
    assert isinstance(ends[0].__cause__, Bug)


def test_a_start_that_raises_is_a_failure(watched) -> None:
    component = Component(failures=100)

    def start_again() -> None:
        component.starts += 1
        raise Bug("no start")

    component.start_again = start_again  # type: ignore[method-assign]
    ends = watched(component, 3)
    until(lambda: ends)
    assert component.life.restarts == 0
    assert "no start" in str(ends[0])


def _ping(target: str) -> str:
    with grpc.insecure_channel(target) as channel:
        request = pb.PingRequest(message="hi")
        reply = BridgeServiceStub(channel).Ping(request, timeout=scaled(5), wait_for_ready=True)
        text: str = reply.message
        return text


@pytest.mark.parametrize("bridge", ["unix", "127.0.0.1:0"])
def test_bridge_whose_server_ends_serves_again(make_pool, bridge: str, caplog) -> None:
    pool = make_pool(workers=1, bridge=bridge)
    target = pool.bridge_address
    assert _ping(target) == "hi"

    pool._bridge._running[0].stop(None).wait()

    until(lambda: pool.tree().children[0].restarts == 1)
    assert _ping(target) == "hi"
    assert pool.tree().children[0].state == "running"
    assert "last error" in str(pool.tree())
    assert pool.bridge_address == target
    assert "the bridge failed" in caplog.text


def test_bridge_that_cannot_serve_again_ends_every_call_and_the_pool(
    make_pool, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = RestartPolicy(max_restarts=2, max_seconds=60, backoff=0.001)
    pool = make_pool(workers=1, bridge="unix", restart=policy)
    running = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()

    def refuse(address: str) -> None:
        raise Bug(f"{address} is taken")

    monkeypatch.setattr(pool._bridge, "_serve", refuse)
    pool._bridge._running[0].stop(None).wait()

    error = running.exception(scaled(10))
    assert isinstance(error, PoolError)
    assert isinstance(error.__cause__, PoolError)
    assert isinstance(error.__cause__.__cause__, Bug)
    with pytest.raises(PoolClosed):
        pool.execute("add", (1, 2))


def test_callbacks_go_on_after_their_thread_has_failed(make_pool, monkeypatch) -> None:
    pool = make_pool(workers=1)
    thread = pool._engine.callbacks
    run_all = thread._run_all
    broken = iter([Bug("the thread failed")])

    def fail_once() -> None:
        for error in broken:
            raise error
        run_all()

    monkeypatch.setattr(thread, "_run_all", fail_once)
    called: list[int] = []
    future = pool.submit("add", (1, 2))
    future.add_done_callback(lambda done: called.append(done.result()))

    until(lambda: called == [3])
    assert thread.life.restarts == 1
    assert thread.life.error == "Bug: the thread failed"
