"""The engine where something breaks that must not: nobody waits for ever, nothing is left."""

from __future__ import annotations

import pytest
from fix_pool import Gate
from fix_timeouts import scaled

from snakepit_mp.errors import PoolClosed, PoolError, WorkerDied


class Bug(Exception):
    pass


def test_error_in_the_brain_ends_every_call_and_the_pool(make_pool, gate: Gate, caplog):
    pool = make_pool(workers=1)
    running = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()
    waiting = pool.submit("add", (1, 2))

    def broken(event: object, now: float) -> None:
        raise Bug("thinking failed")

    pool._engine._state.handle = broken
    with pytest.raises(Bug):
        pool.execute("add", (1, 2))

    for future in (running, waiting):
        error = future.exception(scaled(10))
        assert isinstance(error, PoolError)
        assert isinstance(error.__cause__, Bug)
    with pytest.raises(PoolClosed) as caught:
        pool.execute("add", (1, 2))
    assert isinstance(caught.value.__cause__, Bug)
    assert "the pool broke" in caplog.text
    pool.shutdown()


def test_error_in_the_watcher_ends_every_call_and_the_pool(make_pool, gate: Gate):
    pool = make_pool(workers=1)
    running = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()

    def broken() -> None:
        raise Bug("watching failed")

    pool._engine.watcher.call(broken)

    error = running.exception(scaled(10))
    assert isinstance(error, PoolError)
    assert isinstance(error.__cause__, Bug)
    pool.shutdown()


def test_reply_that_is_none_costs_its_worker_and_its_call(make_pool, caplog):
    """It comes in a thread of the lane, where nobody would see an exception."""
    pool = make_pool(workers=1)
    incarnation = pool._engine._workers.all()[0]
    begin = incarnation.lane.begin

    def garbled(frame, done):
        begin(frame, lambda reply: done(b"nonsense"))

    incarnation.lane.begin = garbled
    future = pool.submit("add", (1, 2))

    error = future.exception(scaled(10))
    assert isinstance(error, WorkerDied)
    assert error.entered
    assert "sent what is no reply" in caplog.text
    assert pool.execute("add", (1, 2)) == 3
    assert pool.workers()[0].incarnation == 2
