"""The log: all writes or none, again if need be, and never outside of its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
from fix_store import stepping

from snakepit_mp.errors import StoreError
from snakepit_mp.store.layout import FAMILY_LOCKED, PAGES, PROCESSES, STRIPES
from snakepit_mp.store.redo import RedoLog, Transaction
from snakepit_mp.store.segment import Segment

COMMIT, AT, AREA, CAPACITY = STRIPES, STRIPES + 1, STRIPES + 8, 10
TARGET = PROCESSES - 100


class Broken(Exception):
    """Instead of a kill."""


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(1 << 20, FAMILY_LOCKED)
    yield made
    made.close()


@pytest.fixture
def log(segment: Segment) -> RedoLog:
    return RedoLog(segment, "stripe", (COMMIT, AT), AREA, CAPACITY)


def break_at(label: str) -> AbstractContextManager[None]:
    def step(reached: str) -> None:
        if reached == label:
            raise Broken

    return stepping(step)


def test_a_transaction_reads_its_own_writes(segment: Segment) -> None:
    tx = Transaction(segment.words)
    tx[TARGET] = 5
    tx[TARGET] += 1
    assert (tx[TARGET], segment.words[TARGET], tx.writes) == (6, 0, {TARGET: 6})


def test_run_writes_everything(segment: Segment, log: RedoLog) -> None:
    log.run({TARGET: 1, TARGET + 5: (1 << 64) - 1})
    assert (segment.words[TARGET], segment.words[TARGET + 5]) == (1, (1 << 64) - 1)
    assert not log.pending


def test_a_zero_is_written_too(segment: Segment, log: RedoLog) -> None:
    segment.words[TARGET] = 9
    tx = Transaction(segment.words)
    tx[TARGET] = 0
    assert tx[TARGET] == 0
    log.run(tx.writes)
    assert segment.words[TARGET] == 0


@pytest.mark.parametrize(
    ("label", "happens"),
    [
        ("stripe.logged", False),
        ("stripe.committed", True),
        ("stripe.applying", True),
        ("stripe.applied", True),
    ],
)
def test_the_commit_decides(
    segment: Segment,
    log: RedoLog,
    label: str,
    happens: bool,
) -> None:
    with break_at(label), pytest.raises(Broken):
        log.run({TARGET + i: i + 1 for i in range(CAPACITY)})
    assert log.pending == happens
    log.replay()
    expected = [i + 1 if happens else 0 for i in range(CAPACITY)]
    assert segment.words[TARGET : TARGET + CAPACITY].tolist() == expected
    assert not log.pending


def test_the_commit_word_only_rises(segment: Segment, log: RedoLog) -> None:
    seen = []
    with stepping(lambda label: seen.append(segment.words[COMMIT])):
        log.run({TARGET: 1, TARGET + 1: 1})
        log.run({TARGET: 2, TARGET + 1: 2})
    assert seen == sorted(seen)
    assert [word % 2 for word in seen[:5]] == [0, 1, 1, 1, 0]
    assert segment.words[COMMIT] == 4


def test_a_long_log_lies_elsewhere(segment: Segment, log: RedoLog) -> None:
    segment.grow(0, 1)
    segment.words[PAGES] = 1
    writes = {TARGET + i: i + 1 for i in range(3 * CAPACITY)}
    with break_at("stripe.committed"), pytest.raises(Broken):
        log.run(writes, segment.heap)
    assert segment.words[AT] == segment.heap
    assert log.replay()
    assert not log.replay()
    assert segment.words[TARGET : TARGET + 3 * CAPACITY].tolist() == list(writes.values())
    log.run({TARGET: 9})
    assert segment.words[AT] == 0


@pytest.mark.parametrize(
    ("place", "count"), [(0, CAPACITY + 1), (AREA, 1), (AREA + 1, 1), ((8 << 30) - 1, 1)]
)
def test_a_log_outside_of_its_place_is_refused(
    segment: Segment, log: RedoLog, place: int, count: int
) -> None:
    segment.words[place or AREA] = count
    segment.words[AT] = place
    segment.words[COMMIT] = 1
    with pytest.raises(StoreError, match="damaged"):
        log.replay()
