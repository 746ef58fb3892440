"""Memory is given, taken back, joined and counted; what does not fit changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit_mp.errors import SessionLimitReached, StoreError, StoreFull
from snakepit_mp.store import crashpoints, fsck
from snakepit_mp.store.allocator import (
    ALLOCATOR_LOCK,
    CLASSES,
    FREE_PAGES,
    PAGES,
    Allocator,
    Kind,
)
from snakepit_mp.store.locks import LockFile
from snakepit_mp.store.segment import PAGE_BYTES, STRIPES, Segment, anonymous_file
from snakepit_mp.store.stripe import GARBAGE, PENDING

MAX_PAGES = 200
PENDING_WORD, GARBAGE_WORD = STRIPES + PENDING, STRIPES + GARBAGE


@dataclass
class Heap:
    """An allocator whose blocks belong to the test."""

    segment: Segment
    allocator: Allocator
    blocks: dict[int, int] = field(default_factory=dict)

    def take(self, length: int, kind: Kind = Kind.VALUE) -> int:
        block = self.allocator.allocate(PENDING_WORD, kind, length)
        self.segment.words[PENDING_WORD] = 0
        self.segment.write(block + 2, bytes([len(self.blocks) % 251]) * length)
        self.blocks[block] = length
        return block

    def fill(self, length: int) -> None:
        while True:
            self.take(length)

    def give(self, *blocks: int) -> None:
        for block in blocks:
            self.segment.words[block] = self.segment.words[GARBAGE_WORD]
            self.segment.words[GARBAGE_WORD] = block
            del self.blocks[block]
        self.allocator.release(GARBAGE_WORD)

    def damage(self) -> list[str]:
        """What is wrong besides that no table leads to the test's blocks."""
        owned = {f"block {block} (kind {int(Kind.VALUE)}) is lost" for block in self.blocks}
        return sorted(owned ^ set(fsck.problems(self.segment)))

    @property
    def used(self) -> int:
        return self.segment.words[PAGES] - self.segment.words[FREE_PAGES]


@pytest.fixture
def heap() -> Iterator[Heap]:
    with_heap = _heap()
    yield with_heap
    _close(with_heap)


def _heap() -> Heap:
    segment = Segment.create(16 << 20)
    descriptor = anonymous_file("locks", 4096)
    locks = LockFile.open(segment.identity, descriptor, ALLOCATOR_LOCK + 1)
    return Heap(segment, Allocator(segment, locks, MAX_PAGES * PAGE_BYTES, 2))


def _close(heap: Heap) -> None:
    locks, identity = heap.allocator._locks, heap.segment.identity
    heap.segment.close()
    locks.close(identity)


@pytest.mark.parametrize("length", [0, 1, 48, 49, 8176, 8177, 16368, 16369, 500_000])
def test_a_block_has_its_length_and_kind(heap: Heap, length: int) -> None:
    block = heap.take(length)
    assert (heap.allocator.length_of(block), heap.allocator.kind_of(block)) == (length, Kind.VALUE)
    assert heap.damage() == []
    heap.give(block)
    assert (heap.used, heap.damage()) == (0, [])


def test_a_block_enters_the_chain_of_whoever_asks(heap: Heap) -> None:
    first = heap.allocator.allocate(PENDING_WORD, Kind.VALUE, 10)
    second = heap.allocator.allocate(PENDING_WORD, Kind.VALUE, 10)
    words = heap.segment.words
    assert (words[PENDING_WORD], words[second], words[first]) == (second, first, 0)
    heap.allocator.release(PENDING_WORD)
    assert (words[PENDING_WORD], heap.used) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(0, 3 * PAGE_BYTES),
            st.sampled_from([8 * size - 16 for size in CLASSES]),
            st.floats(0, 1, exclude_max=True),
        ),
        max_size=60,
    )
)
def test_whatever_is_taken_and_given_back_adds_up(steps: list[int | float]) -> None:
    heap = _heap()
    try:
        for step in steps:
            if isinstance(step, int):
                heap.take(step)
            elif heap.blocks:
                heap.give(list(heap.blocks)[int(step * len(heap.blocks))])
        assert heap.damage() == []
        heap.give(*list(heap.blocks))
        assert (heap.used, heap.damage()) == (0, [])
    finally:
        _close(heap)


def test_blocks_do_not_overlap(heap: Heap) -> None:
    contents = {}
    for number, length in enumerate([40, 5000, 100, 20_000, 40, 9000, 100] * 5):
        block = heap.take(length)
        contents[block] = bytes([number]) * length
        heap.segment.write(block + 2, contents[block])
    for block, content in contents.items():
        assert heap.segment.read(block + 2, len(content)) == content


def test_memory_of_small_blocks_serves_large_ones(heap: Heap) -> None:
    with pytest.raises(StoreFull):
        heap.fill(40)
    heap.give(*list(heap.blocks))
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


def test_sessions_are_counted_where_they_are_allocated(heap: Heap) -> None:
    blocks = [heap.take(100, Kind.SESSION) for _ in range(2)]
    with pytest.raises(SessionLimitReached, match="max_sessions is 2") as caught:
        heap.take(100, Kind.SESSION)
    assert caught.value.limit == 2
    heap.give(blocks[0])
    heap.take(100, Kind.SESSION)


def test_a_block_that_is_not_in_use_is_not_freed(heap: Heap) -> None:
    block, _ = heap.take(100), heap.take(100)
    heap.give(block)
    heap.blocks[block] = 100
    with pytest.raises(StoreError, match="damaged"):
        heap.give(block)


@pytest.mark.parametrize("call", ["allocate", "release"])
def test_what_a_dead_process_committed_is_finished_first(
    heap: Heap, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def step(label: str) -> None:
        if label == "allocator.applying":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crashpoints, "step", step)
        with pytest.raises(KeyboardInterrupt):
            heap.allocator.allocate(PENDING_WORD, Kind.VALUE, 10)
    if call == "allocate":
        heap.allocator.allocate(PENDING_WORD, Kind.VALUE, 10)
    heap.allocator.release(PENDING_WORD)
    assert (heap.used, heap.damage()) == (0, [])


def test_a_chain_longer_than_the_log_is_freed(heap: Heap) -> None:
    for _ in range(3000):
        heap.take(40)
    heap.give(*list(heap.blocks))
    assert (heap.used, heap.damage()) == (0, [])
