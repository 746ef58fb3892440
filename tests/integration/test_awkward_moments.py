"""Things that happen where they are least welcome: under a lock, in a callback, without room."""

from __future__ import annotations

import errno
import gc
import os
import queue
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from fix_pool import Gate, until
from fix_timeouts import scaled
from pool_adapters import Tools

from snakepit_mp import Pool
from snakepit_mp.errors import ConfigError, WorkerDied
from snakepit_mp.runtime.incarnation import Incarnation
from snakepit_mp.runtime.watcher import Watcher


def test_garbage_may_be_collected_while_the_engine_thinks(make_pool, gate: Gate, tmp_path: Path):
    """The collector closes generators in any thread, whatever lock it holds."""
    pool = make_pool(workers=2)
    stream = pool.stream("endless", {"path": str(tmp_path / "closed")})
    next(stream)
    future = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()

    with pool._engine._lock:
        stream.close()
        assert future.cancel()

    until((tmp_path / "closed").exists)
    pool.await_ready(scaled(10), workers=2)
    assert pool.execute("add", (1, 2)) == 3


def test_pool_may_be_dropped_while_the_engine_thinks():
    pool = Pool(Tools, workers=1, bridge=None)
    engine = pool._engine

    with engine._lock:
        del pool
        gc.collect()

    assert engine.ended.wait(scaled(10))


def test_pool_may_be_dropped_by_a_callback_of_its_own():
    pools = [Pool(Tools, workers=1, bridge=None)]
    engine = pools[0]._engine
    pools[0].submit("add", (1, 2)).add_done_callback(lambda _: pools.clear())

    assert engine.ended.wait(scaled(20))


def test_callback_may_use_the_pool(make_pool):
    pool = make_pool(workers=1, queue_size=1)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def more(_: object) -> None:
        answers.put(pool.execute("add", (3, 4)))
        for future in [pool.submit("add", (i, 0)) for i in range(5)]:
            answers.put(future.result())

    pool.submit("add", (1, 2)).add_done_callback(more)

    assert [answers.get(timeout=scaled(10)) for _ in range(6)] == [7, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("no")])
def test_callback_that_raises_is_logged_and_hurts_nobody(make_pool, caplog, error):
    pool = make_pool(workers=1)
    raised = threading.Event()

    def callback(_: object) -> None:
        raised.set()
        raise error

    pool.submit("sleep", (0.05,)).add_done_callback(callback)

    assert raised.wait(scaled(10))
    assert pool.execute("add", (1, 2)) == 3
    until(lambda: "a callback of a future raised" in caplog.text)


@pytest.mark.parametrize("timeout", [3e6, 1e10, 1e300])
def test_time_outs_of_months_and_ages(make_pool, timeout):
    pool = make_pool(workers=1, start_timeout=timeout)

    assert pool.execute("add", (1, 2), timeout=timeout) == 3
    assert pool.submit("add", (1, 2), timeout=timeout).result(scaled(10)) == 3
    assert list(pool.stream("numbers", (2,), timeout=timeout)) == [0, 1]


def test_moment_without_descriptors_is_survived(make_pool, monkeypatch):
    pool = make_pool(workers=1)
    prepare = Incarnation.prepare
    refusals = [OSError(errno.EMFILE, "Too many open files")] * 2

    def without_room(*args: Any, **settings: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return prepare(*args, **settings)

    monkeypatch.setattr(Incarnation, "prepare", without_room)
    with pytest.raises(WorkerDied):
        pool.execute("die")

    assert pool.execute("add", (1, 2), timeout=scaled(10)) == 3
    assert refusals == []


def _scribble() -> None:
    """Writes to every socket it can find, as a tool with a wrong descriptor might."""
    for fd in range(3, 100):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                os.write(fd, b"\xff" * 64)
        except OSError:
            continue
    signal.pause()  # its reply would be faster than the notice of what it did


def test_worker_that_writes_to_the_pools_descriptors_hurts_only_itself(make_pool):
    pool = make_pool(workers=2)

    with pytest.raises(WorkerDied):
        pool.execute(_scribble)

    assert [pool.execute("add", (i, 0)) for i in range(10)] == list(range(10))


def test_pool_whose_thread_cannot_start_leaves_nothing(monkeypatch):
    def refuse(self: Watcher) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Watcher, "start", refuse)

    with pytest.raises(RuntimeError, match="new thread"):
        Pool(Tools, workers=1)
    gc.collect()


def test_fork_server_killed_again_and_again_while_it_starts(make_pool):
    """Once it has proved itself, the pool does not give up on it."""
    pool = make_pool(workers=1)
    assert pool.execute("add", (1, 2)) == 3

    for _ in range(6):
        server = until(lambda: pool._engine._servers.latest)
        os.kill(server.pid, signal.SIGKILL)
        until(lambda server=server: pool._engine._servers.latest is not server)

    assert pool.execute("add", (1, 2), timeout=scaled(20)) == 3


def test_arguments_that_are_no_numbers(make_pool):
    pool = make_pool(workers=1)

    with pytest.raises(ConfigError, match="window"):
        pool.map("add", [], window="a")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="workers"):
        pool.await_ready(1, workers=-1)
    with pytest.raises(ConfigError, match="grace"):
        pool.shutdown(grace="x")  # type: ignore[arg-type]
    assert pool.execute("add", (1, 2)) == 3
