"""Deadlines and cancellation: a tool is interrupted, and only where that fails its worker killed."""

from __future__ import annotations

import itertools
import random
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from fault_adapters import Stubborn, words
from fix_pool import until
from fix_timeouts import scaled

from snakepit_mp import Pool
from snakepit_mp.errors import TaskTimeout

#: Seconds; short, since these tests wait for its end.
GRACE = 0.4


@pytest.fixture
def pool(make_pool) -> Pool:
    """One worker, so that the next call meets whatever the last one left."""
    return make_pool(Stubborn, workers=1, grace=scaled(30))


@pytest.fixture
def hasty(make_pool) -> Pool:
    """The same, without patience."""
    return make_pool(Stubborn, workers=1, grace=GRACE)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def entered(ledger: Path) -> None:
    until(lambda: "entered" in words(ledger))


@pytest.mark.parametrize("tool", ["sleep", "wait_for_lock", "spin", "sleep_async"])
def test_deadline_stops_the_tool_and_spares_the_worker(pool: Pool, ledger: Path, tool: str):
    pid = pool.execute("pid")
    before = time.monotonic()

    with pytest.raises(TaskTimeout) as caught:
        pool.execute(tool, {"path": str(ledger)}, timeout=0.2)

    assert time.monotonic() - before < scaled(5)
    assert caught.value.entered
    assert pool.execute("pid", timeout=scaled(10)) == pid
    assert pool.stats().worker_deaths == 0


def test_interrupted_tool_tidies_up(pool: Pool, ledger: Path):
    with pytest.raises(TaskTimeout):
        pool.execute("sleep", {"path": str(ledger)}, timeout=0.2)
    pool.drain(scaled(10))

    assert words(ledger) == ["entered", "tidied"]


def test_interrupted_coroutine_is_cancelled_and_the_loop_goes_on(pool: Pool, ledger: Path):
    with pytest.raises(TaskTimeout):
        pool.execute("sleep_async", {"path": str(ledger)}, timeout=0.2)

    assert pool.execute("answer_async", (1,), timeout=scaled(10)) == 1
    assert words(ledger) == ["entered", "cancelled"]


def test_coroutine_that_blocks_its_loop_is_interrupted_at_half_of_grace(make_pool, ledger: Path):
    pool = make_pool(Stubborn, workers=1, grace=scaled(2))
    pid = pool.execute("pid")

    with pytest.raises(TaskTimeout):
        pool.execute("block_async", {"path": str(ledger)}, timeout=0.2)

    assert pool.execute("pid", timeout=scaled(10)) == pid
    assert pool.execute("answer_async", (1,)) == 1


def test_cancel_stops_running_work_and_spares_the_worker(pool: Pool, ledger: Path):
    pid = pool.execute("pid")
    future = pool.submit("sleep", {"path": str(ledger)})
    entered(ledger)

    assert future.cancel()

    with pytest.raises(CancelledError):
        future.result(scaled(10))
    assert pool.execute("pid", timeout=scaled(10)) == pid
    assert words(ledger) == ["entered", "tidied"]


def test_cancel_in_the_first_moments_spares_the_worker(pool: Pool):
    """Before the request is sent, before it is taken, before it is entered: none of it is lost."""
    pid = pool.execute("pid")
    for _ in range(100):
        future = pool.submit("nap", (0.001, "x"))
        if not future.cancel():
            assert future.result() == "x"

    assert pool.execute("pid", timeout=scaled(20)) == pid
    assert pool.stats().worker_deaths == 0


@pytest.mark.parametrize("tool", ["swallow", "ignore_signals", "hold_the_interpreter"])
def test_tool_that_does_not_stop_is_killed_after_grace(hasty: Pool, ledger: Path, tool: str):
    pid = hasty.execute("pid")
    future = hasty.submit(tool, {"path": str(ledger)}, timeout=scaled(1))
    entered(ledger)
    before = time.monotonic()

    assert isinstance(future.exception(scaled(10)), TaskTimeout)
    assert hasty.execute("pid", timeout=scaled(20)) != pid

    assert time.monotonic() - before < scaled(1) + GRACE + scaled(2)


def test_stopped_tool_is_killed_after_grace(make_pool, ledger: Path):
    pool = make_pool(Stubborn, workers=1, grace=scaled(2))
    pid = pool.execute("pid")

    with pytest.raises(TaskTimeout):
        pool.execute("stop_myself", {"path": str(ledger)}, timeout=scaled(0.7))

    assert pool.execute("pid", timeout=scaled(20)) != pid
    assert words(ledger) == ["entered"]


