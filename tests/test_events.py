"""What a pool tells whoever subscribes: everything, once, in order; and no subscriber harms it."""

from __future__ import annotations

import logging
import threading

import pytest
from fix_pool import Gate, until
from fix_store import FORKS, in_child, small_store
from fix_timeouts import scaled

from snakepit_mp import BreakerPolicy, Pool
from snakepit_mp.errors import CircuitOpen, ConfigError, PoolClosed, WorkerDied
from snakepit_mp.telemetry import events, hub
from snakepit_mp.telemetry.events import SessionCreated, SessionDeleted, TelemetryEvent
from snakepit_mp.telemetry.hub import EventHub


class Heard(list[TelemetryEvent]):
    def of(self, *kinds: type[TelemetryEvent]) -> list[TelemetryEvent]:
        return [event for event in list(self) if isinstance(event, kinds)]


@pytest.fixture
def hear(make_pool):
    """A pool, and all that it tells."""

    def make(**settings) -> tuple[Pool, Heard]:
        heard = Heard()
        pool = make_pool(ready=False, **settings)
        pool.subscribe(heard.append)
        pool.await_ready(scaled(20), workers=pool.config.workers)
        return pool, heard

    return make


@pytest.fixture
def quiet_hub():
    made = EventHub("test")
    yield made
    made.close()


def test_a_call_is_told_in_order(hear) -> None:
    pool, heard = hear(workers=1)
    with pool.session("s"):
        pool.execute("add", (1, 2), session_id="s")
        pool.execute(pow, (2, 3))
        with pytest.raises(ZeroDivisionError):
            pool.execute("fail", ("ZeroDivisionError",))
    until(lambda: len(heard.of(events.RequestCompleted)) == 3)

    first, second, third = (
        [event for event in heard.of(events.RequestEvent) if event.request_id == number]
        for number in (1, 2, 3)
    )
    assert first == [
        events.RequestSubmitted(1, "add", "s"),
        events.RequestStarted(1, "add", "s", 1, 0, 1),
        events.RequestCompleted(1, "add", "s", False),
    ]
    assert second[0] == events.RequestSubmitted(2, None, None)
    assert third[-1] == events.RequestCompleted(3, "fail", None, True)
    assert [event.at for event in heard] == sorted(event.at for event in heard)


def test_the_life_of_a_worker_is_told(hear) -> None:
    pool, heard = hear(workers=1)
    pid = pool.workers()[0].pid
    with pytest.raises(WorkerDied):
        pool.execute("die")
    until(lambda: heard.of(events.WorkerExited))
    pool.await_ready(scaled(20))
    until(lambda: heard.of(events.WorkerStateChanged)[-1].after == "READY")

    states = [(e.incarnation, e.before, e.after) for e in heard.of(events.WorkerStateChanged)]
    assert states[-5:] == [
        (1, "READY", "EXECUTING"),
        (1, "EXECUTING", "STOPPED"),
        (1, "STOPPED", "SPAWNING"),
        (2, "SPAWNING", "CONNECTING"),
        (2, "CONNECTING", "READY"),
    ]
    (exited,) = heard.of(events.WorkerExited)
    assert (exited.pid, exited.signal, exited.exit_code) == (pid, "SIGKILL", None)
    (failed,) = heard.of(events.RequestFailed)
    assert (failed.tool, failed.error) == ("die", "WorkerDied")


def test_a_pool_tells_of_its_end_last(hear) -> None:
    pool, heard = hear(workers=1)
    pool.shutdown()
    until(lambda: heard.of(events.PoolStopped))
    assert heard.of(events.WorkerStateChanged)[-1].after == "STOPPED"
    assert {event.after for event in heard.of(events.ForkServerStateChanged)} >= {"ENDED"}
    with pytest.raises(PoolClosed):
        pool.subscribe(heard.append)


def test_breakers_and_refusals_are_told(hear) -> None:
    pool, heard = hear(workers=1, breaker=BreakerPolicy(failures=1, probe_after=60))
    with pytest.raises(ZeroDivisionError):
        pool.execute("fail", ("ZeroDivisionError",))
    with pytest.raises(CircuitOpen):
        pool.execute("fail", ("ZeroDivisionError",))
    until(lambda: heard.of(events.RequestFailed))
    assert heard.of(events.BreakerStateChanged) == [
        events.BreakerStateChanged("fail", "closed", "open")
    ]
    assert heard.of(events.RequestFailed)[0].error == "CircuitOpen"


def test_reruns_and_retries_are_told(hear, tmp_path) -> None:
    pool, heard = hear(workers=1)
    with pytest.raises(WorkerDied):
        pool.execute("die", retries=1)
    until(lambda: heard.of(events.RequestFailed))
    (retry,) = heard.of(events.RetryScheduled)
    assert (retry.tool, retry.attempt) == ("die", 2)
    assert retry.delay > 0
    assert [event.attempt for event in heard.of(events.RequestStarted)] == [1, 2]


