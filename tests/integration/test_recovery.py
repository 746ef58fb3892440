"""Pools get well again: after failed starts, without their fork server, with silent workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from fault_adapters import Choosy, Stubborn
from fix_pool import Gate, until
from fix_timeouts import scaled
from pool_adapters import PlainError

from snakepit_mp import Pool, RestartPolicy
from snakepit_mp.errors import PoolClosed, WorkerDied, WorkerStartError
from snakepit_mp.runtime import heartbeat

ONCE = RestartPolicy(max_restarts=0)


# -- restart ------------------------------------------------------------------------------


def test_restart_after_the_adapter_could_not_start(make_pool, tmp_path: Path):
    sign = tmp_path / "sign"
    pool = make_pool(Choosy, ready=False, env={"CHOOSY": str(sign)}, restart=ONCE)
    for _ in range(2):
        with pytest.raises(WorkerStartError, match="no sign") as caught:
            pool.execute("echo", (1,), timeout=scaled(30))
        assert isinstance(caught.value.__cause__, PlainError)
        assert "in start" in str(caught.value.__cause__.__cause__)  # the remote traceback
    sign.touch()

    pool.restart()
    pool.await_ready(scaled(20), workers=2)

    assert pool.execute("echo", (1,)) == 1


def test_restart_after_the_adapter_could_not_be_imported(make_pool, tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "late_module.py"
    module.write_text("raise ImportError('not yet')")
    pool = make_pool("late_module:Late", ready=False)
    with pytest.raises(WorkerStartError, match="could not be imported"):
        pool.execute("echo", (1,), timeout=scaled(30))
    module.write_text(
        "from snakepit_mp import Adapter, tool\n"
        "class Late(Adapter):\n"
        "    @tool\n"
        "    def echo(self, value): return value\n"
    )

    pool.restart()

    assert pool.execute("echo", (1,), timeout=scaled(30)) == 1


def test_restart_leaves_a_pool_alone_that_is_well(fresh_pool: Pool):
    before = fresh_pool.workers()
    fresh_pool.restart()
    assert [row.pid for row in fresh_pool.workers()] == [row.pid for row in before]


def test_restart_of_a_closed_pool(make_pool):
    pool = make_pool()
    pool.shutdown()
    with pytest.raises(PoolClosed):
        pool.restart()


# -- the fork server ----------------------------------------------------------------------


def test_pool_is_whole_again_within_a_second(make_pool):
    pool = make_pool(workers=4)
    server, _ = pool.execute("where")[1], pool.execute("add", (1, 2))
    old = {row.pid for row in pool.workers()}
    before = time.monotonic()

    os.kill(server, signal.SIGKILL)
    until(lambda: not old & {row.pid for row in pool.workers()})
    pool.await_ready(scaled(20), workers=4)

    # A second on a machine that has nothing else to do; this one tests other things as well.
    assert time.monotonic() - before < scaled(5)


def test_stopped_fork_server_is_continued(fresh_pool: Pool, caplog):
    server = fresh_pool.execute("where")[1]

    os.kill(server, signal.SIGSTOP)
    with pytest.raises(WorkerDied):
        fresh_pool.execute("die")
    fresh_pool.await_ready(scaled(20), workers=2)

    until(lambda: "the fork server was stopped" in caplog.text)
    assert fresh_pool.execute("where")[1] == server


def test_stopped_guard_is_continued(fresh_pool: Pool, caplog):
    server = fresh_pool.execute("where")[1]
    guard = psutil.Process(server).parent()
    assert guard is not None

    for pid in (guard.pid, server):
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(WorkerDied):
        fresh_pool.execute("die")
    fresh_pool.await_ready(scaled(20), workers=2)

    until(lambda: "the fork server was stopped" in caplog.text)
    assert "the guard was stopped" in caplog.text
    assert fresh_pool.execute("where")[1] == server
    assert psutil.Process(server).ppid() == guard.pid


# -- silence ------------------------------------------------------------------------------


def test_idle_worker_that_is_stopped_is_replaced(make_pool):
    pool = make_pool(workers=1, grace=0.2)
    pid = pool.execute("where")[0]

    os.kill(pid, signal.SIGSTOP)

    until(lambda: pool.workers()[0].pid not in (pid, None))
    assert pool.execute("add", (1, 2)) == 3
    assert pool.stats().worker_deaths == 0


def test_idle_worker_that_is_continued_in_time_lives_on(make_pool):
    pool = make_pool(workers=1, grace=scaled(30))
    pid = pool.execute("where")[0]

    os.kill(pid, signal.SIGSTOP)
    until(lambda: pool.workers()[0].state == "RECONNECTING")
    future = pool.submit("where")
    os.kill(pid, signal.SIGCONT)

    assert future.result(scaled(10))[0] == pid


def test_worker_that_is_stopped_under_a_call_without_deadline(make_pool, gate: Gate):
    pool = make_pool(workers=1, grace=0.2)
    future = pool.submit("note_and_wait", gate.args)
    pid = gate.wait_entered()

    os.kill(pid, signal.SIGSTOP)

    error = future.exception(scaled(10))
    assert isinstance(error, WorkerDied)
    assert (error.pid, error.entered) == (pid, True)


def test_idle_worker_that_does_not_answer_is_replaced(make_pool, monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.2)
    pool = make_pool(Stubborn, workers=1, grace=0.2)
    pid = pool.execute("pid")

    pool.execute("leave_a_thread_that_holds_the_interpreter")

    until(lambda: pool.workers()[0].pid not in (pid, None), 20)
    assert pool.execute("echo", (1,), timeout=scaled(20)) == 1


def test_long_call_that_answers_nobody_is_left_alone(make_pool, monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.05)
    pool = make_pool(Stubborn, workers=1, grace=0.1)
    pid = pool.execute("pid")

    assert pool.execute("compute_in_c", {"seconds": 1.0}) > 0

    assert pool.execute("pid") == pid
