"""What does one call cost, what do many, and what does a large one? Beside the usual peers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from apparatus import WORKERS, plain_grpc
from peers import PEERS, Peer

TASKS = 200
#: Of a map. What chunks needs some to show it; a run that only looks whether all works does not.
ITEMS = int(os.environ.get("SNAKEPIT_MP_BENCH_ITEMS", "5000"))
CALLERS = 8
#: Seconds between two calls.
PAUSES = {"every-ms": 0.001, "after-50-ms": 0.05}
MEGABYTE = np.zeros(1_000_000 // 8)

LARGE = np.zeros(100_000_000 // 8)

round_trip = pytest.mark.benchmark(group="execute-roundtrip")
seldom = pytest.mark.parametrize("pause", PAUSES)
several = pytest.mark.benchmark(group=f"throughput-{CALLERS}-threads")
submitted = pytest.mark.benchmark(group=f"throughput-submit-of-{ITEMS}")
many = pytest.mark.benchmark(group=f"throughput-map-of-{ITEMS}")
large = pytest.mark.benchmark(group="payload-1-MB-each-way")
huge = pytest.mark.benchmark(group="payload-100-MB-each-way")
streamed = pytest.mark.benchmark(group=f"stream-of-{TASKS}-items")
each_lane = pytest.mark.parametrize("pool", ["auto", "socket", "grpc"], indirect=True)


def same(value):
    return value


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """With as many workers as ours, which have all been used."""
    with PEERS[request.param](WORKERS) as peer:
        list(peer.map(abs, range(8 * WORKERS)))
        yield peer


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
def bench_peer(benchmark, peer):
    assert benchmark(peer.call, abs, -1) == 1


@round_trip
def bench_plain_grpc_unary(benchmark):
    with plain_grpc() as call:
        assert benchmark(call, b"-1") == b"-1"


def with_pauses(benchmark, pause, call, *args):
    """Each call alone, after the pause."""
    benchmark.group = f"execute-{pause}"
    rounds = int(2.0 / (PAUSES[pause] + 0.001))
    setup = lambda: time.sleep(PAUSES[pause])  # noqa: E731
    return benchmark.pedantic(call, args, setup=setup, rounds=min(rounds, 500))


@seldom
@each_lane
def bench_snakepit_mp_seldom(benchmark, pool, pause):
    assert with_pauses(benchmark, pause, pool.execute, "echo", (-1,)) == -1


@seldom
def bench_peer_seldom(benchmark, peer, pause):
    assert with_pauses(benchmark, pause, peer.call, abs, -1) == 1


@several
@each_lane
def bench_snakepit_mp_threads(benchmark, pool):
    with ThreadPoolExecutor(CALLERS) as callers:
        calls = lambda: sum(callers.map(lambda n: pool.execute("echo", (n,)), range(TASKS)))  # noqa: E731
        assert benchmark(calls) == sum(range(TASKS))


@several
def bench_peer_threads(benchmark, peer):
    if not peer.threads:
        pytest.skip("it serves one thread at a time")
    with ThreadPoolExecutor(CALLERS) as callers:
        calls = lambda: sum(callers.map(lambda n: peer.call(abs, n), range(TASKS)))  # noqa: E731
        assert benchmark(calls) == sum(range(TASKS))


@many
@each_lane
def bench_snakepit_mp_map(benchmark, pool):
    run = lambda: sum(pool.map("echo", ((n,) for n in range(ITEMS))))  # noqa: E731
    assert benchmark.pedantic(run, rounds=3, warmup_rounds=1) == sum(range(ITEMS))


@many
@pytest.mark.parametrize("pool", ["auto"], indirect=True)
def bench_snakepit_mp_map_function(benchmark, pool):
    run = lambda: sum(pool.map(abs, range(ITEMS)))  # noqa: E731
    assert benchmark.pedantic(run, rounds=3, warmup_rounds=1) == sum(range(ITEMS))


@many
def bench_peer_map(benchmark, peer):
    run = lambda: sum(peer.map(abs, range(ITEMS)))  # noqa: E731
    assert benchmark.pedantic(run, rounds=3, warmup_rounds=1) == sum(range(ITEMS))


@submitted
@each_lane
def bench_snakepit_mp_submit(benchmark, pool):
    def run() -> int:
        futures = [pool.submit("echo", (n,)) for n in range(ITEMS)]
        return sum(future.result() for future in futures)

    assert benchmark.pedantic(run, rounds=3, warmup_rounds=1) == sum(range(ITEMS))


@submitted
def bench_peer_submit(benchmark, peer):
    submit = peer.submit
    if submit is None:
        pytest.skip("it has no futures")

    def run() -> int:
        results = [submit(abs, n) for n in range(ITEMS)]
        return sum(result() for result in results)

    assert benchmark.pedantic(run, rounds=3, warmup_rounds=1) == sum(range(ITEMS))


@large
@each_lane
def bench_snakepit_mp_payload(benchmark, pool):
    assert benchmark(pool.execute, "echo", (MEGABYTE,)).nbytes == MEGABYTE.nbytes


@large
def bench_peer_payload(benchmark, peer):
    assert benchmark(peer.call, same, MEGABYTE).nbytes == MEGABYTE.nbytes


@huge
@each_lane
def bench_snakepit_mp_huge(benchmark, pool):
    call = lambda: pool.execute("echo", (LARGE,))  # noqa: E731
    assert benchmark.pedantic(call, rounds=3, warmup_rounds=1).nbytes == LARGE.nbytes


@huge
@pytest.mark.filterwarnings("ignore:Sending large graph")  # Dask would like it otherwise
def bench_peer_huge(benchmark, peer):
    call = lambda: peer.call(same, LARGE)  # noqa: E731
    assert benchmark.pedantic(call, rounds=3, warmup_rounds=1).nbytes == LARGE.nbytes


@streamed
@each_lane
def bench_snakepit_mp_stream(benchmark, pool):
    assert sum(benchmark(lambda: list(pool.stream("count", (TASKS,))))) == sum(range(TASKS))


@streamed
def bench_peer_stream(benchmark, peer):
    """Nobody else streams; one task for each item is what there is."""
    assert sum(benchmark(lambda: list(peer.map(abs, range(TASKS))))) == sum(range(TASKS))
