"""A worker has died: its caller is told what can be known."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
from fault_adapters import Doomed, Stubborn, words
from fix_pool import until
from fix_timeouts import scaled

from snakepit_mp import Pool
from snakepit_mp.errors import PoisonTaskError, TaskTimeout, WorkerDied

pytestmark = pytest.mark.usefixtures("patience")


@pytest.fixture
def pool(make_pool) -> Pool:
    return make_pool(Doomed, workers=1)


def death(pool: Pool, tool: str, **args: object) -> WorkerDied:
    with pytest.raises(WorkerDied) as caught:
        pool.execute(tool, args)
    return caught.value


@pytest.mark.parametrize(
    ("tool", "name"), [("read_nowhere", "SIGSEGV"), ("abort", "SIGABRT"), ("bus", "SIGBUS")]
)
def test_fatal_signal_has_a_name_and_a_stack(pool: Pool, tool: str, name: str):
    error = death(pool, tool)

    assert (error.signal, error.exit_code, error.oom) == (name, None, False)
    assert f"in {tool}" in error.stack
    assert f"in {tool}" in str(error)


def test_memory_and_time_are_told(pool: Pool):
    error = death(pool, "grow_and_die", size=80_000_000, seconds=0.2)

    assert error.peak_rss is not None
    assert 80_000_000 < error.peak_rss < 2_000_000_000
    assert error.duration is not None
    assert 0.2 <= error.duration < scaled(30)
    assert "with at most" in str(error)


def test_last_words_are_told(pool: Pool):
    error = death(pool, "complain_and_die", lines=2000)

    lines = error.stderr.splitlines()
    assert lines[-1] == "complaint 1999"
    assert 100 < len(lines) < 2000
    assert str(error).endswith("complaint 1999")


def test_what_was_logged_to_standard_error_is_among_them(pool: Pool):
    assert "logged before the end" in death(pool, "log_and_die").stderr


def test_what_was_logged_last_arrives(pool: Pool, caplog):
    death(pool, "log_and_die")
    until(lambda: "logged before the end" in caplog.text)


def test_exit_is_no_signal(pool: Pool):
    error = death(pool, "leave_with", code=9)

    assert (error.exit_code, error.signal, error.stack) == (9, None, "")
    assert "exited with code 9" in str(error)


def test_error_can_be_pickled(pool: Pool):
    error = death(pool, "abort")

    again = pickle.loads(pickle.dumps(error))

    assert vars(again) == vars(error)
    assert str(again) == str(error)


def test_each_death_of_a_poisonous_call_is_told(make_pool):
    pool = make_pool(Doomed, workers=1, poison_after=2)

    with pytest.raises(PoisonTaskError) as caught:
        pool.execute("abort_safely")

    assert [error.attempt for error in caught.value.deaths] == [1, 2]
    assert all("in abort_safely" in error.stack for error in caught.value.deaths)
    assert str(caught.value).count("SIGABRT") == 2


def test_death_of_a_start_is_not_forgotten_by_the_next_incarnation(pool: Pool):
    first = death(pool, "complain_and_die", lines=1)
    second = death(pool, "abort")

    assert first.stderr == "complaint 0\n"
    assert second.stderr == ""
    assert first.pid != second.pid


def test_where_a_tool_hung_is_logged_when_it_is_killed(make_pool, tmp_path: Path, caplog):
    pool = make_pool(Stubborn, workers=1, grace=0.2)
    ledger = tmp_path / "ledger"
    with caplog.at_level(logging.WARNING, "snakepit_mp"), pytest.raises(TaskTimeout):
        pool.execute("hold_the_interpreter", {"path": str(ledger)}, timeout=scaled(0.5))

    until(lambda: "in hold_the_interpreter" in caplog.text)
    assert "did not stop within grace" in caplog.text
    assert words(ledger) == ["entered"]
    assert pool.execute("echo", (1,)) == 1


def test_stopped_worker_cannot_tell_where_it_was(make_pool, tmp_path: Path, caplog):
    pool = make_pool(Stubborn, workers=1, grace=scaled(1))
    with caplog.at_level(logging.WARNING, "snakepit_mp"), pytest.raises(TaskTimeout):
        pool.execute("stop_myself", {"path": str(tmp_path / "ledger")}, timeout=scaled(0.5))

    until(lambda: "did not answer" in caplog.text)
    assert pool.execute("echo", (1,)) == 1
