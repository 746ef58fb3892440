"""What does one call cost, and what do many? A no-op, warm, beside the usual peers."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
from apparatus import WORKERS, plain_grpc

CONTEXT = multiprocessing.get_context("forkserver")
TASKS = 200

round_trip = pytest.mark.benchmark(group="execute-roundtrip")
many = pytest.mark.benchmark(group=f"map-of-{TASKS}-tiny-tasks")


@pytest.fixture
def executor():
    with ProcessPoolExecutor(WORKERS, mp_context=CONTEXT) as executor:
        list(executor.map(abs, range(8 * WORKERS)))
        yield executor


@pytest.fixture
def mp_pool():
    with CONTEXT.Pool(WORKERS) as pool:
        pool.map(abs, range(8 * WORKERS), chunksize=1)
        yield pool
        pool.close()
        pool.join()


each_lane = pytest.mark.parametrize("pool", ["socket", "grpc"], indirect=True)


@round_trip
@each_lane
def bench_snakepit_mp(benchmark, pool):
    assert benchmark(pool.execute, "echo", (-1,)) == -1


@round_trip
@each_lane
def bench_snakepit_mp_function(benchmark, pool):
    """A function instead of a tool: it travels by value with every call."""
    assert benchmark(pool.execute, abs, (-1,)) == 1


@round_trip
def bench_process_pool_executor(benchmark, executor):
    assert benchmark(lambda: executor.submit(abs, -1).result()) == 1


@round_trip
def bench_multiprocessing_pool(benchmark, mp_pool):
    assert benchmark(mp_pool.apply, abs, (-1,)) == 1


@round_trip
def bench_plain_grpc_unary(benchmark):
    with plain_grpc() as call:
        assert benchmark(call, b"-1") == b"-1"


@many
@each_lane
def bench_snakepit_mp_map(benchmark, pool):
    assert benchmark(lambda: sum(pool.map("echo", ((n,) for n in range(TASKS))))) == sum(
        range(TASKS)
    )


@many
def bench_process_pool_executor_map(benchmark, executor):
    assert benchmark(lambda: sum(executor.map(abs, range(TASKS)))) == sum(range(TASKS))


@many
def bench_multiprocessing_pool_imap(benchmark, mp_pool):
    assert benchmark(lambda: sum(mp_pool.imap(abs, range(TASKS)))) == sum(range(TASKS))
