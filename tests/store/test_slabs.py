"""Small blocks are taken from pages of their stripe, and a page that is empty goes back."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from fix_store import PureStore
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit_mp.errors import StoreError
from snakepit_mp.store.blocks import content, kind_of, length_of
from snakepit_mp.store.layout import (
    CLASSES,
    FREE_PAGES,
    PAGE_WORDS,
    PAGES,
    S_PARTIAL,
    SMALL_HEADER,
    SMALL_MOST,
    WORD,
    Kind,
)

STRIPE = 7
LENGTHS = [WORD * (size - SMALL_HEADER) for size in CLASSES]


def used(pure: PureStore) -> int:
    return pure.segment.words[PAGES] - pure.segment.words[FREE_PAGES]


def take(pure: PureStore, *payloads: bytes) -> list[int]:
    with pure.raw._stripes.writing(STRIPE) as operation:
        blocks = [operation.store(Kind.VALUE, payload) for payload in payloads]
        operation.commit()
        return blocks


def give(pure: PureStore, *blocks: int) -> None:
    with pure.raw._stripes.writing(STRIPE) as operation:
        for block in blocks:
            operation.discard(block)
        operation.commit()


def partial(pure: PureStore, length: int) -> int:
    number = bisect_left(CLASSES, SMALL_HEADER + -(-length // WORD))
    return pure.segment.words[pure.segment.base_of(STRIPE) + S_PARTIAL + number]


def is_lost(blocks: list[int]) -> list[str]:
    return sorted(f"block {block} (kind {int(Kind.VALUE)}) is lost" for block in blocks)


@pytest.mark.parametrize("length", [0, 1, *LENGTHS, *(length + 1 for length in LENGTHS)])
def test_a_block_has_its_length_and_content(pure: PureStore, length: int) -> None:
    before = used(pure)
    [block] = take(pure, b"a" * length)
    words = pure.segment.words
    assert (length_of(words, block), kind_of(words, block)) == (length, Kind.VALUE)
    assert content(pure.segment, block) == b"a" * length
    assert pure.problems() == is_lost([block])
    give(pure, block)
    assert used(pure) == before


def test_a_page_is_shared_by_blocks_of_one_class(pure: PureStore) -> None:
    before = used(pure)
    blocks = take(pure, *[b"a" * 40] * (PAGE_WORDS // CLASSES[0]))
    assert (used(pure) - before, partial(pure, 40)) == (1, 0)
    assert {block - blocks[0] for block in blocks} == set(range(0, PAGE_WORDS, CLASSES[0]))
    more = take(pure, b"b" * 40)
    assert (used(pure) - before, partial(pure, 40) > 0) == (2, True)
    give(pure, blocks[5])
    assert take(pure, b"c" * 40) == [blocks[5]]  # full pages come back to the front
    give(pure, *blocks, *more)
    assert (used(pure), partial(pure, 40)) == (before, 0)


def test_what_a_transaction_frees_it_does_not_take(pure: PureStore) -> None:
    [old, keeps_the_page] = take(pure, b"a" * 40, b"b" * 40)
    with pure.raw._stripes.writing(STRIPE) as operation:
        operation.discard(old)
        new = operation.store(Kind.VALUE, b"c" * 40)
        assert content(pure.segment, old) == b"a" * 40  # others may read it until the commit
        operation.commit()
    assert new not in (old, keeps_the_page)
    give(pure, new, keeps_the_page)


def test_a_page_taken_and_emptied_by_one_transaction_goes_back(pure: PureStore) -> None:
    before = used(pure)
    with pure.raw._stripes.writing(STRIPE) as operation:
        operation.discard(operation.store(Kind.VALUE, b"a" * 40))
        operation.commit()
    assert used(pure) == before


def test_a_page_that_was_not_committed_goes_back(pure: PureStore) -> None:
    before = used(pure)
    with pure.raw._stripes.writing(STRIPE) as operation:
        operation.store(Kind.VALUE, b"a" * 40)
    assert used(pure) == before


@pytest.mark.parametrize("wrong", ["freed", "inside", "elsewhere"])
def test_a_block_that_is_not_in_use_is_not_freed(pure: PureStore, wrong: str) -> None:
    blocks = take(pure, *[b"\0" * 40] * 3)
    give(pure, blocks[0])
    block = {"freed": blocks[0], "inside": blocks[1] + 4, "elsewhere": 5}[wrong]
    with pytest.raises(StoreError, match="damaged"):
        give(pure, block)
    assert pure.problems() == is_lost(blocks[1:])
    give(pure, *blocks[1:])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, SMALL_MOST + 100) | st.sampled_from(LENGTHS), max_size=40),
            st.lists(st.floats(0, 1, exclude_max=True), max_size=40),
        ),
        max_size=20,
    )
)
def test_whatever_is_taken_and_given_back_adds_up(steps: list[list[int | float]]) -> None:
    pure = PureStore.make()
    try:
        before = used(pure)
        blocks: dict[int, bytes] = {}
        for number, step in enumerate(steps):
            if step and isinstance(step[0], int):
                payloads = [bytes([number]) * int(length) for length in step]
                blocks.update(zip(take(pure, *payloads), payloads, strict=True))
            else:
                chosen = {list(blocks)[int(part * len(blocks))] for part in step if blocks}
                give(pure, *chosen)
                for block in chosen:
                    del blocks[block]
        assert all(content(pure.segment, block) == data for block, data in blocks.items())
        assert sorted(pure.problems()) == is_lost(list(blocks))[:100]
        give(pure, *blocks)
        assert (used(pure), pure.problems()) == (before, [])
    finally:
        pure.close()
