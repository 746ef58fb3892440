"""A table finds what was put in, and nothing else, however it grew and shrank."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit_mp.store import table
from snakepit_mp.store.layout import FAMILY_LOCKED, HASH, PAGES, PROCESSES, STRIPES, T_LIVE
from snakepit_mp.store.redo import Transaction
from snakepit_mp.store.segment import Segment

OWNER = STRIPES
RECORDS = PROCESSES - 4 * 4000


class Board:
    """A table whose records are four words each, and whose blocks are never freed."""

    def __init__(self) -> None:
        self.segment = Segment.create(64 << 20, FAMILY_LOCKED)
        self.segment.grow(0, 64)
        self.segment.words[PAGES] = 64
        self.words = self.segment.words
        self.next_table = self.segment.heap
        self.tx = Transaction(self.words)

    def record(self, number: int, digest: int) -> int:
        record = RECORDS + 4 * number
        self.tx[record + HASH] = digest
        return record

    def insert(self, number: int, digest: int) -> None:
        content = table.rebuilt(self.tx, OWNER)
        if content is not None:
            block, self.next_table = self.next_table, self.next_table + 2 + len(content) // 8
            self.words[block + 1] = len(content)
            self.segment.write(block + 2, content)
            table.replace(self.tx, OWNER, block)
        table.insert(self.tx, OWNER, digest, self.record(number, digest))

    def find(self, number: int, digest: int) -> int:
        record = RECORDS + 4 * number
        return table.find(self.tx, OWNER, digest, record.__eq__)[0]

    def commit(self) -> None:
        for index, value in self.tx.writes.items():
            self.words[index] = value
        self.tx.writes.clear()

    def close(self) -> None:
        self.tx = Transaction(memoryview(b"").cast("Q"))
        del self.words
        self.segment.close()


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board()
    yield made
    made.close()


def test_an_empty_table_finds_nothing(board: Board) -> None:
    assert table.find(board.tx, OWNER, 5, lambda record: True) == (0, 0)
    assert table.entries(board.tx, OWNER) == []


def test_equal_hashes_are_told_apart(board: Board) -> None:
    board.insert(1, 77)
    board.insert(2, 77)
    assert board.find(1, 77) != board.find(2, 77)
    assert board.find(3, 77) == 0


def test_what_lies_behind_a_removed_entry_is_found(board: Board) -> None:
    for number in range(3):
        board.insert(number, 77)
    table.remove(board.tx, OWNER, board.find(0, 77))
    assert board.find(2, 77)


def test_removed_slots_are_used_again(board: Board) -> None:
    for _ in range(1000):
        board.insert(1, 77)
        table.remove(board.tx, OWNER, board.find(1, 77))
    assert board.next_table - board.segment.heap < 1000 * 10 / 4


# Few indices and few tags, so that they collide; the stripe's bits are always the same.
digests = st.builds(
    lambda index, tag: 3 | index << 8 | tag << 48, st.integers(0, 40), st.integers(0, 2)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), digests, st.booleans()), max_size=150))
def test_it_is_a_dict(steps: list[tuple[int, int, bool]]) -> None:
    board = Board()
    try:
        model: dict[int, int] = {}
        for number, digest, commit in steps:
            if number in model:
                table.remove(board.tx, OWNER, board.find(number, model.pop(number)))
            else:
                board.insert(number, digest)
                model[number] = digest
            if commit:
                board.commit()
            found = {record for _, record in table.entries(board.tx, OWNER)}
            assert found == {RECORDS + 4 * live for live in model}
            assert all(board.find(live, known) for live, known in model.items())
            assert board.tx[OWNER + T_LIVE] == len(model)
    finally:
        board.close()
