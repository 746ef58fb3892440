"""The log: all writes or none, again if need be, and never outside of its place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from snakepit_mp.errors import StoreError
from snakepit_mp.store import crashpoints
from snakepit_mp.store.redo import RedoLog, Transaction
from snakepit_mp.store.segment import DESCRIPTORS, STRIPES, Segment

COMMIT, AREA, CAPACITY = STRIPES, STRIPES + 8, 10
TARGET = DESCRIPTORS - 100


class Broken(Exception):
    """Instead of a kill."""


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(1 << 20)
    yield made
    made.close()


@pytest.fixture
def log(segment: Segment) -> RedoLog:
    return RedoLog(segment, "stripe", COMMIT, AREA, CAPACITY)


def break_at(monkeypatch: pytest.MonkeyPatch, label: str) -> None:
    def step(reached: str) -> None:
        if reached == label:
            raise Broken

    monkeypatch.setattr(crashpoints, "step", step)


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
    monkeypatch: pytest.MonkeyPatch,
    label: str,
    happens: bool,
) -> None:
    with monkeypatch.context() as patch:
        break_at(patch, label)
        with pytest.raises(Broken):
            log.run({TARGET + i: i + 1 for i in range(CAPACITY)})
    assert log.pending == happens
    log.replay()
    expected = [i + 1 if happens else 0 for i in range(CAPACITY)]
    assert segment.words[TARGET : TARGET + CAPACITY].tolist() == expected
    assert not log.pending


def test_a_log_outside_of_its_place_is_refused(segment: Segment, log: RedoLog) -> None:
    for place, count in ((AREA, CAPACITY + 1), (AREA + 1, 1), (len(segment.words) - 1, 1)):
        segment.words[place] = count
        segment.words[COMMIT] = place
        with pytest.raises(StoreError, match="damaged"):
            log.replay()
