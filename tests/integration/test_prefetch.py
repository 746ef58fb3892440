"""Calls that were submitted one by one are fetched ahead; nobody is to notice but by the clock.

Who was entered is written down by the tools themselves. `together` has the sizes of what travelled
together, so that a test whose calls all went alone does not pass.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
import weakref
from collections import Counter
from concurrent.futures import CancelledError, Future, as_completed, wait
from pathlib import Path
from typing import Any

import pytest
from batch_adapters import Picked, Tiny
from fix_pool import until
from fix_timeouts import scaled

from snakepit_mp import Pool
from snakepit_mp.errors import QueueTimeout, TaskTimeout, WorkerDied
from snakepit_mp.lanes.mailbox import works_here
from snakepit_mp.runtime.futures import Futures
from snakepit_mp.telemetry.events import RequestCompleted

COUNT = 600
AT = 400


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    send = Futures.send

    def sent(futures: Futures, group: Any) -> bool:
        sizes.append(group.items)
        return send(futures, group)

    monkeypatch.setattr(Futures, "send", sent)
    return sizes


def check(together: list[int]) -> None:
    """Without mailboxes there is no journal, and each goes alone; all else is the same."""
    assert max(together, default=1) > 1 if works_here() else not together


@pytest.fixture
def tiny(make_pool) -> Pool:
    return make_pool(Tiny)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def entered(ledger: str) -> list[int]:
    if not os.path.exists(ledger):
        return []
    with open(ledger, encoding="utf-8") as lines:
        return [int(line) for line in lines]


def submit(pool: Pool, tool: str, count: int = COUNT, **common: Any) -> list[Future[Any]]:
    settings = {"timeout": common.pop("timeout", None)}
    return [pool.submit(tool, {"number": n, **common}, **settings) for n in range(count)]


def outcomes(futures: list[Future[Any]]) -> list[Any]:
    return [future.exception() or future.result() for future in futures]


def test_each_is_run_once_and_counted(tiny: Pool, ledger: str, together: list[int]):
    assert outcomes(submit(tiny, "mark", ledger=ledger)) == list(range(COUNT))

    check(together)
    assert Counter(entered(ledger)) == Counter(range(COUNT))
    counters = tiny.stats()
    assert (counters.submitted, counters.completed, counters.running) == (COUNT, COUNT, 0)
    assert sum(row.tasks for row in tiny.workers()) == COUNT


def test_they_run_in_the_order_in_which_they_were_submitted(make_pool, ledger: str, together):
    pool = make_pool(Tiny, workers=1)
    tools = ["mark", "mark", "mark", "die_at"]

    wait(
        pool.submit(
            tools[n // 50 % 4],
            {"ledger": ledger, "number": n, **({"at": -1} if n // 50 % 4 == 3 else {})},
        )
        for n in range(COUNT)
    )

    assert entered(ledger) == list(range(COUNT))
    check(together)


def test_a_death_is_the_fault_of_the_one_in_hand(tiny: Pool, ledger: str, together: list[int]):
    found = outcomes(submit(tiny, "die_at", ledger=ledger, at=AT))

    assert isinstance(found[AT], WorkerDied)
    assert (found[AT].entered, found[AT].attempt) == (True, 1)
    assert [result for result in found if result is not found[AT]] == [
        number for number in range(COUNT) if number != AT
    ]
    assert Counter(entered(ledger)) == Counter(range(COUNT))
    check(together)
    counters = tiny.stats()
    assert (counters.completed, counters.failed) == (COUNT - 1, 1)


def test_only_the_one_in_hand_is_run_again(tiny: Pool, ledger: str, together, tmp_path: Path):
    marker = str(tmp_path / "marker")

    found = outcomes(submit(tiny, "die_once_at", ledger=ledger, at=AT, marker=marker))

    assert found == list(range(COUNT))
    assert Counter(entered(ledger)) - Counter(range(COUNT)) == Counter([AT])
    check(together)


def test_kills_at_any_moment_lose_nothing_and_double_nothing(tiny: Pool, ledger: str, together):
    count, kills = 6000, 0
    futures = submit(tiny, "mark", 1000, ledger=ledger)
    for number in range(1000, count):
        futures.append(tiny.submit("mark", {"ledger": ledger, "number": number}))
        if number % 700 == 0:
            victim = next((row.pid for row in tiny.workers() if row.pid is not None), None)
            if victim is not None:
                kills += 1
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it was not buried yet

    found = outcomes(futures)
    died = [number for number, result in enumerate(found) if isinstance(result, WorkerDied)]
    assert [n for n, result in enumerate(found) if result != n] == died
    assert len(died) <= kills
    runs = Counter(entered(ledger))
    assert max(runs.values()) == 1
    assert set(range(count)) - set(runs) <= set(died)  # killed before it could write that down
    check(together)
    counters = tiny.stats()
    assert (counters.completed, counters.failed) == (count - len(died), len(died))
    assert (counters.waiting, counters.running) == (0, 0)


def test_a_slow_one_gives_back_those_behind_it(tiny: Pool, ledger: str, together, gate):
    futures = submit(tiny, "wait_at", ledger=ledger, at=AT, fifo=gate.fifo)

    others = [future for n, future in enumerate(futures) if n != AT]
    assert outcomes(others) == [n for n in range(COUNT) if n != AT]
    check(together)
    assert not futures[AT].done()
    gate.open()
    assert futures[AT].result() == AT
    assert Counter(entered(ledger)) == Counter(range(COUNT))


def test_who_is_cancelled_behind_a_slow_one_is_not_run(make_pool, ledger: str, together, gate):
    pool = make_pool(Tiny, workers=1)
    futures = submit(pool, "wait_at", ledger=ledger, at=AT, fifo=gate.fifo)
    until(lambda: AT in entered(ledger))

    cancelled = futures[AT + 1 :: 2]
    assert all(future.cancel() for future in cancelled)
    gate.open()

    left = [n for n in range(COUNT) if futures[n] not in cancelled]
    assert outcomes([futures[n] for n in left]) == left
    assert entered(ledger) == left
    check(together)
    until(lambda: pool.stats().cancelled == len(cancelled))
    assert pool.stats().completed == len(left)


def test_who_is_cancelled_in_hand_is_stopped_alone(tiny: Pool, ledger: str, together):
    futures = submit(tiny, "sleep_at", ledger=ledger, at=AT)
    until(lambda: AT in entered(ledger))

    assert futures[AT].cancel()

    del futures[AT]
    assert outcomes(futures) == [n for n in range(COUNT) if n != AT]
    assert Counter(entered(ledger)) == Counter(range(COUNT))
    check(together)
    until(lambda: tiny.stats().cancelled == 1)
    assert tiny.stats().restarts == 0


def test_cancelling_at_any_moment(tiny: Pool, ledger: str, together):
    futures = submit(tiny, "mark", 3000, ledger=ledger)
    cancelled = [n for n in range(1, 3000, 3) if futures[n].cancel()]

    for number, future in enumerate(futures):
        if number in set(cancelled):
            with pytest.raises(CancelledError):
                future.result()
        else:
            assert future.result() == number
    tiny.drain(scaled(10))
    check(together)
    runs = entered(ledger)
    assert len(set(runs)) == len(runs)
    counters = tiny.stats()
    # Some ran before the order to leave them alone came to their worker.
    assert counters.completed + counters.cancelled == 3000
    assert 3000 - len(cancelled) <= counters.completed <= len(runs)


def test_time_is_up_for_the_one_in_hand_alone(tiny: Pool, ledger: str, together):
    found = outcomes(submit(tiny, "sleep_at", ledger=ledger, at=AT, timeout=scaled(2)))

    assert isinstance(found[AT], TaskTimeout)
    assert found[AT].entered
    del found[AT]
    assert found == [n for n in range(COUNT) if n != AT]
    check(together)


def test_time_in_line_is_up_for_who_waits_behind_it(make_pool, ledger: str, together, gate):
    pool = make_pool(Tiny, workers=1, queue_timeout=scaled(1))
    futures = submit(pool, "wait_at", ledger=ledger, at=AT, fifo=gate.fifo)
    late = futures[AT + 1 :]

    assert {type(future.exception()) for future in late} == {QueueTimeout}
    gate.open()
    assert outcomes(futures[: AT + 1]) == list(range(AT + 1))
    assert entered(ledger) == list(range(AT + 1))
    check(together)


def test_an_exception_is_its_own(tiny: Pool, together: list[int]):
    found = outcomes(submit(tiny, "fail_at", at=AT))

    assert isinstance(found[AT], KeyError)
    assert found[AT].args == (AT,)
    del found[AT]
    assert found == [n for n in range(COUNT) if n != AT]
    check(together)


def test_results_of_any_size(tiny: Pool, together: list[int]):
    sizes = [40_000 if n % 50 == 49 else n * 7 for n in range(COUNT)]
    futures = [tiny.submit("sized", (size,)) for size in sizes]

    assert [len(future.result()) for future in futures] == sizes
    check(together)


def test_what_travels_by_pickle_travels_alone(tiny: Pool, together: list[int]):
    picked = [Picked(n) if n % 100 == 50 else n for n in range(COUNT)]
    futures = [tiny.submit("number_of", (one,)) for one in picked]

    assert outcomes(futures) == list(range(COUNT))
    check(together)


def test_functions_travel_together_as_well(tiny: Pool, together: list[int]):
    def double(n: int, *more: int) -> int:
        return 2 * n + len(more)

    futures = [tiny.submit(double, (n,)) for n in range(COUNT)]
    others = [tiny.submit(double, (n, n)) for n in range(COUNT)]

    assert outcomes(futures) == [2 * n for n in range(COUNT)]
    assert outcomes(others) == [2 * n + 1 for n in range(COUNT)]
    check(together)


def test_a_tool_that_may_ask_for_its_deadline_has_its_own(tiny: Pool, together: list[int]):
    with tiny.session("counted") as session:
        session.register_variable("n", "integer", 0)
        futures = [
            tiny.submit("count", ("n",), session_id="counted", timeout=scaled(60))
            for _ in range(100)
        ]
        assert outcomes(futures) == [None] * 100
        assert together == []
        futures = [tiny.submit("count", ("n",), session_id="counted") for _ in range(100)]
        assert outcomes(futures) == [None] * 100
        assert session["n"] == 200


def test_who_listens_is_told_of_each(tiny: Pool, ledger: str, together: list[int]):
    told: list[int] = []
    with tiny.subscribe(lambda event: told.append(event.request_id), RequestCompleted):
        wait(submit(tiny, "mark", 100, ledger=ledger))
        until(lambda: len(told) == 100)
    assert together == []


def test_from_an_event_loop(tiny: Pool, ledger: str, together: list[int]):
    async def run() -> list[int]:
        calls = (tiny.aexecute("mark", {"ledger": ledger, "number": n}) for n in range(COUNT))
        return await asyncio.gather(*calls)

    assert asyncio.run(run()) == list(range(COUNT))
    check(together)


def test_shutdown_cancels_what_waits_behind(make_pool, ledger: str, together, gate):
    pool = make_pool(Tiny, workers=1)
    futures = submit(pool, "wait_at", ledger=ledger, at=AT, fifo=gate.fifo)
    until(lambda: AT in entered(ledger))
    until(lambda: pool.stats().waiting == COUNT - AT - 1)

    pool.shutdown(wait=False, cancel_futures=True)
    gate.open()
    pool.shutdown()

    assert outcomes(futures[: AT + 1]) == list(range(AT + 1))
    assert all(future.cancelled() for future in futures[AT + 1 :])
    check(together)


def test_a_kill_of_all_answers_each(make_pool, ledger: str, together, gate):
    pool = make_pool(Tiny)
    futures = submit(pool, "wait_at", 100, ledger=ledger, at=-1, fifo=gate.fifo)
    wait(futures)
    futures = submit(pool, "mark", 5000, ledger=ledger)

    pool.shutdown(cancel_futures=True, grace=0)

    assert all(future.done() for future in futures)
    check(together)


def test_a_single_one_is_as_quick_as_ever(tiny: Pool, ledger: str):
    """What is fetched ahead must not keep the answers of those before it."""
    futures = submit(tiny, "mark", ledger=ledger)
    began = time.monotonic()
    assert next(iter(as_completed(futures))).done()
    assert time.monotonic() - began < scaled(5)


def test_results_are_let_go_at_once(tiny: Pool, ledger: str, together: list[int]):
    futures = submit(tiny, "mark", ledger=ledger)
    wait(futures)
    tiny.drain(scaled(10))
    alive = [weakref.ref(future) for future in futures]
    gc.collect()
    gc.disable()
    try:
        del futures
        until(lambda: not any(future() is not None for future in alive))
    finally:
        gc.enable()
    check(together)
