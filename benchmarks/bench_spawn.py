"""How long until a worker is there? From the order to fork until it is ready, and serves."""

from __future__ import annotations

import os
import signal

import pytest
from apparatus import Nursery

from snakepit_mp import Pool

pytestmark = pytest.mark.benchmark(group="spawn")


@pytest.fixture
def nursery():
    with Nursery() as nursery:
        yield nursery


@pytest.mark.parametrize("event", ["started", "serving"])
def bench_fork_until(benchmark, nursery, event):
    """``started``: it could run tools. ``serving``: its gRPC server answers as well."""
    workers = []

    def spawn():
        workers.append(nursery.until(nursery.spawn(), event))

    def bury():
        while workers:
            nursery.bury(workers.pop())

    benchmark.pedantic(spawn, setup=bury, rounds=20, iterations=1)
    bury()


@pytest.mark.parametrize("settings", [{"grpc": False}, {}, {"lane": "grpc"}], ids=str)
def bench_64_workers_ready(benchmark, settings):
    """From `Pool` to the last of 64 workers, the fork server's start included."""
    pools = []

    def start():
        pools.append(Pool(workers=64, bridge=None, **settings))
        pools[-1].await_ready(workers=64)

    def stop():
        while pools:
            pools.pop().shutdown(grace=0)

    benchmark.pedantic(start, setup=stop, rounds=3, iterations=1)
    stop()


def bench_kill_until_answered(benchmark, pool):
    """From SIGKILL of all workers to the answer of a successor."""

    def kill_and_call():
        for row in pool.workers():
            os.kill(row.pid, signal.SIGKILL)
        assert pool.execute("echo", (-1,)) == -1

    def settle():
        pool.await_ready(workers=pool.config.workers)
        pool.execute("echo", (-1,))
        pool.execute("echo", (-1,))

    benchmark.pedantic(kill_and_call, setup=settle, rounds=10, iterations=1)
