"""The items of a map travel together while they are tiny; nobody is to notice but by the clock.

Who was entered is written down by the tools themselves. The item about which a test is comes late
enough for batches of hundreds.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_adapters import Picked, Tiny
from fix_pool import until
from fix_timeouts import scaled

from snakepit_mp import Pool
from snakepit_mp.errors import InvalidArguments, PoolClosed, TaskTimeout, WorkerDied
from snakepit_mp.runtime.batching import BatchFuture
from snakepit_mp.telemetry.events import RequestCompleted

COUNT = 1500
AT = 1000


@pytest.fixture
def tiny(make_pool) -> Pool:
    return make_pool(Tiny)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def entered(ledger: str) -> Counter[int]:
    if not os.path.exists(ledger):
        return Counter()
    with open(ledger, encoding="utf-8") as lines:
        return Counter(int(line) for line in lines)


def items(count: int = COUNT, **common: Any) -> Iterator[dict[str, Any]]:
    return ({"number": number, **common} for number in range(count))


@pytest.mark.parametrize("ordered", [True, False])
def test_each_is_run_once_and_counted(tiny: Pool, ledger: str, ordered: bool):
    found = list(tiny.map("mark", items(ledger=ledger), ordered=ordered))

    assert (found if ordered else sorted(found)) == list(range(COUNT))
    assert entered(ledger) == Counter(range(COUNT))
    counters = tiny.stats()
    assert (counters.submitted, counters.completed) == (COUNT, COUNT)
    assert sum(row.tasks for row in tiny.workers()) == COUNT


def test_a_death_is_the_fault_of_the_item_in_hand(tiny: Pool, ledger: str):
    found = list(tiny.map("die_at", items(ledger=ledger, at=AT), on_error="return"))

    assert isinstance(found[AT], WorkerDied)
    assert found[AT].entered
    assert found[AT].attempt == 1
    del found[AT]
    assert found == [number for number in range(COUNT) if number != AT]
    assert entered(ledger) == Counter(range(COUNT))
    counters = tiny.stats()
    assert (counters.completed, counters.failed) == (COUNT - 1, 1)


def test_only_the_item_in_hand_is_run_again(tiny: Pool, ledger: str, tmp_path: Path):
    marker = str(tmp_path / "marker")

    found = list(tiny.map("die_once_at", items(ledger=ledger, at=AT, marker=marker)))

    assert found == list(range(COUNT))
    assert entered(ledger) - Counter(range(COUNT)) == Counter([AT])
    assert tiny.stats().rerun == 1


def test_kills_at_any_moment_lose_nothing_and_double_nothing(tiny: Pool, ledger: str):
    found = []
    kills = 0
    for result in tiny.map("mark", items(20_000, ledger=ledger), on_error="return"):
        found.append(result)
        if len(found) % 2000 == 700:
            victim = next((row.pid for row in tiny.workers() if row.pid is not None), None)
            if victim is not None:
                kills += 1
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it was not buried yet

    died = [number for number, result in enumerate(found) if isinstance(result, WorkerDied)]
    assert [n for n, result in enumerate(found) if result != n] == died
    assert len(died) <= kills
    runs = entered(ledger)
    assert max(runs.values()) == 1
    assert set(range(20_000)) - set(runs) <= set(died)  # killed before it could write that down
    counters = tiny.stats()
    assert (counters.completed, counters.failed) == (20_000 - len(died), len(died))


def test_a_slow_item_gives_back_those_behind_it(tiny: Pool, ledger: str, gate):
    results = tiny.map(
        "wait_at", items(ledger=ledger, at=AT, fifo=gate.fifo), ordered=False, window=COUNT
    )

    found = [next(results) for _ in range(COUNT - 1)]  # all but the one

    assert sorted([*found, AT]) == list(range(COUNT))
    gate.open()
    assert list(results) == [AT]
    assert entered(ledger) == Counter(range(COUNT))


def test_a_slow_item_keeps_back_no_result(tiny: Pool, ledger: str, gate):
    results = tiny.map("wait_at", items(ledger=ledger, at=AT, fifo=gate.fifo))

    assert [next(results) for _ in range(AT)] == list(range(AT))
    gate.open()
    assert list(results) == list(range(AT, COUNT))


def test_time_is_up_for_the_item_in_hand_alone(tiny: Pool, ledger: str):
    found = list(
        tiny.map("sleep_at", items(ledger=ledger, at=AT), timeout=scaled(1), on_error="return")
    )

    assert isinstance(found[AT], TaskTimeout)
    del found[AT]
    assert found == [number for number in range(COUNT) if number != AT]
    assert entered(ledger) == Counter(range(COUNT))
    assert tiny.stats().timed_out == 1


@pytest.mark.parametrize("on_error", ["raise", "return", "skip"])
def test_an_exception_is_that_of_its_item(tiny: Pool, on_error: str):
    results = tiny.map("fail_at", items(at=AT), on_error=on_error)

    assert [next(results) for _ in range(AT)] == list(range(AT))
    if on_error == "raise":
        with pytest.raises(KeyError, match=str(AT)) as caught:
            next(results)
        assert "fail_at" in str(caught.value.__cause__)
    elif on_error == "return":
        assert isinstance(next(results), KeyError)
    assert list(results) == ([] if on_error == "raise" else list(range(AT + 1, COUNT)))


def test_a_bad_item_has_its_turn(tiny: Pool):
    def some() -> Iterator[dict[str, Any]]:
        yield from items(AT, at=-1)
        yield {"number": 1, "wrong": 2}

    results = tiny.map("fail_at", some(), on_error="skip")

    assert [next(results) for _ in range(AT)] == list(range(AT))
    with pytest.raises(InvalidArguments, match="wrong"):
        next(results)


def test_an_early_end_withdraws_what_waits(tiny: Pool, ledger: str):
    endless = ({"ledger": ledger, "number": number} for number in iter(int, 1))
    results = tiny.map("mark", endless)
    for _ in range(AT):
        next(results)

    results.close()

    tiny.drain(scaled(10))
    counters = tiny.stats()
    assert counters.submitted == counters.completed + counters.cancelled
    assert entered(ledger).total() == counters.completed


def test_a_window_is_never_exceeded(tiny: Pool, ledger: str):
    read = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal read
        for item in items(ledger=ledger):
            read += 1
            yield item

    for done, _ in enumerate(tiny.map("mark", counted(), window=100)):
        assert read <= done + 1 + 100


def test_items_see_nothing_of_each_other(tiny: Pool):
    assert set(tiny.map("visit", items())) == {None}


def test_results_of_any_size(tiny: Pool):
    sizes = [10] * 500 + [5000] * 200 + [10] * 100 + [100_000, 10, 1_000_000, 10] * 2

    found = list(tiny.map("sized", ({"size": size} for size in sizes)))

    assert [len(each) for each in found] == sizes


def test_arguments_of_any_size(tiny: Pool):
    sizes = [10] * 500 + [20_000] * 20 + [400_000] + [10] * 20

    found = list(tiny.map("number_of", ((0,) for _ in sizes)))
    lengths = list(tiny.map("sized", ({"size": size} for size in [1] * 50)))

    assert found == [0] * len(sizes)
    assert lengths == ["x"] * 50


def test_what_travels_by_pickle_travels_as_well(tiny: Pool):
    mixed = [(number,) if number < AT else (Picked(number),) for number in range(AT + 50)]

    assert list(tiny.map("number_of", mixed)) == list(range(AT + 50))
    found = list(tiny.map("pick", items(600)))
    assert [each if isinstance(each, int) else each.number for each in found] == list(range(600))


def test_coroutines_and_forked_children(tiny: Pool):
    assert list(tiny.map("later", items(600))) == list(range(600))
    found = list(tiny.map("fork_at", items(at=AT)))
    assert found == [0 if number == AT else number for number in range(COUNT)]


def test_results_are_let_go_at_once(tiny: Pool, ledger: str):
    """Not by the garbage collector, which may come late: they may be large."""
    gc.collect()
    gc.disable()
    try:
        found = list(tiny.map("sleep_at", items(ledger=ledger, at=-1), timeout=3600))
        left = [each for each in gc.get_objects() if isinstance(each, BatchFuture)]
    finally:
        gc.enable()
    assert found == list(range(COUNT))
    assert left == []


def test_in_a_session(tiny: Pool):
    with tiny.session() as session:
        session.register_variable("n", "integer", 0)
        for _ in session.map("count", ({"name": "n"} for _ in range(COUNT))):
            pass
        assert session["n"] == COUNT


def test_who_listens_is_told_of_each(tiny: Pool):
    told: list[RequestCompleted] = []
    with tiny.subscribe(told.append, RequestCompleted):
        list(tiny.map("fail_at", items(100, at=-1)))
        until(lambda: len(told) == 100)


def test_shutdown_in_the_middle_ends_all_of_it(make_pool, ledger: str):
    pool = make_pool(Tiny)
    endless = ({"ledger": ledger, "number": number} for number in itertools.count())
    results = pool.map("mark", endless, on_error="return")
    found = [next(results) for _ in range(AT)]

    pool.shutdown()

    with pytest.raises(PoolClosed):
        found.extend(results)
    assert found == list(range(len(found)))  # what was under way is not lost
    counters = pool.stats()
    assert counters.submitted == counters.completed + counters.failed


def test_from_an_event_loop(tiny: Pool, ledger: str):
    async def run() -> list[int]:
        found = tiny.amap("die_at", items(ledger=ledger, at=AT), on_error="skip")
        return [each async for each in found]

    assert asyncio.run(run()) == [number for number in range(COUNT) if number != AT]
    assert entered(ledger) == Counter(range(COUNT))


def test_cancelling_the_task_withdraws_what_waits(tiny: Pool, ledger: str, gate):
    async def run() -> None:
        found = tiny.amap("wait_at", items(ledger=ledger, at=AT, fifo=gate.fifo))
        task = asyncio.ensure_future(_drain(found))
        await asyncio.to_thread(until, lambda: AT in entered(ledger))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    tiny.drain(scaled(10))
    counters = tiny.stats()
    assert counters.submitted == counters.completed + counters.cancelled
    assert max(entered(ledger).values()) == 1


def test_an_end_between_a_split_and_its_landing(tiny: Pool, ledger: str, gate):
    """What is split off while nobody looks is withdrawn as well."""
    results = tiny.map("wait_at", items(ledger=ledger, at=AT, fifo=gate.fifo), window=COUNT)
    found = next(results)
    while AT not in entered(ledger):
        found = next(results)
    until(lambda: AT + 1 in entered(ledger))  # the batch was split; nobody has asked for that
    results.close()
    gate.open()

    tiny.drain(scaled(10))
    assert found < AT
    counters = tiny.stats()
    assert counters.submitted == counters.completed + counters.cancelled
    assert entered(ledger).total() == counters.completed


async def _drain(found: Any) -> None:
    async for _ in found:
        pass
