"""The janitor sweeps until it is stopped, and survives a busy stripe."""

from __future__ import annotations

import logging
import os
import threading

import pytest
from fix_store import FORKS, in_child, small_store
from fix_timeouts import scaled

from snakepit_mp.errors import StoreBusy, StoreClosed
from snakepit_mp.store.janitor import Janitor
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS


def test_it_sweeps_again_and_again_and_stops() -> None:
    rounds = threading.Semaphore(0)
    janitor = Janitor(rounds.release, 0.001)
    for _ in range(3):
        assert rounds.acquire(timeout=scaled(5))
    janitor.stop()
    assert not janitor._thread.is_alive()


def test_a_busy_stripe_is_logged_and_left_for_later(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    outcomes = iter([StoreBusy("stopped"), None])

    def sweep() -> None:
        outcome = next(outcomes, None)
        if outcome is not None:
            raise outcome
        done.set()

    with caplog.at_level(logging.WARNING, logger="snakepit_mp"):
        janitor = Janitor(sweep, 0.001)
        assert done.wait(scaled(5))
        janitor.stop()
    assert "stopped" in caplog.text


def test_it_ends_with_the_store() -> None:
    def sweep() -> None:
        raise StoreClosed("closed")

    janitor = Janitor(sweep, 0.001)
    janitor._thread.join(scaled(5))
    assert not janitor._thread.is_alive()


def test_a_store_that_sweeps_removes_what_has_expired() -> None:
    with small_store(sweep_interval=0.001) as store:
        gone = threading.Event()
        sweep = store._sweeper.sweep

        def observed(budget: float) -> int:
            removed = sweep(budget)
            if removed:
                gone.set()
            return removed

        store._sweeper.sweep = observed  # type: ignore[method-assign]
        store.create_session("s", ttl=0.001)
        store.start_sweeping()
        store.start_sweeping()  # one is enough
        assert gone.wait(scaled(5))
        assert "0 sessions" in repr(store)


def test_a_forked_process_does_not_sweep() -> None:
    with small_store() as store:
        store.start_sweeping()

        def child() -> None:
            store.after_fork()
            assert store.janitor is None
            store.close()

        assert in_child(child) == 0


def test_one_process_leads_and_another_takes_over() -> None:
    with small_store() as store:
        assert store._locks.leads()
        assert store._locks.leads()  # as long as it lives
        assert in_child(lambda: expect(not store._locks.leads())) == 0
    with small_store() as store:
        # The child leads, and takes that with it.
        assert in_child(lambda: expect(store._locks.leads())) == 0
        assert store._locks.leads()


def expect(truth: bool) -> None:
    assert truth


def test_who_does_not_lead_does_not_sweep() -> None:
    turns = threading.Semaphore(0)
    swept = threading.Event()

    def leads() -> bool:
        turns.release()
        return False

    janitor = Janitor(swept.set, 0.001, leads)
    for _ in range(3):
        assert turns.acquire(timeout=scaled(5))
    janitor.stop()
    assert not swept.is_set()


def test_who_stops_sweeping_lets_another_lead() -> None:
    with small_store(sweep_interval=0.001) as store:
        other = SessionStore.attach(map(os.dup, store.descriptors()), store.config)
        swept = threading.Event()
        other._sweeper.sweep = lambda budget: swept.set()  # type: ignore[assignment]
        other.start_sweeping()
        assert swept.wait(scaled(5))
        other.close()  # this process still has the file of locks
        assert in_child(lambda: expect(store._locks.leads())) == 0


def test_an_error_is_logged_and_the_sweeping_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with small_store(sweep_interval=0.001) as store:
        sweep, failed, swept = store._sweeper.sweep, threading.Event(), threading.Event()

        def fail_once(budget: float) -> int:
            if not failed.is_set():
                failed.set()
                raise ZeroDivisionError("sweeping failed")
            removed = sweep(budget)
            if removed:
                swept.set()
            return removed

        store._sweeper.sweep = fail_once  # type: ignore[method-assign]
        with caplog.at_level(logging.ERROR, logger="snakepit_mp"):
            store.start_sweeping()
            assert failed.wait(scaled(5))
            store.create_session("s", ttl=0.001)
            assert swept.wait(scaled(5))
        assert store.janitor is not None
        assert store.janitor.life.restarts == 1
    assert "ZeroDivisionError: sweeping failed" in caplog.text
