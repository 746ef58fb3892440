"""How a pool ends: politely, by force, by Ctrl-C, by being forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from fix_pool import Gate, until
from fix_timeouts import scaled

from snakepit_mp import Pool, SessionStore
from snakepit_mp.errors import PoolClosed
from snakepit_mp.runtime.forkserver import ForkServer
from snakepit_mp.runtime.plan import ForkPlan


def test_shutdown_finishes_what_is_in_line_and_in_hand(make_pool, gate: Gate):
    pool = make_pool(workers=1)
    running = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()
    waiting = [pool.submit("add", (i, 0)) for i in range(5)]
    thread = threading.Thread(target=pool.shutdown)
    thread.start()
    until(lambda: "closed" in repr(pool))

    with pytest.raises(PoolClosed):
        pool.submit("add", (1, 2))
    gate.open()
    thread.join(scaled(10))

    assert not thread.is_alive()
    assert running.result(0) == "open"
    assert [future.result(0) for future in waiting] == list(range(5))


def test_shutdown_can_cancel_what_waits(make_pool, gate: Gate):
    pool = make_pool(workers=1)
    running = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()
    waiting = pool.submit("add", (1, 0))

    pool.shutdown(wait=False, cancel_futures=True)

    with pytest.raises(CancelledError):
        waiting.result(scaled(10))
    gate.open()
    assert running.result(scaled(10)) == "open"
    pool.shutdown()


def test_grace_bounds_the_shutdown(make_pool, gate: Gate):
    pool = make_pool(workers=1)
    running = pool.submit("note_and_wait", gate.args)
    pid = gate.wait_entered()
    before = time.monotonic()

    pool.shutdown(grace=0.05)

    assert time.monotonic() - before < scaled(5)
    with pytest.raises(CancelledError):
        running.result(0)
    assert not os.path.exists(f"/proc/{pid}")


def test_exception_in_the_with_block_cancels_and_kills(make_pool, gate: Gate):
    futures = []

    def leave_in_a_hurry() -> None:
        with make_pool(workers=1, grace=0.05) as pool:
            futures.append(pool.submit("note_and_wait", gate.args))
            gate.wait_entered()
            futures.append(pool.submit("add", (1, 2)))
            raise KeyError

    with pytest.raises(KeyError):
        leave_in_a_hurry()

    assert [future.cancelled() for future in futures] == [True, True]


def test_calls_after_shutdown_and_second_shutdown(fresh_pool: Pool):
    fresh_pool.shutdown()
    fresh_pool.shutdown()

    for call in (
        lambda: fresh_pool.execute("add", (1, 2)),
        lambda: fresh_pool.submit("add", (1, 2)),
        lambda: fresh_pool.stream("numbers", (1,)),
        lambda: fresh_pool.map("add", []),
        fresh_pool.session,
        fresh_pool.drain,
        fresh_pool.await_ready,
    ):
        with pytest.raises(PoolClosed, match="shut down"):
            call()


def test_shutdown_before_anything_is_ready(make_pool):
    for _ in range(5):
        pool = make_pool(ready=False, workers=4)

        pool.shutdown()

        assert {row.state for row in pool.workers()} == {"STOPPED"}


def test_shutdown_while_the_fork_server_is_started(make_pool, monkeypatch):
    """The order to stop overtakes the order to start, at the one point or the other."""
    start = ForkServer.start
    pool = make_pool()
    starting = threading.Event()

    def start_late(plan: ForkPlan, fds: tuple[int, ...]) -> ForkServer:
        server = start(plan, fds)
        pool.shutdown(wait=False)
        starting.set()
        return server

    monkeypatch.setattr(ForkServer, "start", start_late)
    os.kill(pool._engine._servers.latest.pid, signal.SIGKILL)
    assert starting.wait(scaled(10))

    pool.shutdown()

    assert {row.state for row in pool.workers()} == {"STOPPED"}


def test_drain_waits_for_the_work_and_leaves_the_pool_open(make_pool, gate: Gate):
    pool = make_pool(workers=1)
    running = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()

    with pytest.raises(TimeoutError, match="in hand"):
        pool.drain(0.02)
    gate.open()
    pool.drain(scaled(10))

    assert running.done()
    assert pool.execute("add", (1, 2)) == 3


def test_adapter_stop_runs_at_a_polite_end(make_pool, tmp_path: Path, monkeypatch):
    (tmp_path / "stopping.py").write_text(
        textwrap.dedent("""
            from pathlib import Path
            from snakepit_mp import Adapter

            class Tools(Adapter):
                def stop(self):
                    (Path(__file__).parent / "stopped").write_text("yes")
        """),
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = make_pool("stopping:Tools", workers=1)

    pool.shutdown()

    assert (tmp_path / "stopped").read_text() == "yes"


def test_adapter_that_does_not_stop_is_killed_after_the_grace(make_pool, tmp_path, monkeypatch):
    (tmp_path / "lingering.py").write_text(
        textwrap.dedent("""
            import time
            from snakepit_mp import Adapter

            class Tools(Adapter):
                def stop(self):
                    time.sleep(600)
        """),
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = make_pool("lingering:Tools", workers=1, grace=0.1)
    before = time.monotonic()

    pool.shutdown()

    assert time.monotonic() - before < scaled(10)


def test_store_that_is_shared_outlives_its_pools(make_pool):
    store = SessionStore()
    try:
        first = make_pool(store=store, workers=1)
        first.session("u1")["x"] = 1
        first.shutdown()
        second = make_pool(store=store, workers=1)

        assert second.execute("read", {"name": "x"}, session_id="u1") == 1
        second.shutdown()
        assert store.get_value("u1", "x") == 1
    finally:
        store.close()


def test_forked_copy_of_the_application_cannot_use_the_pool(fresh_pool: Pool):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            fresh_pool.execute("add", (1, 2))
        except PoolClosed as error:
            os.write(write, str(error).encode())
        fresh_pool.shutdown()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert "forked copy" in pipe.read()
    os.waitpid(pid, 0)

    assert fresh_pool.execute("add", (1, 2)) == 3


_FORGETFUL = """
    import sys
    sys.path.insert(0, {tests!r})
    from pool_adapters import Tools
    from snakepit_mp import Pool

    if __name__ == "__main__":
        pool = Pool(Tools, workers=2)
        print(pool.execute("add", (1, 2)))
        {end}
"""


def _script(folder: Path, end: str) -> Path:
    path = folder / "forgetful.py"
    tests = str(Path(__file__).parent.parent)
    path.write_text(textwrap.dedent(_FORGETFUL).format(tests=tests, end=end), encoding="utf-8")
    return path


@pytest.mark.parametrize("end", ["pass", "del pool", "pool.submit('sleep', (60.0,))"])
def test_pool_that_is_forgotten_leaves_nothing(tmp_path: Path, end: str):
    done = subprocess.run(
        [sys.executable, str(_script(tmp_path, end))],
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=True,
    )

    assert (done.stdout, done.stderr) == ("3\n", "")


def test_ctrl_c_gives_one_clean_traceback_and_leaves_no_worker(tmp_path: Path, gate: Gate):
    end = f"with pool: pool.execute('note_and_wait', {gate.args!r})"
    process = subprocess.Popen(
        [sys.executable, str(_script(tmp_path, end))], stderr=subprocess.PIPE, text=True
    )
    try:
        gate.wait_entered()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=scaled(30))
    finally:
        process.kill()
        process.wait()

    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
