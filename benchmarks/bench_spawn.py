"""How long until a worker is there? From the order to fork until it is ready, and serves."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor

import pytest
from apparatus import Nursery
from peers import CONTEXT

from snakepit_mp import Pool

startup = pytest.mark.benchmark(group="startup-of-64-workers")
spawn = pytest.mark.benchmark(group="startup-of-one-worker")
recovery = pytest.mark.benchmark(group="recovery-after-all-were-killed")


@pytest.fixture
def nursery():
    with Nursery() as nursery:
        yield nursery


@spawn
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


@startup
@pytest.mark.parametrize("settings", [{"grpc": False}, {}, {"lane": "grpc"}], ids=str)
def bench_snakepit_mp_64_workers(benchmark, settings):
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


@startup
@pytest.mark.parametrize("peer", ["ProcessPoolExecutor", "multiprocessing.Pool"])
def bench_peer_64_workers(benchmark, peer):
    """By a fork server as well; until the slowest has answered, which tells for an executor only
    that as many processes were forked."""

    def start():
        if peer == "multiprocessing.Pool":
            with CONTEXT.Pool(64) as pool:
                pool.map(abs, range(64), 1)
        else:
            with ProcessPoolExecutor(64, mp_context=CONTEXT) as executor:
                list(executor.map(abs, range(64)))

    benchmark.pedantic(start, rounds=2, iterations=1)


@recovery
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