def test_tool_that_swallows_the_interrupt_hears_it_twice(hasty: Pool, ledger: Path):
    future = hasty.submit("swallow", {"path": str(ledger)})
    entered(ledger)
    future.cancel()
    hasty.drain(scaled(10))

    assert words(ledger) == ["entered", "swallowed", "swallowed"]


def test_value_that_comes_too_late_is_dropped_and_the_worker_spared(pool: Pool, ledger: Path):
    pid = pool.execute("pid")

    with pytest.raises(TaskTimeout):
        pool.execute("swallow_and_return", {"path": str(ledger)}, timeout=0.2)

    assert pool.execute("pid", timeout=scaled(10)) == pid


def test_worker_that_is_stopped_before_its_call_is_replaced(hasty: Pool, ledger: Path):
    hasty.submit("stop_myself", {"path": str(ledger)})
    entered(ledger)

    with pytest.raises(TaskTimeout) as caught:
        hasty.execute("pid", timeout=0.2)
    assert not caught.value.entered


@pytest.mark.parametrize("tool", ["stall", "stall_async"])
def test_closing_a_stream_that_stalls_interrupts_it(pool: Pool, ledger: Path, tool: str):
    pid = pool.execute("pid")
    stream = pool.stream(tool, {"path": str(ledger)})
    assert next(stream) == 1
    entered(ledger)

    stream.close()

    assert pool.execute("pid", timeout=scaled(10)) == pid
    assert words(ledger) == ["entered", "tidied"]


def test_closing_a_stream_does_not_interrupt_its_tidying(pool: Pool, ledger: Path):
    stream = pool.stream("tidy_slowly", {"path": str(ledger)})
    assert next(stream) == 1

    stream.close()
    pool.drain(scaled(10))

    assert words(ledger) == ["tidied"]


@pytest.mark.parametrize("tool", ["stall", "stall_async"])
def test_item_that_does_not_come_in_time(pool: Pool, ledger: Path, tool: str):
    pid = pool.execute("pid")
    stream = pool.stream(tool, {"path": str(ledger)}, timeout=0.3)
    assert next(stream) == 1
    before = time.monotonic()

    with pytest.raises(TaskTimeout):
        next(stream)

    assert time.monotonic() - before < scaled(3)
    assert pool.execute("pid", timeout=scaled(10)) == pid
    assert words(ledger) == ["entered", "tidied"]


def test_interrupt_never_hits_the_next_call(make_pool):
    """Lengths scattered around the deadline: whatever wins the race, nobody else notices."""
    pool = make_pool(Stubborn, workers=2, grace=scaled(30))
    dice = random.Random(7)
    for number in range(150):
        limit = dice.uniform(0.002, 0.008)
        try:
            value = pool.execute("nap", (dice.uniform(0.001, 0.008), number), timeout=limit)
        except TaskTimeout:
            continue
        assert value == number
        assert pool.execute("echo", (number,)) == number

    assert pool.stats().worker_deaths == 0
    assert pool.stats().restarts == 0


def test_interrupt_leaves_the_store_usable(pool: Pool, ledger: Path):
    """It is put off while the tool is inside the library, where locks are held."""
    with pool.session() as session:
        session["number"] = 0
        for _ in range(10):
            with pytest.raises(TaskTimeout):
                session.execute("write_for_ever", {"path": str(ledger)}, timeout=0.05)
        pool.drain(scaled(10))

        seen = session["number"]
        session["number"] = -1
        assert session["number"] == -1
        assert seen > 0
    assert pool.stats().worker_deaths == 0


def test_ctx_tells_that_the_caller_has_gone(pool: Pool, ledger: Path):
    pid = pool.execute("pid")
    future = pool.submit("watch_ctx", {"path": str(ledger)})
    entered(ledger)

    assert future.cancel()

    assert pool.execute("pid", timeout=scaled(10)) == pid
    assert set(words(ledger)) >= {"entered", "saw-it"}
    assert "too-early" not in words(ledger)


def test_many_cancelled_calls_leave_every_worker_usable(make_pool):
    pool = make_pool(Stubborn, workers=2, grace=scaled(30))
    futures = [pool.submit("nap", (0.01, number)) for number in range(60)]
    for future in itertools.islice(futures, 0, None, 2):
        future.cancel()

    kept = [future.result(scaled(30)) for future in futures[1::2]]

    assert kept == list(range(1, 60, 2))
    assert pool.stats().worker_deaths == 0
