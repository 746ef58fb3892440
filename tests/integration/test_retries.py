"""What is run again, how often and when; a ledger of what ran is compared with what is claimed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from fault_adapters import Flaky, words
from fix_pool import until
from fix_timeouts import scaled
from pool_adapters import PlainError

from snakepit_mp import Pool
from snakepit_mp.errors import ConfigError, PoisonTaskError, TaskTimeout, WorkerDied


@pytest.fixture
def pool(make_pool) -> Pool:
    return make_pool(Flaky, workers=2)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def test_declared_exception_is_retried_until_it_succeeds(pool: Pool, ledger: Path):
    assert pool.execute("connect", {"path": str(ledger), "failures": 2}) == 3
    assert words(ledger) == ["1", "2", "3"]
    assert pool.stats().retried == 2
    assert pool.stats().completed == 1


def test_last_failure_is_raised_when_retries_are_used_up(pool: Pool, ledger: Path):
    with pytest.raises(ConnectionResetError, match="attempt 4"):
        pool.execute("connect", {"path": str(ledger), "failures": 9})

    assert words(ledger) == ["1", "2", "3", "4"]


def test_other_exceptions_are_not_retried(pool: Pool, ledger: Path):
    with pytest.raises(PlainError):
        pool.execute("fail_otherwise", {"path": str(ledger)})

    assert words(ledger) == ["1"]


def test_future_is_retried_as_well(pool: Pool, ledger: Path):
    future = pool.submit("connect", {"path": str(ledger), "failures": 1})

    assert future.result(scaled(10)) == 2
    failing = pool.submit("connect", {"path": str(ledger), "failures": 9}, retries=0)
    assert isinstance(failing.exception(scaled(10)), ConnectionResetError)
    assert words(ledger) == ["1", "2", "1"]


def test_call_decides_over_the_tool(pool: Pool, ledger: Path):
    with pytest.raises(ConnectionResetError, match="attempt 2"):
        pool.execute("connect", {"path": str(ledger), "failures": 9}, retries=1)

    assert words(ledger) == ["1", "2"]


def test_death_in_the_tool_is_retried_where_the_call_says_so(pool: Pool, ledger: Path):
    args = {"path": str(ledger), "deaths": 1}

    with pytest.raises(WorkerDied, match="attempt 1"):
        pool.execute("die", args)
    assert pool.execute("die", args, retries=2) == 2
    assert words(ledger) == ["1", "1", "2"]


@pytest.mark.usefixtures("patience")
def test_death_is_told_when_retries_are_used_up(pool: Pool, ledger: Path):
    with pytest.raises(WorkerDied) as caught:
        pool.execute("die", {"path": str(ledger), "deaths": 9}, retries=1)

    assert (caught.value.attempt, caught.value.signal) == (2, "SIGKILL")
    assert words(ledger) == ["1", "2"]


def test_quarantine_comes_before_retries(make_pool, ledger: Path):
    pool = make_pool(Flaky, workers=1, poison_after=2)

    with pytest.raises(PoisonTaskError):
        pool.execute("die", {"path": str(ledger), "deaths": 9}, retries=9)

    assert words(ledger) == ["1", "2"]


def test_attempts_wait_longer_and_longer(pool: Pool, ledger: Path):
    before = time.monotonic()

    pool.execute("connect", {"path": str(ledger), "failures": 3})

    # 0.1, 0.2 and 0.4 seconds, each a quarter shorter at the least
    assert time.monotonic() - before > 0.7 * 0.75


def test_no_attempt_is_made_that_the_deadline_does_not_allow(pool: Pool, ledger: Path):
    """The failure is told at once, not a time-out after a wait that cannot help."""
    with pytest.raises(ConnectionResetError, match="attempt 1"):
        pool.execute("connect", {"path": str(ledger), "failures": 9}, timeout=0.07)

    assert words(ledger) == ["1"]


def test_timed_out_call_is_not_retried(pool: Pool, ledger: Path):
    with pytest.raises(TaskTimeout):
        pool.execute("hang", {"path": str(ledger)}, timeout=0.2)
    pool.drain(scaled(10))

    assert words(ledger) == ["1"]


def test_waiting_retry_can_be_cancelled(pool: Pool, ledger: Path):
    future = pool.submit("connect", {"path": str(ledger), "failures": 99}, retries=99)
    until(lambda: len(words(ledger)) >= 3)

    assert future.cancel()
    pool.drain(scaled(10))

    assert pool.stats().cancelled == 1


def test_stream_is_retried_only_before_its_first_item(pool: Pool, ledger: Path):
    args = {"path": str(ledger), "failures": 1}

    assert list(pool.stream("items", {**args, "before": True})) == [2]
    items = pool.stream("items", {**args, "before": False})
    assert next(items) == 1
    with pytest.raises(ConnectionResetError):
        next(items)
    assert words(ledger) == ["1", "2", "1"]


def test_map_retries_each_item(pool: Pool, tmp_path: Path):
    items = [{"path": str(tmp_path / str(n)), "failures": n % 2} for n in range(4)]

    assert list(pool.map("connect", items)) == [1, 2, 1, 2]


def test_shutdown_finishes_what_waits_for_its_next_attempt(make_pool, ledger: Path):
    with make_pool(Flaky, workers=1) as pool:
        future = pool.submit("connect", {"path": str(ledger), "failures": 2})
        until(lambda: words(ledger))

    assert future.result(0) == 3


@pytest.mark.parametrize("retries", [-1, 1.5, "2", True])
def test_wrong_number_of_retries(pool: Pool, retries: object):
    with pytest.raises(ConfigError, match="retries"):
        pool.execute("connect", {"path": "", "failures": 0}, retries=retries)  # type: ignore[arg-type]


def test_nothing_runs_twice_that_was_not_declared(make_pool, tmp_path: Path):
    """Workers are killed at random while marked calls run: the ledger knows what was entered."""
    pool = make_pool(Flaky, workers=2, poison_after=100)
    plain, safe = tmp_path / "plain", tmp_path / "safe"
    plain_calls = [pool.submit("mark", {"path": str(plain), "name": f"p{n}"}) for n in range(40)]
    safe_calls = [
        pool.submit("mark_safely", {"path": str(safe), "name": f"s{n}"}) for n in range(40)
    ]
    for _ in range(8):
        seen = len(words(plain)) + len(words(safe))
        until(lambda seen=seen: len(words(plain)) + len(words(safe)) >= min(seen + 5, 80))
        victim = next((row.pid for row in pool.workers() if row.pid is not None), None)
        if victim is not None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(victim, signal.SIGKILL)

    outcomes = [future.exception(scaled(30)) for future in plain_calls]
    entered = words(plain)
    for number, outcome in enumerate(outcomes):
        runs = entered.count(f"p{number}")
        if outcome is None:
            assert runs == 1
        else:  # it may have died between the note that it enters the tool and the tool's own
            assert isinstance(outcome, WorkerDied)
            assert outcome.entered
            assert runs <= 1
    assert [future.exception(scaled(30)) for future in safe_calls] == [None] * 40
    assert all(words(safe).count(f"s{number}") >= 1 for number in range(40))
