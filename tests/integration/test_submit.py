"""`Pool.submit`, `map` and `stream`: futures, lines, windows and early ends."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed, wait
from pathlib import Path

import pytest
from fix_pool import Gate, until
from fix_timeouts import scaled
from pool_adapters import PlainError, square

from snakepit_mp import Pool
from snakepit_mp.errors import (
    ConfigError,
    InvalidArguments,
    PoolSaturated,
    QueueTimeout,
    TaskTimeout,
    ToolNotFound,
    WorkerDied,
)
from snakepit_mp.runtime.places import Places


def _collect(stream: Iterator[int], items: list[int]) -> None:
    """Keep what came, also if the stream then raises."""
    items.extend(stream)


def test_future_gives_value_or_exception(pool: Pool):
    assert pool.submit("add", (1, 2)).result(scaled(10)) == 3

    future = pool.submit("fail", {"kind": "plain"})

    assert isinstance(future.exception(scaled(10)), PlainError)
    with pytest.raises(PlainError):
        future.result()


def test_futures_work_with_the_standard_functions(pool: Pool):
    futures = [pool.submit("add", (i, 0)) for i in range(30)]

    assert {future.result() for future in as_completed(futures, scaled(20))} == set(range(30))
    assert not wait(futures).not_done


def test_done_callbacks_are_called(fresh_pool: Pool):
    called = threading.Event()

    fresh_pool.submit("add", (1, 2)).add_done_callback(lambda _: called.set())

    assert called.wait(scaled(10))


def test_many_and_large_tasks_at_once_come_through(pool: Pool):
    large = b"x" * 4_000_000
    futures = [pool.submit("echo", (large if i % 50 == 0 else i,)) for i in range(500)]

    results = [future.result(scaled(60)) for future in futures]

    assert results == [large if i % 50 == 0 else i for i in range(500)]


def test_deadline_of_a_future(fresh_pool: Pool):
    with pytest.raises(TaskTimeout):
        fresh_pool.submit("sleep", {"seconds": 60.0}, timeout=0.05).result(scaled(10))


def test_cancel_withdraws_waiting_work(make_pool, gate: Gate):
    pool = make_pool(workers=1)
    running = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()
    waiting = pool.submit("touch", {"path": gate.ledger})

    assert waiting.cancel()
    gate.open()

    assert running.result(scaled(10)) == "open"
    with pytest.raises(CancelledError):
        waiting.result(0)
    assert len(gate.pids()) == 1


def test_any_number_may_be_cancelled_in_the_moment_a_worker_is_free(make_pool, gate: Gate):
    """One after the other is granted to it, and wanted by nobody."""
    pool = make_pool(workers=1)
    held, told = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(pool.execute, "note_and_wait", gate.args)
        gate.wait_entered()
        waiting = [pool.submit("touch", {"path": gate.ledger}) for _ in range(900)]
        pool._engine.watcher.call(lambda: (told.set(), held.wait())[0])
        told.wait()
        for future in waiting:
            future.cancel()

        gate.open()

        assert running.result(scaled(10)) == "open"
        held.set()
    assert pool.execute("add", (1, 2)) == 3
    pool.drain(scaled(10))
    assert pool.stats().cancelled == len(waiting)


def test_cancel_stops_running_work(make_pool, gate: Gate):
    pool = make_pool(workers=1)
    future = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()
    until(future.running)

    assert future.cancel()
    assert future.cancel()

    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result(0)
    assert wait([future], scaled(10)).done == {future}
    assert pool.execute("add", (1, 2)) == 3


def test_finished_work_cannot_be_cancelled(pool: Pool):
    future = pool.submit("add", (1, 2))
    future.result(scaled(10))

    assert not future.cancel()


def test_full_line_raises_where_asked(make_pool, gate: Gate):
    pool = make_pool(workers=1, queue_size=1, on_full="raise")
    first = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()
    second = pool.submit("add", (1, 2))

    with pytest.raises(PoolSaturated, match="queue_size"):
        pool.execute("add", (3, 4))
    with pytest.raises(PoolSaturated):
        pool.submit("add", (3, 4)).result(scaled(10))

    gate.open()
    assert first.result(scaled(10)) == "open"
    assert second.result(scaled(10)) == 3


def test_full_line_holds_the_submitter_back(make_pool, gate: Gate):
    pool = make_pool(workers=1, queue_size=1)
    first = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()
    second = pool.submit("add", (1, 2))
    third: list[object] = []
    thread = threading.Thread(target=lambda: third.append(pool.submit("add", (3, 4))))
    thread.start()
    until(lambda: pool.stats().waiting == 2)

    assert thread.is_alive()
    assert not third

    gate.open()
    thread.join(scaled(10))
    assert [f.result(scaled(10)) for f in (first, second, *third)] == ["open", 3, 7]


def test_queue_timeout_limits_the_wait_in_line_only(make_pool, gate: Gate):
    pool = make_pool(workers=1, queue_timeout=0.05)
    running = pool.submit("note_and_wait", gate.args)
    gate.wait_entered()

    with pytest.raises(QueueTimeout):
        pool.execute("add", (1, 2))
    with pytest.raises(QueueTimeout):
        pool.submit("add", (1, 2)).result(scaled(10))

    gate.open()
    assert running.result(scaled(10)) == "open"


def test_map_is_ordered_lazy_and_bounded(pool: Pool):
    taken = []

    def items():
        for i in itertools.count():
            taken.append(i)
            yield {"a": i, "b": 1}

    results = pool.map("add", items(), window=3)

    assert taken == []
    assert list(itertools.islice(results, 5)) == [1, 2, 3, 4, 5]
    assert len(taken) <= 8
    results.close()


def test_map_of_a_function_gives_each_item_as_its_argument(pool: Pool):
    assert list(pool.map(square, range(10))) == [i * i for i in range(10)]


def test_map_unordered(pool: Pool):
    results = pool.map("add", ({"a": i} for i in range(20)), ordered=False)

    assert sorted(results) == list(range(1, 21))


def test_who_is_answered_before_he_is_told_of_his_place_is_not_kept_waiting(
    make_pool, monkeypatch: pytest.MonkeyPatch
):
    """The instructions of two threads may overtake each other; here those of this one come never."""
    monkeypatch.setattr(Places, "admit", lambda *_: None)
    pool = make_pool()
    assert pool.submit(abs, (-1,)).result() == 1
    assert list(pool.map(abs, [-2, -3])) == [2, 3]


def test_map_on_error(pool: Pool):
    items = [{"kind": "plain"}, {"kind": "zero"}]

    with pytest.raises(PlainError):
        list(pool.map("fail", items))
    returned = list(pool.map("fail", items, on_error="return"))
    assert [type(error) for error in returned] == [PlainError, ZeroDivisionError]
    assert list(pool.map("fail", items, on_error="skip")) == []


def test_map_checks_its_settings_at_once(pool: Pool):
    with pytest.raises(ConfigError, match="on_error"):
        pool.map("add", [], on_error="ignore")
    with pytest.raises(ConfigError, match="window"):
        pool.map("add", [], window=0)


def test_stream_yields_items_in_order(pool: Pool):
    assert list(pool.stream("numbers", {"n": 50})) == list(range(50))
    assert list(pool.stream("numbers", {"n": 0})) == []


def test_stream_checks_before_it_starts(pool: Pool):
    with pytest.raises(ToolNotFound):
        pool.stream("nothing")
    with pytest.raises(InvalidArguments, match="must not be called as a stream"):
        pool.stream("add", (1,))


def test_stream_passes_items_then_the_exception(pool: Pool):
    items: list[int] = []

    with pytest.raises(PlainError):
        _collect(pool.stream("breaks_after", {"n": 2}), items)

    assert items == [0, 1]


def test_closing_a_stream_stops_the_tool_and_keeps_the_worker(make_pool, tmp_path: Path):
    pool = make_pool(workers=1)
    path = tmp_path / "closed"
    stream = pool.stream("endless", {"path": str(path)})
    assert [next(stream), next(stream)] == [0, 1]
    pid = pool.workers()[0].pid

    stream.close()

    until(path.exists)
    assert pool.execute("where")[0] == pid


def test_stream_time_out_is_for_each_item(fresh_pool: Pool):
    items: list[int] = []

    with pytest.raises(TaskTimeout):
        _collect(fresh_pool.stream("stalls_after", {"n": 2}, timeout=0.3), items)

    assert items == [0, 1]
    assert fresh_pool.execute("add", (1, 2)) == 3


def test_worker_that_dies_in_a_stream(fresh_pool: Pool):
    items: list[int] = []

    with pytest.raises(WorkerDied) as caught:
        _collect(fresh_pool.stream("dies_after", {"n": 2}), items)

    assert items == list(range(len(items)))
    assert caught.value.entered