def test_sessions_are_told_by_every_pool_of_a_store(quiet_hub: EventHub) -> None:
    heard = Heard()
    with small_store() as store:
        store.announcers.add(quiet_hub)
        store.create_session("unheard")
        with quiet_hub.subscribe(heard.append):
            store.create_session("s")
            store.create_session("s")  # it exists
            store.delete_session("s")
            store._freeze_clock(0)
            store.create_session("t", ttl=1)
            store._freeze_clock(2 * 10**9)
            store.cleanup_expired_sessions()
            until(lambda: len(heard) == 4)
    assert heard == [
        SessionCreated("s"),
        SessionDeleted("s"),
        SessionCreated("t"),
        events.SessionsExpired(1),
    ]


def test_only_what_was_asked_for_is_told(quiet_hub: EventHub) -> None:
    heard = Heard()
    with quiet_hub.subscribe(heard.append, (SessionDeleted,)):
        quiet_hub.publish(SessionCreated("s"))
        quiet_hub.publish(SessionDeleted("s"))
        until(lambda: heard)
    assert heard == [SessionDeleted("s")]


def test_nothing_is_told_after_close(quiet_hub: EventHub) -> None:
    heard = Heard()
    entered, leave = threading.Event(), threading.Event()

    def slow(event: TelemetryEvent) -> None:
        entered.set()
        assert leave.wait(scaled(10))
        heard.append(event)

    subscription = quiet_hub.subscribe(slow)
    quiet_hub.publish(SessionCreated("a"))
    quiet_hub.publish(SessionCreated("b"))
    assert entered.wait(scaled(10))
    threading.Timer(0.05, leave.set).start()
    subscription.close()
    assert heard == [SessionCreated("a")]
    assert not quiet_hub.active


def test_a_subscriber_may_raise_and_close_itself(quiet_hub: EventHub, caplog) -> None:
    heard = Heard()

    def rude(event: TelemetryEvent) -> None:
        heard.append(event)
        if len(heard) == 2:
            subscription.close()
        raise SystemExit("rude")

    with caplog.at_level(logging.ERROR, logger="snakepit_mp"):
        subscription = quiet_hub.subscribe(rude)
        for name in "abc":
            quiet_hub.publish(SessionCreated(name))
        until(lambda: not quiet_hub.active)
    until(lambda: caplog.text.count("SystemExit: rude") == 2)
    assert len(heard) == 2


def test_a_slow_subscriber_loses_the_oldest_and_is_told_so(
    quiet_hub: EventHub, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(hub, "QUEUE_SIZE", 2)
    heard = Heard()
    entered, leave = threading.Event(), threading.Event()

    def slow(event: TelemetryEvent) -> None:
        entered.set()
        assert leave.wait(scaled(10))
        heard.append(event)

    caplog.set_level(logging.WARNING, logger="snakepit_mp")
    with quiet_hub.subscribe(slow) as subscription:
        quiet_hub.publish(SessionCreated("0"))
        assert entered.wait(scaled(10))
        for number in range(1, 6):
            quiet_hub.publish(SessionCreated(str(number)))
        leave.set()
        until(lambda: len(heard) == 3)
    assert [event.session_id for event in heard] == ["0", "4", "5"]
    assert subscription.dropped == 3
    assert "it has missed 3 events" in caplog.text


@FORKS
def test_a_forked_copy_tells_nobody(quiet_hub: EventHub) -> None:
    heard = Heard()
    with small_store() as store:
        store.announcers.add(quiet_hub)
        with quiet_hub.subscribe(heard.append) as subscription, subscription._changed:
            assert in_child(lambda: store.create_session("of the child")) == 0
        assert store.exists("of the child")
    assert heard == []


def test_subscriber_that_blocks_holds_up_nobody(make_pool, gate: Gate) -> None:
    pool = make_pool(workers=1)
    leave = threading.Event()
    pool.subscribe(lambda event: leave.wait(scaled(30)))
    for number in range(20):
        assert pool.execute("add", (number, 1)) == number + 1
    leave.set()


def test_subscriber_may_call_the_pool(make_pool) -> None:
    pool = make_pool(workers=1)
    results: list[int] = []

    def ask(event: TelemetryEvent) -> None:
        if not results:
            results.append(pool.execute("add", (20, 22)))

    pool.subscribe(ask, events.RequestCompleted)
    pool.execute("add", (1, 2))
    until(lambda: results == [42])


def test_what_is_no_kind_is_refused(make_pool) -> None:
    pool = make_pool(workers=1, ready=False)
    with pytest.raises(ConfigError, match="int"):
        pool.subscribe(print, int)
