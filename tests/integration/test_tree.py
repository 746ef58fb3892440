"""What a pool shows of itself."""

from __future__ import annotations

import pytest
from fix_pool import Gate, until
from fix_timeouts import scaled

from snakepit_mp import Pool
from snakepit_mp.errors import WorkerDied
from snakepit_mp.runtime.tree import Branch


def test_printed_branches_make_a_tree():
    leaf = Branch("leaf", "READY", since=1.23, restarts=2, pid=7, facts=("3 tasks",))
    root = Branch("root", "open", children=(Branch("a", "idle", children=(leaf, leaf)), leaf))

    line = "leaf: READY, pid 7, for 1.2 s, restarted 2 times, 3 tasks"
    assert str(root).splitlines() == [
        "root: open",
        "├── a: idle",
        f"│   ├── {line}",
        f"│   └── {line}",
        f"└── {line}",
    ]


def test_pool_shows_components_and_workers(make_pool, gate: Gate):
    pool = make_pool(workers=2)
    with pytest.raises(WorkerDied):
        pool.execute("die")
    pool.await_ready(scaled(20), workers=2)
    future = pool.submit("note_and_wait", gate.args)
    pid = gate.wait_entered()

    tree = pool.tree()

    bridge, janitor, watcher, callbacks, server = tree.children
    assert (tree.state, bridge.state, janitor.state, watcher.state, callbacks.state) == (
        "open",
        "none",
        "running",
        "running",
        "idle",
    )
    assert (server.name, server.state, server.restarts) == ("fork server", "UP", 0)
    assert server.pid == pool.execute("where")[1]
    assert {worker.name for worker in server.children} == {"worker 0", "worker 1"}
    assert sum(worker.restarts for worker in server.children) == 1
    busy = next(worker for worker in server.children if worker.pid == pid)
    assert busy.state == "EXECUTING"
    assert "has request" in str(busy)
    assert str(pid) in str(tree)
    gate.open()
    future.result(scaled(10))


def test_closed_pool_shows_that_all_has_ended(fresh_pool: Pool):
    fresh_pool.shutdown()

    tree = fresh_pool.tree()

    assert tree.state == "closed"
    until(lambda: fresh_pool.tree().children[2].state == "ended")
    assert {worker.state for worker in tree.children[4].children} == {"STOPPED"}
