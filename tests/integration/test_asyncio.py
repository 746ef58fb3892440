"""Calls from an event loop: as from threads, and no thread is kept waiting."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from fix_pool import Gate, until
from pool_adapters import PlainError, square

from snakepit_mp import Pool
from snakepit_mp.errors import (
    InvalidArguments,
    PoolClosed,
    PoolSaturated,
    QueueTimeout,
    TaskTimeout,
    WorkerDied,
)


def _add(pair: tuple[int, int]) -> int:
    return pair[0] + pair[1]


async def _collect(items: AsyncIterator[Any], most: int = 1_000_000) -> list[Any]:
    found = []
    async for item in items:
        found.append(item)
        if len(found) == most:
            break
    return found


# -- aexecute -----------------------------------------------------------------------------


def test_a_value_and_an_exception(pool: Pool):
    async def calls() -> None:
        assert await pool.aexecute("add", (1, 2)) == 3
        assert await pool.aexecute(square, (3,)) == 9
        with pytest.raises(PlainError, match="as itself"):
            await pool.aexecute("fail", ("plain",))
        with pytest.raises(InvalidArguments):
            await pool.aexecute("add", ())

    asyncio.run(calls())


def test_many_at_once_need_no_thread_each(pool: Pool):
    async def calls() -> int:
        waiting = [asyncio.ensure_future(pool.aexecute("sleep", (0.01,))) for _ in range(100)]
        await asyncio.sleep(0)
        threads = threading.active_count()
        await asyncio.gather(*waiting)
        return threads

    asyncio.run(pool.aexecute("add", (1, 2)))
    before = threading.active_count()
    assert asyncio.run(calls()) <= before + 2


def test_the_loop_goes_on_while_a_call_runs_and_while_the_line_is_full(make_pool, gate: Gate):
    pool = make_pool(workers=1, queue_size=1)

    async def calls() -> list[Any]:
        first = asyncio.ensure_future(pool.aexecute("note_and_wait", gate.args))
        others = [asyncio.ensure_future(pool.aexecute("add", (n, 0))) for n in range(5)]
        await asyncio.to_thread(gate.wait_entered)
        await asyncio.to_thread(gate.open)
        return await asyncio.gather(first, *others)

    assert asyncio.run(calls()) == ["open", 0, 1, 2, 3, 4]


def test_a_full_line_raises_where_asked(make_pool, gate: Gate):
    pool = make_pool(workers=1, queue_size=1, on_full="raise")

    async def calls() -> None:
        first = asyncio.ensure_future(pool.aexecute("note_and_wait", gate.args))
        await asyncio.to_thread(gate.wait_entered)
        second = asyncio.ensure_future(pool.aexecute("add", (1, 2)))
        await asyncio.sleep(0)
        with pytest.raises(PoolSaturated):
            await pool.aexecute("add", (1, 2))
        await asyncio.to_thread(gate.open)
        assert await asyncio.gather(first, second) == ["open", 3]

    asyncio.run(calls())


def test_cancelling_the_task_stops_the_tool(make_pool, gate: Gate):
    pool = make_pool(workers=1)

    async def calls() -> None:
        task = asyncio.ensure_future(pool.aexecute("note_and_wait", gate.args))
        pid = await asyncio.to_thread(gate.wait_entered)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await pool.aexecute("where"))[0] == pid  # the worker was spared

    asyncio.run(calls())
    assert pool.stats().cancelled == 1


def test_a_deadline_and_a_time_out_of_the_caller(pool: Pool):
    async def calls() -> None:
        with pytest.raises(TaskTimeout):
            await pool.aexecute("sleep", (600.0,), timeout=0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.aexecute("sleep", (600.0,))
        assert await pool.aexecute("add", (1, 2)) == 3

    asyncio.run(calls())


@pytest.mark.usefixtures("patience")
def test_a_death_is_told(make_pool, gate: Gate):
    pool = make_pool(workers=1)

    async def calls() -> None:
        task = asyncio.ensure_future(pool.aexecute("note_and_wait", gate.args))
        os.kill(await asyncio.to_thread(gate.wait_entered), signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await task
        assert await pool.aexecute("add", (1, 2)) == 3

    asyncio.run(calls())


def test_a_loop_that_is_closed_is_told_nothing(make_pool, gate: Gate):
    pool = make_pool(workers=1)

    async def call() -> None:
        await pool.aexecute("note_and_wait", gate.args)

    loop = asyncio.new_event_loop()
    task = loop.create_task(call())
    loop.run_until_complete(asyncio.sleep(0))
    gate.wait_entered()
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()

    assert pool.execute("add", (1, 2)) == 3


def test_work_that_the_pool_cancels(make_pool, gate: Gate):
    pool = make_pool(workers=1)

    async def calls() -> None:
        first = asyncio.ensure_future(pool.aexecute("note_and_wait", gate.args))
        await asyncio.to_thread(gate.wait_entered)
        second = asyncio.ensure_future(pool.aexecute("add", (1, 2)))
        await asyncio.sleep(0)
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(CancelledError):
            await second
        await asyncio.to_thread(gate.open)
        assert await first == "open"
        with pytest.raises(PoolClosed):
            await pool.aexecute("add", (1, 2))

    asyncio.run(calls())


def test_tools_that_are_not_known_yet_are_waited_for(make_pool, tmp_path, monkeypatch):
    (tmp_path / "slow_import.py").write_text(
        "import time\n"
        "from snakepit_mp import Adapter, tool\n"
        "time.sleep(0.2)\n"
        "class Slow(Adapter):\n"
        "    @tool\n"
        "    def one(self): return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    pool = make_pool("slow_import:Slow", workers=1, ready=False)

    async def calls() -> int:
        ticks = 0
        task = asyncio.ensure_future(pool.aexecute("one"))
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert await task == 1
        return ticks

    assert asyncio.run(calls()) > 3


# -- astream ------------------------------------------------------------------------------


def test_a_stream(pool: Pool):
    async def calls() -> None:
        assert await _collect(pool.astream("numbers", {"n": 0})) == []
        assert await _collect(pool.astream("numbers", {"n": 50})) == list(range(50))
        with pytest.raises(InvalidArguments):
            await _collect(pool.astream("add", (1, 2)))

    asyncio.run(calls())


def test_a_stream_that_fails(pool: Pool):
    async def calls() -> None:
        items = pool.astream("breaks_after", {"n": 3})
        assert [await anext(items) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(PlainError):
            await anext(items)

    asyncio.run(calls())


def test_streams_that_are_left_early_cost_no_worker(pool: Pool):
    before = {row.pid for row in pool.workers()}

    async def calls() -> None:
        for _ in range(5):
            items = pool.astream("numbers", {"n": 1_000_000})
            assert await _collect(items, 3) == [0, 1, 2]
            await items.aclose()
        begun = asyncio.Event()

        async def consume() -> None:
            async for _ in pool.astream("numbers", {"n": 1_000_000}):
                begun.set()

        task = asyncio.ensure_future(consume())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(calls())
    until(lambda: all(row.state == "READY" for row in pool.workers()))
    assert {row.pid for row in pool.workers()} == before


def test_the_time_out_of_a_stream_is_for_each_item(make_pool):
    pool = make_pool(workers=1)

    async def calls() -> None:
        with pytest.raises(TaskTimeout):
            await _collect(pool.astream("stalls_after", {"n": 2}, timeout=0.1))
        assert await pool.aexecute("add", (1, 2)) == 3

    asyncio.run(calls())


def test_a_stream_may_wait_in_line_only_so_long(make_pool, gate: Gate):
    pool = make_pool(workers=1, queue_timeout=0.05)

    async def calls() -> None:
        first = asyncio.ensure_future(pool.aexecute("note_and_wait", gate.args))
        await asyncio.to_thread(gate.wait_entered)
        with pytest.raises(QueueTimeout):
            await _collect(pool.astream("numbers", {"n": 3}))
        await asyncio.to_thread(gate.open)
        assert await first == "open"

    asyncio.run(calls())


@pytest.mark.usefixtures("patience")
def test_a_worker_that_dies_in_a_stream(make_pool):
    pool = make_pool(workers=1)

    async def calls() -> None:
        items = pool.astream("numbers", {"n": 1_000_000})
        assert await anext(items) == 0
        os.kill(pool.workers()[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await _collect(items)
        assert await pool.aexecute("add", (1, 2)) == 3

    asyncio.run(calls())


# -- amap ---------------------------------------------------------------------------------


def test_a_map_is_ordered_lazy_and_bounded(pool: Pool):
    taken: list[int] = []

    def endless() -> Any:
        for number in range(1_000_000):
            taken.append(number)
            yield number

    async def calls() -> None:
        items = pool.amap(square, endless(), window=4)
        assert await _collect(items, 10) == [n * n for n in range(10)]
        await items.aclose()

    asyncio.run(calls())
    assert len(taken) <= 15


def test_a_map_of_an_asynchronous_iterable_in_any_order(pool: Pool):
    async def numbers() -> AsyncIterator[int]:
        for number in range(20):
            await asyncio.sleep(0)
            yield number

    async def calls() -> None:
        found = await _collect(pool.amap(square, numbers(), ordered=False))
        assert sorted(found) == [n * n for n in range(20)]

    asyncio.run(calls())


@pytest.mark.parametrize("on_error", ["raise", "return", "skip"])
def test_what_a_map_does_about_errors(pool: Pool, on_error: str):
    items = [(1, 2), (1, None), (1, 3)]

    async def calls() -> list[Any]:
        return await _collect(pool.amap(_add, items, on_error=on_error))

    if on_error == "raise":
        with pytest.raises(TypeError):
            asyncio.run(calls())
    else:
        found = asyncio.run(calls())
        assert [x for x in found if not isinstance(x, TypeError)] == [3, 4]
        assert len(found) == (3 if on_error == "return" else 2)


def test_cancelling_a_map_stops_all_of_it(make_pool, gate: Gate):
    pool = make_pool(workers=1)

    async def calls() -> None:
        task = asyncio.ensure_future(_collect(pool.amap("note_and_wait", [gate.args] * 3)))
        await asyncio.to_thread(gate.wait_entered)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(calls())
    assert pool.execute("add", (1, 2)) == 3
    assert len(gate.pids()) == 1  # nothing else was begun
