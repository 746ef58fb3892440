"""Runs are given, taken back, joined and counted; what does not fit changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from fix_store import stepping
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit_mp.errors import StoreError, StoreFull
from snakepit_mp.store import verify
from snakepit_mp.store.blocks import kind_of, length_of, payload_of
from snakepit_mp.store.layout import (
    FAMILY_LOCKED,
    FREE_PAGES,
    PAGE_BYTES,
    PAGES,
    RUN_HEADER,
    S_GARBAGE,
    S_PENDING,
    SMALL_MOST,
    STRIPES,
    WORD,
    Kind,
)
from snakepit_mp.store.locks import LOCK_FILE_BYTES, LockFile
from snakepit_mp.store.pages import Pages
from snakepit_mp.store.segment import Segment, anonymous_file

MAX_PAGES = 200
PENDING, GARBAGE = STRIPES + S_PENDING, STRIPES + S_GARBAGE
LEAST = SMALL_MOST + 1
ONE_PAGE = PAGE_BYTES - RUN_HEADER * WORD


@dataclass
class Heap:
    """An allocator of pages whose runs belong to the test."""

    segment: Segment
    locks: LockFile
    pages: Pages
    runs: dict[int, int] = field(default_factory=dict)

    @classmethod
    def make(cls) -> Heap:
        segment = Segment.create(16 << 20, FAMILY_LOCKED)
        locks = LockFile.open(segment.identity, anonymous_file("locks", LOCK_FILE_BYTES))
        return cls(segment, locks, Pages(segment, locks, MAX_PAGES * PAGE_BYTES))

    def take(self, length: int) -> int:
        run = self.pages.allocate(PENDING, Kind.VALUE, length)
        self.segment.words[PENDING] = 0
        self.runs[run] = length
        return run

    def fill(self, length: int) -> None:
        while True:
            self.take(length)

    def give(self, *runs: int) -> None:
        for run in runs:
            self.segment.words[run] = self.segment.words[GARBAGE]
            self.segment.words[GARBAGE] = run
            del self.runs[run]
        self.pages.release(GARBAGE)

    def damage(self) -> list[str]:
        """What is wrong besides that no table leads to the test's runs."""
        owned = {f"block {run} (kind {int(Kind.VALUE)}) is lost" for run in self.runs}
        return sorted(owned ^ set(verify.problems(self.segment)))

    @property
    def used(self) -> int:
        return self.segment.words[PAGES] - self.segment.words[FREE_PAGES]

    def close(self) -> None:
        identity = self.segment.identity
        self.segment.close()
        self.locks.close(identity)


@pytest.fixture
def heap() -> Iterator[Heap]:
    made = Heap.make()
    yield made
    made.close()


@pytest.mark.parametrize("length", [LEAST, ONE_PAGE, ONE_PAGE + 1, PAGE_BYTES, 500_000])
def test_a_run_has_its_length_and_kind(heap: Heap, length: int) -> None:
    run, words = heap.take(length), heap.segment.words
    assert (length_of(words, run), kind_of(words, run)) == (length, Kind.VALUE)
    assert heap.used == 1 + (length - ONE_PAGE + PAGE_BYTES - 1) // PAGE_BYTES
    assert payload_of(words, run) * WORD % 64 == 0
    assert heap.damage() == []
    heap.give(run)
    assert (heap.used, heap.damage()) == (0, [])


def test_a_run_enters_the_chain_of_whoever_asks(heap: Heap) -> None:
    first = heap.pages.allocate(PENDING, Kind.VALUE, LEAST)
    second = heap.pages.allocate(PENDING, Kind.VALUE, LEAST)
    words = heap.segment.words
    assert (words[PENDING], words[second], words[first]) == (second, first, 0)
    heap.pages.release(PENDING)
    assert (words[PENDING], heap.used) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(LEAST, 9 * PAGE_BYTES), st.floats(0, 1, exclude_max=True)),
        max_size=60,
    )
)
def test_whatever_is_taken_and_given_back_adds_up(steps: list[int | float]) -> None:
    heap = Heap.make()
    try:
        for step in steps:
            if isinstance(step, int):
                heap.take(step)
            elif heap.runs:
                heap.give(list(heap.runs)[int(step * len(heap.runs))])
        assert heap.damage() == []
        heap.give(*list(heap.runs))
        assert (heap.used, heap.damage()) == (0, [])
    finally:
        heap.close()


def test_runs_do_not_overlap(heap: Heap) -> None:
    contents = {}
    for number, length in enumerate([LEAST, 50_000, 20_000, LEAST, 90_000] * 5):
        run = heap.take(length)
        contents[payload_of(heap.segment.words, run)] = content = bytes([number]) * length
        heap.segment.write(payload_of(heap.segment.words, run), content)
    for start, content in contents.items():
        assert heap.segment.read(start, len(content)) == content


def test_memory_of_short_runs_serves_long_ones(heap: Heap) -> None:
    with pytest.raises(StoreFull):
        heap.fill(LEAST)
    heap.give(*list(heap.runs))
    heap.take((MAX_PAGES - 1) * PAGE_BYTES)
    assert heap.damage() == []


def test_a_full_heap_is_intact_and_goes_on_when_there_is_room(heap: Heap) -> None:
    large = heap.take(150 * PAGE_BYTES)
    before = heap.segment.words[PAGES], heap.segment.words[FREE_PAGES]
    with pytest.raises(StoreFull, match="max_bytes"):
        heap.take(100 * PAGE_BYTES)
    assert (heap.segment.words[PAGES], heap.segment.words[FREE_PAGES]) == before
    assert heap.damage() == []
    heap.give(large)
    heap.take(100 * PAGE_BYTES)


def test_it_never_commits_more_than_it_may(heap: Heap) -> None:
    with pytest.raises(StoreFull):
        heap.fill(3 * PAGE_BYTES)
    assert heap.segment.words[PAGES] == MAX_PAGES


def test_a_run_that_is_not_in_use_is_not_freed(heap: Heap) -> None:
    run, _ = heap.take(LEAST), heap.take(LEAST)
    heap.give(run)
    heap.runs[run] = LEAST
    with pytest.raises(StoreError, match="damaged"):
        heap.give(run)


@pytest.mark.parametrize("call", ["allocate", "release"])
def test_what_a_dead_process_committed_is_finished_first(heap: Heap, call: str) -> None:
    def step(label: str) -> None:
        if label == "allocator.applying":
            raise KeyboardInterrupt

    with stepping(step), pytest.raises(KeyboardInterrupt):
        heap.pages.allocate(PENDING, Kind.VALUE, LEAST)
    if call == "allocate":
        heap.pages.allocate(PENDING, Kind.VALUE, LEAST)
    heap.pages.release(PENDING)
    assert (heap.used, heap.damage()) == (0, [])


def test_a_chain_longer_than_the_log_is_freed(heap: Heap) -> None:
    for _ in range(MAX_PAGES):
        heap.take(LEAST)
    heap.give(*list(heap.runs))
    assert (heap.used, heap.damage()) == (0, [])
