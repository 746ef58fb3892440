"""An operation is undone unless it was committed, and graves are emptied bit by bit."""

from __future__ import annotations

import pytest
from fix_store import assert_intact

from snakepit_mp.store.allocator import Kind
from snakepit_mp.store.session_store import SessionStore
from snakepit_mp.store.stripe import GRAVES, NUMBERS, PENDING, Operation, Stripes

STRIPE = 7


@pytest.fixture
def stripes(store: SessionStore) -> Stripes:
    return store._sessions._stripes


def test_what_is_not_committed_has_not_happened(store: SessionStore, stripes: Stripes) -> None:
    with stripes.writing(STRIPE) as operation:
        operation.store(Kind.VALUE, b"x" * 100)
        operation[operation.base + NUMBERS] = 5
    assert store._segment.words[operation.base + NUMBERS] == 0
    assert store._segment.words[operation.base + PENDING] == 0
    assert_intact(store)


def test_an_exception_undoes_what_was_not_committed(store: SessionStore, stripes: Stripes) -> None:
    def fail_half_way() -> None:
        with stripes.writing(STRIPE) as operation:
            operation[operation.base + NUMBERS] = 5
            operation.commit()
            operation.store(Kind.VALUE, b"x" * 100)
            operation[operation.base + NUMBERS] = 1 // 0

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    base = store._segment.base_of(STRIPE)
    assert store._segment.words[base + NUMBERS] == 5
    assert_intact(store)


def test_discarding_no_block_is_fine(store: SessionStore, stripes: Stripes) -> None:
    with stripes.writing(STRIPE) as operation:
        operation.discard(0)
        operation.commit()


def test_a_list_of_writes_longer_than_the_log_has_a_block_of_its_own(
    store: SessionStore, stripes: Stripes
) -> None:
    store.create_session("s")
    for number in range(200):
        store.register_variable("s", f"v{number}", "string", "a" * 100)
    store.update_variables("s", {f"v{number}": "b" * 100 for number in range(200)})
    assert {v.value for v in store.list_variables("s")} == {"b" * 100}


def test_graves_are_emptied_a_few_with_every_operation(store: SessionStore) -> None:
    store.create_session("big")
    for number in range(200):
        store.register_variable("big", f"v{number}", "integer", number)
    place = store._sessions.place("big")
    stripes, base = store._sessions._stripes, store._segment.base_of(place.stripe)

    def graves() -> int:
        return store._segment.words[base + GRAVES]

    with stripes.writing(place.stripe) as operation:
        operation.bury(*store._sessions.lookup(operation, place))
        operation.commit()
    assert not store.exists("big")
    for _ in range(200):
        if not graves():
            break
        with stripes.writing(place.stripe):
            pass
    assert not graves()
    assert store._segment.words[base + PENDING] == 0


def test_tidying_does_a_bounded_part_and_says_whether_more_is_left(store: SessionStore) -> None:
    store.create_session("big")
    for number in range(600):
        store.register_variable("big", f"v{number}", "integer", number)
    place = store._sessions.place("big")
    stripes = store._sessions._stripes
    with stripes.writing(place.stripe) as operation:
        operation.bury(*store._sessions.lookup(operation, place))
        operation.commit()
    assert stripes.tidy(place.stripe)
    rounds = 1
    while stripes.tidy(place.stripe):
        rounds += 1
    assert 1 < rounds < 10
    assert not stripes.tidy(place.stripe)


def test_an_operation_reads_its_own_writes_in_tables(store: SessionStore) -> None:
    store.create_session("s")
    place = store._sessions.place("s")
    with store._sessions._stripes.writing(place.stripe) as operation:
        assert isinstance(operation, Operation)
        slot, record = store._sessions.lookup(operation, place)
        assert record
        operation.bury(slot, record)
        assert store._sessions.lookup(operation, place) == (0, 0)
    assert store.exists("s")
