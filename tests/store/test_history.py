"""Old values are kept where that was asked for, and can be had again."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from fix_store import FORKS, assert_intact, in_child, small_store, tidied
from value_samples import same

from snakepit_mp.errors import (
    ConfigError,
    ConstraintViolation,
    StoreFull,
    VariableNotFound,
    VersionConflict,
)
from snakepit_mp.store.history import OldValue
from snakepit_mp.store.layout import S_GRAVES
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS

#: In the record, in a block of its own, in a run.
SIZES = [0, 1, 20, 30, 500, 5000, 20_000]


@pytest.fixture(autouse=True)
def session(store: SessionStore) -> None:
    store.create_session("s")


def values(store: SessionStore, name: str = "x") -> list[tuple[int, Any]]:
    return [(old.version, old.value) for old in store.history("s", name)]


def test_old_values_are_kept_newest_first(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 0, history=3)
    for value in range(1, 6):
        store.update_variable("s", "x", value)
    assert values(store) == [(6, 5), (5, 4), (4, 3), (3, 2)]


def test_fewer_than_may_be_kept(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 0, history=10_000)
    assert values(store) == [(1, 0)]
    store.update_variable("s", "x", 1)
    assert values(store) == [(2, 1), (1, 0)]


def test_without_history_only_the_present_is_known(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 0)
    store.update_variable("s", "x", 1)
    assert values(store) == [(2, 1)]


def test_values_of_every_size_are_kept(store: SessionStore) -> None:
    store.register_variable("s", "x", "any", b"first", history=4)
    written = [b"first"]
    for size in [*SIZES, *reversed(SIZES)]:
        written.append(b"v" * size)
        store.update_variable("s", "x", written[-1])
        kept = [value for _, value in values(store)]
        assert kept == written[: -len(kept) - 1 : -1]
        assert len(kept) == min(len(written), 5)


def test_times_are_those_of_the_writes(store: SessionStore) -> None:
    made = store.register_variable("s", "x", "integer", 0, history=1)
    store.update_variable("s", "x", 1)
    new, old = store.history("s", "x")
    assert isinstance(old, OldValue)
    assert old.updated_at == made.created_at <= new.updated_at
    assert new.updated_at == store.get_variable("s", "x").updated_at


def test_a_variable_answers_to_its_id(store: SessionStore) -> None:
    made = store.register_variable("s", "x", "integer", 0, history=1)
    store.update_variable("s", made.id, 1)
    assert values(store, made.id) == [(2, 1), (1, 0)]
    assert store.rollback("s", made.id, 1) == 3


def test_unknown_variables_are_named(store: SessionStore) -> None:
    for call in (lambda: store.history("s", "x"), lambda: store.rollback("s", "x", 1)):
        with pytest.raises(VariableNotFound, match="'x'"):
            call()


def test_a_batch_may_write_more_than_the_history_keeps(store: SessionStore) -> None:
    made = store.register_variable("s", "x", "any", "a" * 100, history=1)
    store.update_variables("s", {"x": "b" * 100, made.id: "c" * 10})
    assert values(store) == [(3, "c" * 10), (2, "b" * 100)]


def test_a_value_is_written_once_more(store: SessionStore) -> None:
    store.register_variable("s", "x", "tensor", np.zeros(3), history=2)
    for number in (1, 2):
        store.update_variable("s", "x", np.full(3, number))
    assert store.rollback("s", "x", 1) == 4
    assert same(store.get_value("s", "x"), np.zeros(3))
    assert [old.version for old in store.history("s", "x")] == [4, 3, 2]


def test_what_is_not_kept_is_told_with_what_is(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 0, history=2)
    for value in range(1, 5):
        store.update_variable("s", "x", value)
    for version in (0, 2, 6, -1):
        with pytest.raises(VersionConflict, match="kept are: 5, 4, 3") as caught:
            store.rollback("s", "x", version)
        assert (caught.value.current, caught.value.expected) == (5, version)
    assert store.get_value("s", "x") == 4


def test_an_old_value_obeys_new_constraints(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 9, history=2)
    store.update_variable("s", "x", 1)
    store.set_constraints("s", "x", {"max": 5})
    with pytest.raises(ConstraintViolation):
        store.rollback("s", "x", 1)
    assert values(store) == [(2, 1), (1, 9)]


def test_a_deleted_variable_takes_its_history_along(store: SessionStore) -> None:
    before = store.stats().bytes_used
    store.register_variable("s", "x", "any", 0, history=200)
    for number in range(300):
        store.update_variable("s", "x", b"v" * (number % 50 * 20))
    assert store.stats().bytes_used > before
    store.delete_variable("s", "x")
    assert store.stats().bytes_used <= before + 2 * 16384  # tables of the session


def fill(store: SessionStore, value: bytes) -> None:
    with contextlib.suppress(StoreFull):
        while True:
            store.update_variable("s", "x", value)


@pytest.mark.parametrize("what", ["variable", "session"])
def test_the_old_values_of_a_full_store_can_be_deleted(what: str) -> None:
    """Which takes no memory, since none is left."""
    with small_store(max_bytes=1 << 20) as store:
        store.create_session("s")
        store.delete_session("s")
        before = store.stats().bytes_used
        store.create_session("s")
        store.register_variable("s", "x", "any", 0, history=10_000)
        for size in (20_000, 5000, 500, 20):
            fill(store, b"v" * size)
        with pytest.raises(StoreFull):
            store.register_variable("s", "other", "any", 0, metadata={"b": b"b" * 2000})
        if what == "variable":
            store.delete_variable("s", "x")
            assert store.variable_names("s") == []
            store.register_variable("s", "x", "any", b"x" * 20_000)  # there is room at once
        store.delete_session("s")
        assert tidied(store).stats().bytes_used == before
        assert_intact(store)


def test_old_values_are_freed_a_few_at_a_time(store: SessionStore) -> None:
    """So that a delete keeps nobody waiting; what is left over is accounted for."""
    before = store.stats().bytes_used
    store.register_variable("s", "x", "any", 0, history=1000)
    store.register_variable("s", "y", "any", 0, history=10)
    for number in range(300):
        store.update_variables("s", {"x": b"v" * number, "y": b"w" * number})
    stripe = store._segment.base_of(store._keys.place("s").stripe)
    place, key = store._keys.place("s"), store._keys.variable
    for name in ("x", "y"):
        store._raw.delete_variable(place, key(name))
        assert store._segment.words[stripe + S_GRAVES]
        assert_intact(store)
    for _ in range(3):
        store.get_session("s")
        store.note_worker("s", 1)
        assert_intact(store)
    store.delete_session("s")
    assert tidied(store).stats().bytes_used <= before
    assert store._segment.words[stripe + S_GRAVES] == 0


def test_a_failed_write_keeps_history_as_it_is(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 0, history=2)
    store.update_variable("s", "x", 1)
    with pytest.raises(VersionConflict):
        store.update_variable("s", "x", 2, expected_version=1)
    assert values(store) == [(2, 1), (1, 0)]


def test_another_process_sees_and_makes_it(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 0, history=2)
    assert in_child(lambda: store.update_variable("s", "x", 1)) == 0
    assert values(store) == [(2, 1), (1, 0)]


@pytest.mark.parametrize("history", [-1, 10_001, 1.0, True, None, "3"])
def test_a_wrong_number_is_refused(store: SessionStore, history: Any) -> None:
    with pytest.raises(ConfigError, match="history"):
        store.register_variable("s", "x", "integer", 0, history=history)
    assert not store.has_variable("s", "x")
