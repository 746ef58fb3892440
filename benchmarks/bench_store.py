"""What do shared variables cost? Beside a dict, and whatever else processes share values with.

    make bench                          each by itself, with pytest-benchmark
    python benchmarks/store_report.py   a table of ratios, for docs/benchmarks.md

A round is 1,000 statements (100 for arrays, snapshots, batches and sessions), so that the clock
does not matter: a millisecond of the former is a microsecond each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from timeit import Timer
from typing import Any

import pytest
from store_peers import (
    PEERS,
    QUESTIONS,
    Missing,
    Peer,
    elsewhere,
    filled_store,
    once,
    started,
)
from store_writer import ECHO, IDLE, MODES, Writer

_BY_NAME = {peer.name: peer for peer in PEERS}
_CASES = [(what, peer.name) for what in QUESTIONS for peer in PEERS if what in peer.statements]
#: Seconds to measure one case.
_BUDGET = 0.4

Start = Callable[[str], tuple[Peer, dict[str, Any]]]


@pytest.fixture(scope="module")
def peer() -> Iterator[Start]:
    """Starts a peer by name when it is asked for first, and ends all of them."""
    names: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:

        def start(name: str) -> tuple[Peer, dict[str, Any]]:
            if name not in names and name not in missing:
                try:
                    names[name] = started(_BY_NAME[name], stack)
                except Missing as error:
                    missing[name] = str(error)
            if name in missing:
                pytest.skip(missing[name])
            return _BY_NAME[name], names[name]

        yield start


@pytest.fixture(scope="module")
def disturbed() -> Iterator[tuple[dict[str, Any], Writer]]:
    """A session, and a process that writes to it or beside it."""
    with ExitStack() as stack:
        store, session = filled_store(stack)
        writer = stack.enter_context(Writer(store, session.id, elsewhere(store, session)))
        yield {"s": session, "writer": writer, "IDLE": IDLE}, writer


def measure(benchmark: Any, statement: str, names: dict[str, Any], count: int) -> None:
    inner = Timer(statement, globals=names).inner
    if benchmark.disabled:
        benchmark.pedantic(once(inner, 1))
        return
    seconds = once(inner, count)()
    rounds = int(min(200, max(5, _BUDGET / seconds)))
    benchmark.extra_info["statements in a round"] = count
    benchmark.pedantic(once(inner, count), rounds=rounds)


@pytest.mark.parametrize(("what", "by"), _CASES)
def bench_store(benchmark, peer, what, by):
    benchmark.group = f"store-{what}"
    one, names = peer(by)
    measure(benchmark, one.statements[what], names, QUESTIONS[what])


@pytest.mark.parametrize("beside", MODES)
def bench_reader_under_writer(benchmark, disturbed, beside):
    benchmark.group = "store-reader-under-writer"
    names, writer = disturbed
    writer.order(MODES[beside])
    try:
        with writer.apart():
            measure(benchmark, "s['x']", names, QUESTIONS["read"])
    finally:
        writer.order(IDLE)


def bench_watch(benchmark, disturbed):
    """There and back: a write, a wake, a write, a wake."""
    benchmark.group = "store-watch"
    names, writer = disturbed
    session = names["s"]
    answers = session.watch(["pong"], timeout=30)
    numbers = iter(range(1, 1 << 62))
    session["ping"] = next(numbers)
    writer.order(ECHO)
    next(answers)
    statement = "s['ping'] = next(numbers); next(answers)"
    try:
        measure(benchmark, statement, {**names, "numbers": numbers, "answers": answers}, 100)
    finally:
        writer.order(IDLE)


def bench_watch_pipe(benchmark, disturbed):
    """The same way by two pipes."""
    benchmark.group = "store-watch"
    names, _ = disturbed
    measure(benchmark, "writer.order(IDLE)", names, 100)
