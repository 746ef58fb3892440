"""Which figures does the project promise, and what are they here? Prints a table of medians.

    python benchmarks/figures.py

Each figure stands beside something that everybody knows, measured in the same run, since
only such a ratio means something on another machine.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

from apparatus import WORKERS, Echo, Nursery, compiled_once, plain_grpc, private_memory, seconds

from snakepit_mp import Pool, implementation

_TIMED_IMPORT = """
import sys, time
began = time.perf_counter()
{statement}
print(time.perf_counter() - began, "grpc" in sys.modules or "numpy" in sys.modules)
"""


@dataclass(frozen=True)
class Figure:
    """One row: what was measured, what it is, what it is compared with, what was hoped for."""

    what: str
    value: str
    beside: str
    goal: str = ""


def typical(action: Callable[[], object], rounds: int) -> float:
    """Median seconds, after a tenth of the rounds to warm up."""
    for _ in range(rounds // 10):
        action()
    return median(seconds(action) for _ in range(rounds))


def micro(value: float) -> str:
    return f"{1e6 * value:,.0f} µs"


def milli(value: float) -> str:
    return f"{1e3 * value:,.1f} ms"


def calls() -> Iterator[Figure]:
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(WORKERS, mp_context=context) as executor:
        theirs = typical(lambda: executor.submit(abs, -1).result(), 1000)
    with plain_grpc() as call:
        plain = typical(lambda: call(b"-1"), 1000)
    for lane, what in (("auto", "the usual lane"), ("socket", "a socket"), ("grpc", "gRPC")):
        with Pool(Echo, workers=WORKERS, bridge=None, lane=lane) as pool:
            pool.await_ready(workers=WORKERS)
            ours = typical(lambda pool=pool: pool.execute("echo", (-1,)), 1000)
        beside = f"{ours / plain:.2f} times plain gRPC ({micro(plain)}), "
        beside += f"{ours / theirs:.2f} times `ProcessPoolExecutor` ({micro(theirs)})"
        yield Figure(f"`execute` of a no-op over {what}", micro(ours), beside)


def starts(bare: float) -> Iterator[Figure]:
    goals = {"started": ("fork → READY", ""), "serving": ("fork → gRPC serving", "")}
    with Nursery() as nursery:
        for event, (what, goal) in goals.items():
            times = []
            for _ in range(20):
                worker = nursery.spawn()
                times.append(seconds(lambda w=worker, e=event: nursery.until(w, e)))
                nursery.bury(worker)
            value = median(times)
            yield Figure(what, milli(value), f"{value / bare:.2f} times a bare interpreter", goal)
    for settings, what, goal in (
        ({"grpc": False}, "64 workers ready, without gRPC", "0.3 s"),
        ({"lane": "grpc"}, "64 workers that serve gRPC", "1.5 s"),
    ):
        many = median(start_of(64, settings) for _ in range(3))
        beside = f"{many / bare:.0f} times a bare interpreter"
        yield Figure(f"{what}, from `Pool(...)`", f"{many:.2f} s", beside, goal)


def start_of(workers: int, settings: dict[str, Any]) -> float:
    pools = []

    def start() -> None:
        pools.append(Pool(workers=workers, bridge=None, **settings))
        pools[0].await_ready(workers=workers)

    try:
        return seconds(start)
    finally:
        for pool in pools:
            pool.shutdown(grace=0)


def imports(bare: float) -> Iterator[Figure]:
    for statement, goal in (("import snakepit_mp", "60 ms"), ("from snakepit_mp import Pool", "")):
        with compiled_once() as env:
            value = median([timed_import(statement, env) for _ in range(16)][1:])
        beside = f"{value / bare:.2f} times a bare interpreter"
        yield Figure(f"`{statement}`, without gRPC and NumPy", milli(value), beside, goal)


def timed_import(statement: str, env: dict[str, str]) -> float:
    command = [sys.executable, "-c", _TIMED_IMPORT.format(statement=statement)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    took, heavy = done.stdout.split()
    if heavy != "False":
        raise SystemExit(f"{statement} has loaded grpc or numpy")
    return float(took)


def memory() -> Iterator[Figure]:
    each = {}
    for what, settings in (("serves gRPC", {"lane": "grpc"}), ("does not", {"grpc": False})):
        with Pool(workers=8, bridge=None, **settings) as pool:
            pool.await_ready(workers=8)
            each[what] = [private_memory(row.pid) for row in pool.workers() if row.pid]
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        bare = private_memory(process.pid)
        process.communicate(b"\n")
    for what, sizes in each.items():
        value = median(sizes)
        beside = f"{value / bare:.1f} times a bare interpreter ({bare / 1e6:.1f} MB)"
        row = f"private memory of an idle worker that {what}"
        yield Figure(row, f"{value / 1e6:.1f} MB", beside, "8 MB")


def main() -> None:
    bare = median(
        seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
        for _ in range(15)
    )
    print(
        f"Python {platform.python_version()}, implementation {implementation!r}, "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
        f"a bare interpreter starts and ends in {milli(bare)}\n"
    )
    print("| what | median | beside, in the same run | goal |\n| --- | --- | --- | --- |")
    for figures in (calls(), starts(bare), imports(bare), memory()):
        for figure in figures:
            print(f"| {figure.what} | {figure.value} | {figure.beside} | {figure.goal} |")


if __name__ == "__main__":
    main()
