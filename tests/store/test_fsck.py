"""The check finds what is broken, one damage at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fix_store import small_store

from snakepit_mp.store import fsck, records, table
from snakepit_mp.store.allocator import FREE_PAGES, PAGES, PARTIAL, SESSIONS
from snakepit_mp.store.segment import Segment
from snakepit_mp.store.session_store import SessionStore
from snakepit_mp.store.stripe import GRAVES, INDEX, NUMBERS, PENDING


@pytest.fixture
def used() -> Iterator[SessionStore]:
    with small_store() as made:
        made.create_session("s")
        for number in range(20):
            made.register_variable("s", f"v{number}", "string", "a" * 100)
        made.register_variable("s", "large", "any", b"a" * 100_000)
        made.delete_variable("s", "v3")
        yield made


def session_of(store: SessionStore) -> int:
    return store._sessions.lookup(store._segment.words, store._sessions.place("s"))[1]


def base_of(store: SessionStore) -> int:
    return store._segment.base_of(store._sessions.place("s").stripe)


def variable_of(store: SessionStore, name: str) -> int:
    return store._variables._find(store._segment.words, session_of(store), name)[1]


def add(word: int, by: int = 1) -> Callable[[Segment], None]:
    def damage(segment: Segment) -> None:
        segment.words[word] += by

    return damage


def test_a_store_in_use_is_in_order(used: SessionStore) -> None:
    assert fsck.problems(used._segment) == []


@pytest.mark.parametrize(
    "word",
    [
        lambda store: FREE_PAGES,
        lambda store: SESSIONS,
        lambda store: PARTIAL,
        lambda store: PARTIAL + 4,
        lambda store: base_of(store) + PENDING,
        lambda store: base_of(store) + INDEX + table.LIVE,
        lambda store: session_of(store) + records.VARIABLES + table.LIVE,
        lambda store: variable_of(store, "v1") + table.HASH,
        lambda store: store._segment.descriptor_of(0) + 3,
    ],
)
def test_one_wrong_word_is_found(used: SessionStore, word: Callable[[SessionStore], int]) -> None:
    add(word(used))(used._segment)
    assert fsck.problems(used._segment)


def test_a_lost_block_is_found(used: SessionStore) -> None:
    used._segment.words[variable_of(used, "large") + records.VALUE] = 0
    [problem] = fsck.problems(used._segment)
    assert "is lost" in problem


def test_a_block_with_two_owners_is_found(used: SessionStore) -> None:
    words = used._segment.words
    one, two = (variable_of(used, name) + records.VALUE for name in ("v1", "v2"))
    words[one] = words[two]
    problems = fsck.problems(used._segment)
    assert any("2 owners" in problem for problem in problems)
    assert any("is lost" in problem for problem in problems)


def test_a_freed_block_in_use_is_found(used: SessionStore) -> None:
    words = used._segment.words
    value = variable_of(used, "v1") + records.VALUE
    words[base_of(used) + PENDING] = words[value]
    used._sessions._stripes.tidy(used._sessions.place("s").stripe)
    problems = fsck.problems(used._segment)
    assert any("is used, and free" in problem for problem in problems)


def test_graves_left_are_found(used: SessionStore) -> None:
    with used._sessions._stripes.writing(used._sessions.place("s").stripe) as operation:
        operation.bury(*used._sessions.lookup(operation, used._sessions.place("s")))
        for index, value in operation.writes.items():
            used._segment.words[index] = value
        operation.writes.clear()
        assert used._segment.words[base_of(used) + GRAVES]
        assert any("not tidied" in problem for problem in fsck.problems(used._segment))


def test_pages_that_do_not_tile_are_found(used: SessionStore) -> None:
    used._segment.words[used._segment.descriptor_of(used._segment.words[PAGES] - 1)] = 0
    assert fsck.problems(used._segment)
    assert used._segment.words[base_of(used) + NUMBERS] == 21
