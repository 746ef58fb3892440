"""What does one call cost, what do many, and what does a large one? Beside the usual peers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from apparatus import WORKERS, plain_grpc
from peers import PEERS, Peer

TASKS = 200
CALLERS = 8
MEGABYTE = np.zeros(1_000_000 // 8)

round_trip = pytest.mark.benchmark(group="execute-roundtrip")
several = pytest.mark.benchmark(group=f"{TASKS} calls by {CALLERS} threads")
many = pytest.mark.benchmark(group=f"map-of-{TASKS}-tiny-tasks")
large = pytest.mark.benchmark(group="payload-1-MB-each-way")
each_lane = pytest.mark.parametrize("pool", ["socket", "grpc"], indirect=True)


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
    assert benchmark(lambda: sum(pool.map("echo", ((n,) for n in range(TASKS))))) == sum(
        range(TASKS)
    )


@many
def bench_peer_map(benchmark, peer):
    assert benchmark(lambda: sum(peer.map(abs, range(TASKS)))) == sum(range(TASKS))


@large
@each_lane
def bench_snakepit_mp_payload(benchmark, pool):
    assert benchmark(pool.execute, "echo", (MEGABYTE,)).nbytes == MEGABYTE.nbytes


@large
def bench_peer_payload(benchmark, peer):
    assert benchmark(peer.call, same, MEGABYTE).nbytes == MEGABYTE.nbytes
