"""Workers and the fork server are killed: who notices, what is run again, what is kept."""

from __future__ import annotations

import os
import signal
import time

import pytest
from fix_pool import Gate, until
from fix_timeouts import scaled
from pool_adapters import Tools

from snakepit_mp import Pool
from snakepit_mp.errors import PoisonTaskError, WorkerDied


def _pids(pool: Pool) -> set[int | None]:
    return {row.pid for row in pool.workers()}


def _fork_server(pool: Pool) -> int:
    return int(pool.execute("where")[1])


def test_idle_worker_is_replaced(fresh_pool: Pool):
    fresh_pool.execute("add", (1, 2))
    victim = fresh_pool.execute("where")[0]

    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in _pids(fresh_pool))
    fresh_pool.await_ready(scaled(10), workers=2)

    assert fresh_pool.execute("add", (1, 2)) == 3
    assert fresh_pool.stats().restarts == 1


@pytest.mark.usefixtures("patience")
def test_call_that_was_entered_fails_and_is_not_run_again(make_pool, gate: Gate):
    pool = make_pool(workers=1)
    future = pool.submit("note_and_wait", gate.args)
    pid = gate.wait_entered()

    os.kill(pid, signal.SIGKILL)

    error = future.exception(scaled(10))
    assert isinstance(error, WorkerDied)
    assert (error.pid, error.signal, error.exit_code) == (pid, "SIGKILL", None)
    assert (error.entered, error.attempt) == (True, 1)
    assert "idempotent=True" in str(error)
    assert pool.execute("add", (1, 2)) == 3
    assert gate.pids() == [pid]


def test_idempotent_call_is_run_again(make_pool, gate: Gate):
    pool = make_pool(workers=1)
    future = pool.submit("note_and_wait_again", gate.args)
    first = gate.wait_entered()

    os.kill(first, signal.SIGKILL)
    second = gate.wait_entered(2)
    gate.open()

    assert future.result(scaled(10)) == "open"
    assert gate.pids() == [first, second]
    assert second != first


def test_others_do_not_notice(make_pool, gate: Gate):
    pool = make_pool(workers=2)
    future = pool.submit("note_and_wait", gate.args)
    victim = gate.wait_entered()
    other = next(pid for pid in _pids(pool) if pid != victim)

    os.kill(victim, signal.SIGKILL)
    results = [pool.execute("add", (i, 0)) for i in range(20)]

    assert results == list(range(20))
    assert isinstance(future.exception(scaled(10)), WorkerDied)
    assert other in _pids(pool)


@pytest.mark.usefixtures("patience")
def test_request_that_kills_worker_after_worker(make_pool):
    pool = make_pool(workers=2, poison_after=3)

    with pytest.raises(PoisonTaskError) as caught:
        pool.execute("die_always")

    assert [death.signal for death in caught.value.deaths] == ["SIGKILL"] * 3
    assert [death.attempt for death in caught.value.deaths] == [1, 2, 3]
    assert len({death.pid for death in caught.value.deaths}) == 3
    assert pool.execute("add", (1, 2)) == 3


@pytest.mark.usefixtures("patience")
def test_exit_code_is_told(fresh_pool: Pool):
    with pytest.raises(WorkerDied, match="code 5") as caught:
        fresh_pool.execute("leave", {"code": 5})

    assert (caught.value.exit_code, caught.value.signal) == (5, None)


def test_death_is_noticed_although_a_grandchild_holds_the_sockets(make_pool):
    pool = make_pool(workers=1)
    pool.execute("fork_and_hold", {"seconds": 600.0})
    before = time.monotonic()

    with pytest.raises(WorkerDied):
        pool.execute("die")

    assert time.monotonic() - before < scaled(2)
    assert pool.execute("add", (1, 2)) == 3


def test_sessions_survive_the_death_of_all_workers(fresh_pool: Pool):
    with fresh_pool.session("u1") as session:
        session["x"] = [1, 2, 3]
        for pid in _pids(fresh_pool):
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

        assert fresh_pool.execute("read", {"name": "x"}, session_id="u1") == [1, 2, 3]


