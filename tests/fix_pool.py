"""Pools for tests: one for a whole file, or a fresh one; always shut down, within a bound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fix_timeouts import scaled
from pool_adapters import Tools

from snakepit_mp import Pool
from snakepit_mp.runtime import diagnosis

__all__ = ["Gate", "fresh_pool", "gate", "lane", "make_pool", "patience", "pool", "until"]


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What ``condition`` gives as soon as it is true; for facts that nothing announces."""
    limit = time.monotonic() + scaled(seconds)
    while not (value := condition()):
        if time.monotonic() > limit:
            pytest.fail(f"did not come true within {scaled(seconds)} s")
        time.sleep(0.005)
    return value


def _ready(pool: Pool) -> Pool:
    pool.await_ready(timeout=scaled(20), workers=pool.config.workers)
    return pool


@pytest.fixture(scope="module")
def lane(request: pytest.FixtureRequest) -> str:
    """The lane of `pool`, and of what `make_pool` makes if nothing else is asked for."""
    return str(getattr(request, "param", "auto"))


@pytest.fixture(scope="module")
def pool(lane: str) -> Iterator[Pool]:
    """Two workers for the whole file; for tests after which they live on."""
    with Pool(Tools, workers=2, bridge=None, lane=lane) as pool:
        _ready(pool)
        # Both connections are made, so that no test of the file seems to leave one behind.
        for future in [pool.submit("sleep", (0.1,)) for _ in range(2)]:
            future.result()
        assert all(row.tasks for row in pool.workers())
        yield pool


@pytest.fixture
def make_pool(lane: str) -> Iterator[Callable[..., Pool]]:
    """Makes pools that end with the test, those that still work included."""
    made: list[Pool] = []

    def make(adapter: Any = Tools, *, ready: bool = True, **settings: Any) -> Pool:
        settings.setdefault("workers", 2)
        settings.setdefault("bridge", None)
        settings.setdefault("lane", lane)
        pool = Pool(adapter, **settings)
        made.append(pool)
        return _ready(pool) if ready else pool

    yield make
    for pool in made:
        pool.shutdown(cancel_futures=True, grace=0.0)


@pytest.fixture
def fresh_pool(make_pool: Callable[..., Pool]) -> Pool:
    """Two workers for one test."""
    return make_pool()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need more than the moment that callers wait for the exit status."""
    monkeypatch.setattr(diagnosis, "PATIENCE", scaled(5))


class Gate:
    """A tool that was entered blocks here, until it is let go or killed."""

    def __init__(self, folder: Path) -> None:
        self.ledger = str(folder / "ledger")
        self.fifo = str(folder / "fifo")
        os.mkfifo(self.fifo)

    @property
    def args(self) -> dict[str, str]:
        return {"path": self.ledger, "fifo": self.fifo}

    def pids(self) -> list[int]:
        """Who entered, in order: the ledger of what was really run."""
        if not os.path.exists(self.ledger):
            return []
        with open(self.ledger, encoding="utf-8") as ledger:
            return [int(line) for line in ledger]

    def wait_entered(self, times: int = 1) -> int:
        """Until the tool was entered so often; the pid that entered last."""
        until(lambda: len(self.pids()) >= times)
        return self.pids()[-1]

    def open(self) -> None:
        """Let one call go on; blocks until it is there."""
        with open(self.fifo, "w", encoding="utf-8") as gate:
            gate.write("open")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)
