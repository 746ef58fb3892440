"""What does bad luck cost? Deaths until they are told, and work that goes on beside them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
from apparatus import WORKERS
from peers import CONTEXT

from snakepit_mp import Adapter, Pool, tool
from snakepit_mp.errors import WorkerDied

#: Tasks of 20 ms, and after how many of them a worker is replaced.
TASKS, EVERY, SECONDS = 100, 25, 0.02


def die(_: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nap(_: Any = None) -> None:
    time.sleep(SECONDS)


class Mortal(Adapter):
    """Dies, or works for a moment."""

    @tool
    def die(self) -> None:
        die()

    @tool
    def nap(self) -> None:
        nap()

    @tool(idempotent=True)
    def nap_again(self) -> None:
        nap()


@pytest.fixture
def pool():
    with Pool(Mortal, workers=WORKERS, bridge=None) as pool:
        pool.await_ready(workers=WORKERS)
        yield pool


@pytest.mark.benchmark(group="death until the caller's exception")
def bench_exception_ours(benchmark, pool):
    def call():
        with pytest.raises(WorkerDied):
            pool.execute("die")

    def settle():
        pool.await_ready(workers=WORKERS)
        pool.execute("nap")

    benchmark.pedantic(call, setup=settle, rounds=20, iterations=1)


@pytest.mark.benchmark(group="death until the caller's exception")
def bench_exception_process_pool_executor(benchmark):
    """It breaks as a whole, so each round gets a new one, which is not measured."""
    executors: list[ProcessPoolExecutor] = []

    def renew():
        while executors:
            executors.pop().shutdown()
        executors.append(ProcessPoolExecutor(WORKERS, mp_context=CONTEXT))
        executors[0].submit(nap).result()

    def call():
        with pytest.raises(BrokenProcessPool):
            executors[0].submit(die).result()

    benchmark.pedantic(call, setup=renew, rounds=5, iterations=1)
    executors.pop().shutdown()


@pytest.mark.benchmark(group="death until the caller's exception")
def bench_exception_loky(benchmark):
    """As above: it breaks as a whole."""
    loky = pytest.importorskip("loky")
    executors: list[Any] = []

    def renew():
        while executors:
            executors.pop().shutdown(kill_workers=True)
        executors.append(loky.ProcessPoolExecutor(WORKERS))
        executors[0].submit(nap).result()

    def call():
        with pytest.raises(BrokenProcessPool):
            executors[0].submit(die).result()

    benchmark.pedantic(call, setup=renew, rounds=5, iterations=1)
    executors.pop().shutdown(kill_workers=True)


@pytest.mark.benchmark(group="death until the caller's exception")
def bench_exception_pebble(benchmark):
    """It replaces its worker, as we do."""
    pebble = pytest.importorskip("pebble")
    with pebble.ProcessPool(WORKERS, context=CONTEXT) as pool:

        def call():
            with pytest.raises(pebble.ProcessExpired):
                pool.schedule(die).result()

        benchmark.pedantic(call, setup=lambda: pool.schedule(nap).result(), rounds=10, iterations=1)


@pytest.mark.benchmark(group="death until the successor is ready")
def bench_successor(benchmark, pool):
    """No peer: they start one with the next task, or never."""

    def kill_and_wait():
        victim = pool.workers()[0]
        os.kill(victim.pid, signal.SIGKILL)
        pool._engine.wait_until(
            lambda: any(
                row.worker_id == victim.id
                and row.incarnation > victim.incarnation
                and row.state.name == "READY"
                for row, _ in pool._engine.workers()
            ),
            30.0,
        )

    def settle():
        for _ in range(2 * WORKERS):
            pool.execute("nap")

    benchmark.pedantic(kill_and_wait, setup=settle, rounds=10, iterations=1)


@pytest.mark.benchmark(group="death until the successor has done a task")
def bench_next_task_ours(benchmark):
    """One worker, so that the next task needs its successor."""
    with Pool(Mortal, workers=1, bridge=None) as pool:

        def kill_and_call():
            os.kill(pool.workers()[0].pid, signal.SIGKILL)
            pool.execute("nap_again")

        benchmark.pedantic(
            kill_and_call, setup=lambda: pool.execute("nap"), rounds=10, iterations=1
        )


@pytest.mark.benchmark(group="death until the successor has done a task")
def bench_next_task_pebble(benchmark):
    pebble = pytest.importorskip("pebble")
    with pebble.ProcessPool(1, context=CONTEXT) as pool:

        def kill_and_call():
            with pytest.raises(pebble.ProcessExpired):
                pool.schedule(die).result()
            pool.schedule(nap).result()

        benchmark.pedantic(
            kill_and_call, setup=lambda: pool.schedule(nap).result(), rounds=5, iterations=1
        )


@pytest.mark.benchmark(group="work while a worker a second is killed")
@pytest.mark.parametrize("kills", ["none", "one a second"])
def bench_throughput(benchmark, pool, kills):
    def work():
        due = time.monotonic() + 0.5
        for done, _ in enumerate(pool.map("nap_again", ({} for _ in range(2 * TASKS)))):
            if kills != "none" and time.monotonic() > due and done < 2 * TASKS - 8:
                due += 1.0
                os.kill(next(row.pid for row in pool.workers() if row.pid), signal.SIGKILL)

    benchmark.pedantic(work, rounds=2, iterations=1)


@pytest.mark.parametrize("every", [None, EVERY])
@pytest.mark.benchmark(group=f"{TASKS} tasks of 20 ms, a new worker every {EVERY}")
def bench_recycling_ours(benchmark, every):
    with Pool(Mortal, workers=WORKERS, bridge=None, max_tasks_per_worker=every) as pool:
        pool.await_ready(workers=WORKERS)
        work = lambda: list(pool.map("nap", ({} for _ in range(TASKS))))  # noqa: E731
        benchmark.pedantic(work, rounds=2, iterations=1)


@pytest.mark.parametrize("every", [None, EVERY])
@pytest.mark.benchmark(group=f"{TASKS} tasks of 20 ms, a new worker every {EVERY}")
def bench_recycling_multiprocessing_pool(benchmark, every):
    """Not ``ProcessPoolExecutor``: with ``max_tasks_per_child`` it hangs where tasks wait when a
    worker has done its last (CPython issue 115634)."""
    with CONTEXT.Pool(WORKERS, maxtasksperchild=every) as pool:
        pool.map(nap, range(WORKERS), chunksize=1)
        work = lambda: pool.map(nap, range(TASKS), chunksize=1)  # noqa: E731
        benchmark.pedantic(work, rounds=2, iterations=1)


@pytest.mark.parametrize("kills", ["none", "one a second"])
@pytest.mark.benchmark(group="work while a worker a second is killed")
def bench_throughput_pebble(benchmark, kills):
    """Its killed tasks fail and are asked for again, as ours are by themselves. A worker killed
    while it holds the lock of pebble's channel stops that pool for its sixty seconds of waiting, and
    then breaks it: no row then, and not risked where nothing is measured."""
    pebble = pytest.importorskip("pebble")
    if kills != "none" and benchmark.disabled:
        pytest.skip("a kill at the wrong moment stops pebble for a minute")
    with pebble.ProcessPool(WORKERS, context=CONTEXT) as pool:
        futures: Callable[[int], list[Any]] = lambda n: [pool.schedule(nap) for _ in range(n)]  # noqa: E731
        pids = lambda: [child.pid for child in multiprocessing.active_children()]  # noqa: E731
        [future.result() for future in futures(WORKERS)]

        def work():
            due = time.monotonic() + 0.5
            left = futures(2 * TASKS)
            while left:
                future = left.pop(0)
                try:
                    future.result()
                except pebble.ProcessExpired:
                    left += futures(1)
                if kills != "none" and time.monotonic() > due and len(left) > 8:
                    due += 1.0
                    os.kill(pids()[0], signal.SIGKILL)

        try:
            benchmark.pedantic(work, rounds=2, iterations=1)
        except BrokenProcessPool as broken:
            pytest.skip(f"pebble's pool did not survive the kills: {broken}")


@pytest.mark.parametrize("every", [None, EVERY])
@pytest.mark.benchmark(group=f"{TASKS} tasks of 20 ms, a new worker every {EVERY}")
def bench_recycling_pebble(benchmark, every):
    pebble = pytest.importorskip("pebble")
    with pebble.ProcessPool(WORKERS, max_tasks=every or 0, context=CONTEXT) as pool:
        [pool.schedule(nap).result() for _ in range(WORKERS)]
        work = lambda: [f.result() for f in [pool.schedule(nap) for _ in range(TASKS)]]  # noqa: E731
        benchmark.pedantic(work, rounds=2, iterations=1)
