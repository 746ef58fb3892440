"""New code comes into a pool that works: no call is lost, and bad code changes nothing."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fix_pool import Gate, until
from fix_timeouts import scaled

from snakepit_mp import Pool
from snakepit_mp.errors import PoolClosed, PoolError, ToolNotFound, WorkerStartError

_CODE = """
import os
from pathlib import Path
from snakepit_mp import Adapter, tool

VERSION = {version}

class Versioned(Adapter):
    {start}
    @tool(idempotent=True)
    def version(self): return VERSION
    @tool
    def where(self): return VERSION, os.getpid(), os.getppid()
    @tool
    def remember(self, ctx, value): ctx["value"] = value
    @tool
    def wait(self, path, fifo):
        with open(path, "a") as ledger: ledger.write(f"{{os.getpid()}}\\n")
        return open(fifo).read()
    {more}
"""


class Source:
    """A module that is written anew."""

    adapter = "versioned:Versioned"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "versioned.py"
        self._writes = 0
        self.write(1)

    def write(self, version: int, start: str = "", more: str = "") -> None:
        self._write(_CODE.format(version=version, start=start, more=more))

    def spoil(self) -> None:
        self._write("def")

    def _write(self, text: str) -> None:
        self._writes += 1  # of another length, so that no cached bytecode seems to fit
        self._path.write_text(text + "#" * self._writes)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.syspath_prepend(tmp_path)
    return Source(tmp_path)


@pytest.fixture
def versioned(make_pool: Callable[..., Pool], source: Source) -> Pool:
    return make_pool(source.adapter, workers=2)


def _versions(pool: Pool) -> set[int]:
    return {pool.execute("version") for _ in range(20)}


def _fork_servers(pool: Pool) -> list[int | None]:
    return [branch.pid for branch in pool.tree().children if branch.name == "fork server"]


def test_every_worker_runs_the_new_code(versioned: Pool, source: Source):
    before = {row.pid for row in versioned.workers()}
    [old_server] = _fork_servers(versioned)
    source.write(2)

    versioned.reload()

    assert _versions(versioned) == {2}
    assert not before & {row.pid for row in versioned.workers()}
    until(lambda: not psutil.pid_exists(old_server))
    assert versioned.execute("where")[2] == _fork_servers(versioned)[0] != old_server
    stats = versioned.stats()
    assert (stats.recycled, stats.worker_deaths, stats.failed) == (2, 0, 0)


def test_no_call_is_lost_and_none_goes_back(make_pool, source: Source):
    pool = make_pool(source.adapter, workers=2)
    seen: list[list[int]] = [[] for _ in range(3)]
    failed: list[BaseException] = []
    enough = threading.Event()

    def call(mine: list[int]) -> None:
        try:
            while not enough.is_set():
                mine.append(pool.execute("version", timeout=scaled(20)))
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=call, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for version in (2, 3):
        source.write(version)
        pool.reload(scaled(30))
        marks = [len(mine) for mine in seen]
        until(lambda marks=marks: all(len(m) > k + 1 for m, k in zip(seen, marks, strict=True)))
        assert {mine[-1] for mine in seen} == {version}
    enough.set()
    for thread in threads:
        thread.join()

    assert failed == []
    assert all(set(mine) == {1, 2, 3} for mine in seen)
    assert pool.stats().failed == pool.stats().worker_deaths == 0


def test_sessions_stay_and_new_tools_come_in(versioned: Pool, source: Source):
    with versioned.session("s") as session:
        session["value"] = 0
        versioned.execute("remember", {"value": 7}, session_id="s")
        with pytest.raises(ToolNotFound):
            versioned.execute("later")
        source.write(2, more="@tool\n    def later(self): return 'later'")

        versioned.reload()

        assert versioned.execute("later") == "later"
        assert session["value"] == 7


def test_each_worker_that_imports_for_itself_is_new(make_pool, source: Source):
    pool = make_pool(source.adapter, workers=2, import_in="worker")
    assert _versions(pool) == {1}
    source.write(2, more="@tool\n    def later(self): return 'later'")

    pool.reload()

    assert _versions(pool) == {2}
    assert pool.execute("later") == "later"


def test_code_that_cannot_be_imported_changes_nothing(versioned: Pool, source: Source):
    before = {row.pid for row in versioned.workers()}
    source.spoil()

    with pytest.raises(WorkerStartError, match="the new code cannot be started") as caught:
        versioned.reload()

    assert isinstance(caught.value.__cause__, SyntaxError)
    assert {row.pid for row in versioned.workers()} == before
    until(lambda: len(_fork_servers(versioned)) == 1)
    source.write(2)
    versioned.reload()
    assert _versions(versioned) == {2}


@pytest.mark.parametrize("import_in", ["server", "worker"])
def test_code_that_cannot_be_started_changes_nothing(make_pool, source: Source, import_in: str):
    pool = make_pool(source.adapter, workers=2, import_in=import_in)
    before = {row.pid for row in pool.workers()}
    source.write(2, start="def start(self): raise ValueError('no model')")

    with pytest.raises(WorkerStartError, match="no model") as caught:
        pool.reload()

    assert isinstance(caught.value.__cause__, ValueError)
    assert {row.pid for row in pool.workers()} == before
    assert _versions(pool) == {1}


def test_a_worker_that_dies_in_its_start_changes_nothing(versioned: Pool, source: Source):
    source.write(2, start="def start(self): os._exit(3)")
    with pytest.raises(WorkerStartError):
        versioned.reload()
    assert _versions(versioned) == {1}


def test_a_pool_that_has_failed_comes_back_with_code_that_works(make_pool, source: Source):
    source.spoil()
    pool = make_pool(source.adapter, workers=1, ready=False)
    with pytest.raises(WorkerStartError):
        pool.execute("version")
    source.write(2)

    pool.reload()

    assert pool.execute("version") == 2


@pytest.mark.usefixtures("patience")
def test_a_long_call_is_finished_and_waited_for(make_pool, source: Source, gate: Gate):
    pool = make_pool(source.adapter, workers=1)
    future = pool.submit("wait", gate.args)
    pid = gate.wait_entered()
    source.write(2)

    with pytest.raises(TimeoutError, match="that goes on"):
        pool.reload(0.01)
    with pytest.raises(PoolError, match="already"):
        pool.reload()
    until(lambda: pool.execute("version") == 2)  # the successor serves
    assert psutil.pid_exists(pid)
    gate.open()

    assert future.result(scaled(10)) == "open"
    until(lambda: not psutil.pid_exists(pid))
    until(lambda: len(_fork_servers(pool)) == 1)


def test_shutdown_ends_a_reload(make_pool, source: Source, gate: Gate):
    pool = make_pool(source.adapter, workers=1)
    future = pool.submit("wait", gate.args)
    gate.wait_entered()
    outcome: list[BaseException] = []

    def reload() -> None:
        try:
            pool.reload()
        except PoolClosed as error:
            outcome.append(error)

    thread = threading.Thread(target=reload)
    thread.start()
    until(lambda: len(_fork_servers(pool)) == 2)
    pool.shutdown(wait=False)
    thread.join(scaled(20))
    gate.open()

    assert len(outcome) == 1
    assert future.result(scaled(10)) == "open"
    pool.shutdown()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.usefixtures("patience")
def test_kills_at_any_moment_lose_nothing(make_pool, source: Source, seed: int):
    """Of workers, of either fork server; the pool is whole again, of one code or the other."""
    dice = random.Random(seed)
    pool = make_pool(source.adapter, workers=2)
    calls = [pool.submit("version") for _ in range(50)]
    source.write(2)
    over = threading.Event()
    outcome: list[BaseException | None] = []

    def reload() -> None:
        try:
            pool.reload(scaled(30))
            outcome.append(None)
        except WorkerStartError as error:
            outcome.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=reload)
    thread.start()
    for _ in range(3):
        over.wait(dice.uniform(0, 0.15))
        pids = [row.pid for row in pool.workers()] + _fork_servers(pool)
        victim = dice.choice([pid for pid in pids if pid is not None] or [None])
        if victim is not None:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        calls += [pool.submit("version") for _ in range(10)]
    thread.join()

    assert all(call.result(scaled(20)) in (1, 2) for call in calls)
    pool.await_ready(scaled(20), workers=2)
    if outcome == [None]:
        assert _versions(pool) == {2}
    until(lambda: len(_fork_servers(pool)) == 1)


def test_nothing_is_left_of_the_old_server(versioned: Pool, source: Source):
    """Descriptors, threads and processes: as many after six reloads as after one."""
    source.write(2)
    versioned.reload()
    this = psutil.Process()

    def size() -> tuple[int, int, int]:
        return this.num_fds(), threading.active_count(), len(this.children(recursive=True))

    before = until(lambda: size() if len(_fork_servers(versioned)) == 1 else None)
    for version in range(3, 8):
        source.write(version)
        versioned.reload()
    until(lambda: size() == before)
