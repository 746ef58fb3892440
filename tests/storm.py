"""Mixed work under a killer: what `make soak` runs for long, and a test for some seconds.

Callers know what each call may end with, and keep books; tools keep a ledger of what they really
ran. In the end the two are compared: nothing lost, nothing run twice that was not declared, and
no call that outlived its deadline.

    python tests/storm.py --seconds 600
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from fault_adapters import Stormy

from snakepit_mp import Pool
from snakepit_mp.errors import PoisonTaskError, TaskTimeout, WorkerDied, WorkerStartError

__all__ = ["Report", "storm"]

GRACE = 1.0
DEADLINE = 10.0
PATIENCE = 60.0
RELOADS_PER_SECOND = 0.2


@dataclass
class Report:
    """What happened; ``wrong`` is to be empty."""

    seconds: float = 0.0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    kills: int = 0
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)
    growth: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        calls = sum(self.outcomes.values())
        lines = [f"{calls} calls in {self.seconds:.0f} s, {self.kills} kills"]
        lines += [f"  {name}: {count}" for name, count in self.outcomes.most_common()]
        lines.append(f"slowest call: {self.slowest:.2f} s beyond what it asked for")
        lines += [f"{name}: {change:+d}" for name, change in self.growth.items()]
        lines += ["WRONG:", *self.wrong] if self.wrong else ["nothing wrong"]
        return "\n".join(lines)


class Storm:
    def __init__(self, pool: Pool, folder: Path, seed: int, patience: float) -> None:
        self.pool = pool
        self.folder = folder
        self.seed = seed
        self.patience = patience  # seconds that a call may end later than it has to
        self.report = Report()
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.plain: dict[str, str] = {}  # calls that must run at most once: their outcome

    def caller(self, number: int) -> None:
        dice = random.Random(self.seed * 1000 + number)
        steps = [self.once, self.once, self.burst, self.mapped, self.again]
        steps += [self.hopeless, self.withdrawn, self.streamed]
        while not self.stop.is_set():
            step = dice.choice(steps)
            before = time.monotonic()
            try:
                limit = step(dice)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the report has it
                self.note("surprise")
                self.wrong(f"{step.__name__}: {error!r}")
                continue
            late = time.monotonic() - before - limit
            with self.lock:
                self.report.slowest = max(self.report.slowest, late)
            if late > self.patience:
                self.wrong(f"{step.__name__} ended {late:.2f} s too late")

    def note(self, outcome: str) -> None:
        with self.lock:
            self.report.outcomes[outcome] += 1

    def wrong(self, what: str) -> None:
        with self.lock:
            self.report.wrong.append(what)

    # -- calls: each returns the seconds after which it had to be over ---------------------

    def once(self, dice: random.Random) -> float:
        """Must run at most once; exactly once where it gives a value."""
        name = f"once-{next(self.numbers)}"
        args = {"folder": str(self.folder), "name": name, "seconds": dice.uniform(0, 0.02)}
        try:
            if dice.random() < 0.5:
                value = self.pool.execute("mark", args, timeout=DEADLINE)
            else:
                value = self.pool.submit("mark", args, timeout=DEADLINE).result()
            outcome = "value"
            if value != name:
                self.wrong(f"{name} gave {value!r}")
        except (WorkerDied, PoisonTaskError, TaskTimeout) as error:
            outcome = type(error).__name__
        with self.lock:
            self.plain[name] = outcome
        self.note(outcome)
        return DEADLINE

    def burst(self, dice: random.Random) -> float:
        """Many at a time, each at most once."""
        names = [f"burst-{next(self.numbers)}" for _ in range(20)]
        futures = [
            self.pool.submit("mark", {"folder": str(self.folder), "name": name, "seconds": 0.0})
            for name in names
        ]
        for name, future in zip(names, futures, strict=True):
            try:
                outcome = "value" if future.result(DEADLINE) == name else "another's value"
            except (WorkerDied, PoisonTaskError) as error:
                outcome = type(error).__name__
            with self.lock:
                self.plain[name] = outcome
            self.note(outcome)
        return DEADLINE

    def mapped(self, dice: random.Random) -> float:
        """So many that they travel together, each at most once; at times with an early end."""
        names = [f"mapped-{next(self.numbers)}" for _ in range(400)]
        wanted = dice.choice([len(names), dice.randrange(len(names))])
        items = ({"folder": str(self.folder), "name": name, "seconds": 0.0} for name in names)
        results = self.pool.map("mark", items, timeout=DEADLINE, on_error="return")
        for name, result in zip(names[:wanted], results, strict=False):
            outcome = "value" if result == name else type(result).__name__
            if not isinstance(result, (WorkerDied, PoisonTaskError, TaskTimeout, str)):
                self.wrong(f"{name} gave {result!r}")
            elif isinstance(result, str) and result != name:
                outcome = "another's value"
            with self.lock:
                self.plain[name] = outcome
            self.note(outcome)
        results.close()
        with self.lock:
            self.plain.update((name, "unwanted") for name in names[wanted:])
        return 2 * DEADLINE

    def again(self, dice: random.Random) -> float:
        """May run again, so that the killer is not noticed."""
        name = f"again-{next(self.numbers)}"
        args = {"folder": str(self.folder), "name": name, "seconds": dice.uniform(0, 0.02)}
        try:
            self.pool.submit("mark_again", args, timeout=DEADLINE).result()
            self.note("value of an idempotent call")
        except (PoisonTaskError, TaskTimeout) as error:  # killed again and again: bad luck
            self.note(type(error).__name__)
        return DEADLINE

    def hopeless(self, dice: random.Random) -> float:
        """Never ends by itself."""
        try:
            self.pool.execute("hang", timeout=0.1)
            self.wrong("hang returned")
        except (TaskTimeout, WorkerDied, PoisonTaskError) as error:
            self.note(type(error).__name__)
        return 0.1

    def withdrawn(self, dice: random.Random) -> float:
        future = self.pool.submit("hang")
        time.sleep(dice.uniform(0, 0.02))
        future.cancel()
        try:
            future.result(GRACE)
            self.wrong("a cancelled call gave a value")
        except (CancelledError, WorkerDied, PoisonTaskError) as error:
            self.note(type(error).__name__)
        return 0.02

    def streamed(self, dice: random.Random) -> float:
        wanted = dice.randint(1, 30)
        stream = self.pool.stream("count", {"n": 30}, timeout=DEADLINE)
        items: list[int] = []
        try:
            items.extend(itertools.islice(stream, wanted))
            self.note("stream")
        except (WorkerDied, PoisonTaskError) as error:
            self.note(type(error).__name__)
        finally:
            stream.close()
        if items != list(range(len(items))):
            self.wrong(f"a stream gave {items}")
        return DEADLINE

    # -- bad luck ------------------------------------------------------------------------

    def killer(self, rate: float) -> None:
        dice = random.Random(self.seed)
        while not self.stop.wait(dice.expovariate(rate)):
            victim = self.victim(dice)
            if victim is not None:
                how = dice.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, how)
                    self.report.kills += 1

    def victim(self, dice: random.Random) -> int | None:
        server = self.pool._engine._servers.latest
        if server is not None and dice.random() < 0.1:
            return dice.choice([server.pid, server.own_pid])  # on Linux the first is its guard
        pids = [row.pid for row in self.pool.workers() if row.pid is not None]
        return dice.choice(pids) if pids else None

    def reloader(self, rate: float) -> None:
        """New code comes in again and again, and is killed like everything else."""
        dice = random.Random(self.seed)
        while not self.stop.wait(dice.expovariate(rate)):
            try:
                self.pool.reload(PATIENCE)
                self.note("reload")
            except WorkerStartError:  # its fork server, or its first worker, was killed
                self.note("reload that changed nothing")
            except TimeoutError as error:
                self.wrong(str(error))

    # -- the reckoning -------------------------------------------------------------------

    def settle(self) -> None:
        ran = collections.Counter(
            name
            for path in self.folder.iterdir()
            for name in path.read_text(encoding="utf-8").split()
        )
        for name, outcome in self.plain.items():
            times = ran[name]
            if outcome == "another's value":
                self.wrong(f"{name}: {outcome}")
            if times > 1 or (outcome == "value" and times != 1):
                self.wrong(f"{name}: {outcome}, but it ran {times} times")


def footprint() -> dict[str, int]:
    process = psutil.Process()
    return {
        "threads": process.num_threads(),
        "file descriptors": process.num_fds(),
        "megabytes": process.memory_info().rss // 1_000_000,
    }


def storm(
    seconds: float,
    *,
    seed: int = 1,
    workers: int = 3,
    callers: int = 6,
    patience: float = 2.0,
    kills_per_second: float = 2.0,
) -> Report:
    """Let it rage for so long; the report."""
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(Stormy, workers=workers, grace=GRACE, bridge=None, poison_after=10)
        with pool:
            pool.await_ready(60, workers=workers)
            raging = Storm(pool, Path(folder), seed, GRACE + patience)
            threads = [threading.Thread(target=raging.caller, args=(n,)) for n in range(callers)]
            threads.append(threading.Thread(target=raging.killer, args=(kills_per_second,)))
            threads.append(threading.Thread(target=raging.reloader, args=(RELOADS_PER_SECOND,)))
            began = time.monotonic()
            for thread in threads:
                thread.start()
            time.sleep(seconds / 5)  # until everything there is has been used once
            before: dict[str, Any] = footprint()
            time.sleep(seconds * 4 / 5)
            after = footprint()
            raging.stop.set()
            for thread in threads:
                thread.join(PATIENCE)
                if thread.is_alive():
                    raging.wrong("a call hangs")
            pool.drain(PATIENCE)
            pool.await_ready(PATIENCE, workers=workers)
        raging.settle()
        raging.report.seconds = time.monotonic() - began
        raging.report.growth = {name: after[name] - before[name] for name in before}
        return raging.report


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    outcome = storm(options.seconds, seed=options.seed)
    print(outcome)
    sys.exit(bool(outcome.wrong))