def test_fork_server_is_replaced_and_nothing_is_lost(fresh_pool: Pool):
    server = _fork_server(fresh_pool)
    with fresh_pool.session() as session:
        session["x"] = 1
        before = _pids(fresh_pool)

        os.kill(server, signal.SIGKILL)
        until(lambda: not before & _pids(fresh_pool))
        fresh_pool.await_ready(scaled(10), workers=2)

        assert session.execute("read", {"name": "x"}) == 1
    assert _fork_server(fresh_pool) != server


def test_calls_in_hand_when_the_fork_server_dies(make_pool, gate: Gate):
    pool = make_pool(workers=1)
    server = _fork_server(pool)
    future = pool.submit("note_and_wait_again", gate.args)
    gate.wait_entered()

    os.kill(server, signal.SIGKILL)
    gate.wait_entered(2)
    gate.open()

    assert future.result(scaled(10)) == "open"


@pytest.mark.parametrize("who", ["own_pid", "pid"], ids=["fork server", "guard"])
def test_deaths_of_the_fork_server_are_not_blamed_on_the_call(make_pool, gate: Gate, who: str):
    pool = make_pool(workers=1, poison_after=1)
    future = pool.submit("note_and_wait_again", gate.args)

    for times in (1, 2):
        gate.wait_entered(times)
        os.kill(getattr(pool._engine._servers.latest, who), signal.SIGKILL)
    gate.wait_entered(3)
    gate.open()

    assert future.result(scaled(10)) == "open"


def test_children_of_tools_die_with_the_fork_server(make_pool):
    pool = make_pool(workers=1)
    server = _fork_server(pool)
    child = pool.execute("spawn_child", {"marker": "orphan"})

    os.kill(server, signal.SIGKILL)

    until(lambda: not os.path.exists(f"/proc/{child}"))


def test_children_of_tools_die_with_their_worker(make_pool):
    pool = make_pool(workers=1)
    child = pool.execute("spawn_child", {"marker": "orphan"})

    os.kill(pool.execute("where")[0], signal.SIGKILL)

    until(lambda: not os.path.exists(f"/proc/{child}"))
    assert pool.execute("add", (1, 2)) == 3


def test_many_deaths_in_a_row(make_pool):
    pool = make_pool(workers=2)
    for _ in range(10):
        with pytest.raises(WorkerDied):
            pool.execute("die")
        assert pool.execute("add", (1, 2)) == 3

    assert pool.stats().worker_deaths == 10


def test_worker_and_fork_server_killed_at_once(fresh_pool: Pool):
    server = _fork_server(fresh_pool)
    victims = [pid for pid in _pids(fresh_pool) if pid is not None]

    for pid in (*victims, server):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not set(victims) & _pids(fresh_pool))

    assert fresh_pool.execute("add", (1, 2), timeout=scaled(10)) == 3


def test_workers_tell_about_themselves(pool: Pool):
    pool.execute("add", (1, 2))

    rows = pool.workers()

    assert [row.id for row in rows] == [0, 1]
    assert {row.state for row in rows} == {"READY"}
    assert all(row.address is not None and row.address.startswith("unix:") for row in rows)
    assert all(row.rss is not None and row.rss > 1 << 20 for row in rows)
    assert all(row.age is not None and row.age > 0 for row in rows)
    assert sum(row.tasks for row in rows) >= 1


def test_workers_account_for_themselves(make_pool):
    pool = make_pool(workers=1)
    pool.execute("sleep", (0.05,))

    incarnation = pool._engine._workers.get(0, 1)
    account = until(lambda: (a := incarnation.status.account()).rss and a)

    assert (account.incarnation, account.tasks) == (1, 1)
    assert 0.05 <= account.busy < scaled(10)
    assert account.rss > 1 << 20


def test_adapter_by_name(make_pool):
    pool = make_pool("pool_adapters:Tools", ready=False)

    assert pool.execute("add", (1, 2)) == 3


def test_adapter_imported_in_the_worker(make_pool):
    pool = make_pool("pool_adapters:Tools", ready=False, import_in="worker")

    assert pool.execute(Tools.add, (1, 2)) == 3
