"""Workers are replaced while they are well, and nobody waits for that."""

from __future__ import annotations

import threading

from fault_adapters import Stubborn
from fix_pool import until
from fix_timeouts import scaled

from snakepit_mp.runtime import measuring


def test_workers_are_replaced_after_their_tasks(make_pool):
    pool = make_pool(Stubborn, workers=2, max_tasks_per_worker=10)

    pids = list(pool.map("nap", ((0.001, number) for number in range(80))))
    used = [pool.execute("pid") for _ in range(40)]

    assert pids == list(range(80))
    assert all(used.count(pid) <= 10 for pid in used)
    assert len(set(used)) >= 4
    stats = pool.stats()
    assert stats.recycled >= 8
    assert (stats.worker_deaths, stats.failed) == (0, 0)
    until(lambda: [row.state for row in pool.workers()] == ["READY", "READY"])


def test_adapter_is_stopped_when_its_worker_is_replaced(make_pool, tmp_path, monkeypatch):
    (tmp_path / "counting.py").write_text(
        "from pathlib import Path\n"
        "from snakepit_mp import Adapter, tool\n"
        "class Counting(Adapter):\n"
        "    def stop(self):\n"
        "        with open(Path(__file__).parent / 'stops', 'a') as stops: stops.write('x')\n"
        "    @tool\n"
        "    def nothing(self): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    pool = make_pool("counting:Counting", workers=1, max_tasks_per_worker=5)
    for _ in range(11):
        pool.execute("nothing")

    stops = tmp_path / "stops"
    until(lambda: stops.exists() and len(stops.read_text()) == pool.stats().recycled >= 2)


def test_workers_are_replaced_when_they_are_old(make_pool):
    pool = make_pool(Stubborn, workers=2, max_worker_age=0.5)
    before = {row.pid for row in pool.workers()}

    until(lambda: not before & {row.pid for row in pool.workers()}, 20)

    assert pool.execute("echo", (1,)) == 1


def test_workers_are_replaced_when_they_have_grown(make_pool, monkeypatch):
    monkeypatch.setattr(measuring, "INTERVAL", 0.05)
    pool = make_pool(Stubborn, workers=1, max_worker_rss=300_000_000)
    pid = pool.execute("pid")

    pool.execute("hoard", {"size": 400_000_000})

    until(lambda: pool.execute("pid") != pid, 20)
    assert pool.stats().recycled == 1


def test_calls_go_on_while_workers_are_replaced(make_pool):
    pool = make_pool(Stubborn, workers=2, max_worker_age=0.2)
    failed: list[BaseException] = []

    def call() -> None:
        try:
            for number in range(60):
                assert pool.execute("nap", (0.01, number), timeout=scaled(20)) == number
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert pool.stats().recycled >= 2
    assert pool.stats().worker_deaths == 0
