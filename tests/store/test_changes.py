"""Changes that depend on the old value lose no other change, however they meet."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from fix_store import FORKS, in_child
from value_samples import same

from snakepit_mp.errors import (
    CodecError,
    ConstraintViolation,
    SessionNotFound,
    VariableNotFound,
    VariableTypeError,
    VersionConflict,
)
from snakepit_mp.store.places import Place, Update
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS


@pytest.fixture(autouse=True)
def session(store: SessionStore) -> None:
    store.create_session("s")


Meanwhile = Callable[[Callable[[SessionStore], object]], "Meddler"]


class Meddler:
    """The raw store, in which somebody else acts before each of the first writes."""

    def __init__(self, store: SessionStore, action: Callable[[SessionStore], object]) -> None:
        self._raw = store._raw
        self._other = SessionStore.attach(map(os.dup, store.descriptors()), store.config)
        self._action = action
        self.left = 2

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def write(self, place: Place, updates: list[Update]) -> list[int] | None:
        if self.left:
            self.left -= 1
            self._action(self._other)
        return self._raw.write(place, updates)

    def close(self) -> None:
        self._other.close()


@pytest.fixture
def meanwhile(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meanwhile]:
    """Makes somebody who writes whenever we are about to."""
    made = []

    def make(action: Callable[[SessionStore], object]) -> Meddler:
        made.append(Meddler(store, action))
        monkeypatch.setattr(store._changes, "_raw", made[0])
        return made[0]

    yield make
    made[0].close()


# update


def test_update_replaces_what_is_there(store: SessionStore) -> None:
    store.register_variable("s", "x", "list", [1])
    assert store.update("s", "x", lambda value: [*value, 2]) == [1, 2]
    assert (store.get_value("s", "x"), store.get_variable("s", "x").version) == ([1, 2], 2)


def test_update_gives_the_value_as_it_is_stored(store: SessionStore) -> None:
    store.register_variable("s", "x", "float", 1.0)
    assert repr(store.update("s", "x", lambda value: 5)) == "5.0"


def test_update_sees_what_others_wrote(store: SessionStore, meanwhile: Meanwhile) -> None:
    store.register_variable("s", "x", "integer", 1)
    meddler = meanwhile(lambda other: other.increment("s", "x", 10))
    assert store.update("s", "x", lambda value: value + 1) == 22
    assert (meddler.left, store.get_variable("s", "x").version) == (0, 4)


def test_update_checks_against_new_constraints(store: SessionStore, meanwhile: Meanwhile) -> None:
    store.register_variable("s", "x", "integer", 1)
    meanwhile(lambda other: other.set_constraints("s", "x", {"max": 1}))
    with pytest.raises(ConstraintViolation):
        store.update("s", "x", lambda value: value + 1)


def test_what_the_function_raises_changes_nothing(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    with pytest.raises(ZeroDivisionError):
        store.update("s", "x", lambda value: value // 0)
    with pytest.raises(VariableTypeError):
        store.update("s", "x", str)
    assert store.get_variable("s", "x").version == 1


def test_the_function_may_use_the_store(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    store.register_variable("s", "y", "integer", 1)
    assert store.update("s", "x", lambda value: store.increment("s", "y") + value) == 3


def test_unknown_ones_are_named(store: SessionStore) -> None:
    calls: list[Callable[[str], object]] = [
        lambda session: store.update(session, "x", abs),
        lambda session: store.increment(session, "x"),
        lambda session: store.compare_and_set(session, "x", 1, 2),
    ]
    for call in calls:
        with pytest.raises(VariableNotFound, match="'x'"):
            call("s")
        with pytest.raises(SessionNotFound, match="'nope'"):
            call("nope")


# increment


@pytest.mark.parametrize(
    ("kind", "value", "by", "result"),
    [
        ("integer", 1, 1, 2),
        ("integer", 1, -5, -4),
        ("float", 1.0, 0.5, 1.5),
        ("float", 1.0, 1, 2.0),
        ("any", Decimal("0.1"), Decimal("0.2"), Decimal("0.3")),
        ("any", 1j, 1, 1 + 1j),
        ("any", 2**70, 1, 2**70 + 1),
    ],
)
def test_numbers_are_added(
    store: SessionStore, kind: str, value: Any, by: Any, result: Any
) -> None:
    store.register_variable("s", "x", kind, value)
    assert same(store.increment("s", "x", by), result)
    assert same(store.get_value("s", "x"), result)


@pytest.mark.parametrize(
    ("kind", "value", "by"),
    [
        ("string", "a", "b"),
        ("string", "a", 1),
        ("boolean", True, 1),
        ("integer", 1, True),
        ("integer", 1, "1"),
        ("integer", 1, 0.5),
        ("list", [1], [2]),
        ("any", None, 1),
        ("any", Decimal(1), 0.5),
    ],
)
def test_what_is_no_number_is_not_added(
    store: SessionStore, kind: str, value: Any, by: Any
) -> None:
    store.register_variable("s", "x", kind, value)
    with pytest.raises(VariableTypeError, match="'x'"):
        store.increment("s", "x", by)
    assert store.get_variable("s", "x").version == 1


def test_an_increment_obeys_constraints(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 9, constraints={"max": 10})
    assert store.increment("s", "x") == 10
    with pytest.raises(ConstraintViolation):
        store.increment("s", "x")


def test_no_increment_is_lost_between_threads_and_processes(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 0)

    def add() -> None:
        for _ in range(40):
            store.increment("s", "x")

    def two_threads() -> None:
        threads = [threading.Thread(target=add) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    results: list[int] = []
    helper = threading.Thread(target=lambda: results.append(in_child(two_threads)))
    helper.start()
    two_threads()
    helper.join()
    variable = store.get_variable("s", "x")
    assert (results, variable.value, variable.version) == ([0], 160, 161)


# compare_and_set


@pytest.mark.parametrize(
    ("kind", "value", "expected", "is_it"),
    [
        ("integer", 1, 1, True),
        ("integer", 1, 2, False),
        ("float", 1.0, 1, True),
        ("any", 1, 1.0, False),
        ("any", 1, True, False),
        ("any", float("nan"), float("nan"), True),
        ("any", (1,), [1], False),
        ("map", {1: 2, 3: 4}, {3: 4, 1: 2}, True),
        ("map", {1: 2}, {1: 3}, False),
        ("any", {"a", "b", "c"}, {"c", "a", "b"}, True),
        ("any", {"a": np.zeros(2)}, {"a": np.zeros(2)}, True),
        ("map", {1: np.zeros(2), 2: 0}, {2: 0, 1: np.zeros(2)}, False),
        ("tensor", np.zeros(3), np.zeros(3), True),
        ("tensor", np.zeros(3), np.ones(3), False),
        ("integer", 1, "text", False),
        ("string", "a", None, False),
    ],
)
def test_only_the_expected_value_is_replaced(
    store: SessionStore, kind: str, value: Any, expected: Any, is_it: bool
) -> None:
    store.register_variable("s", "x", kind, value)
    assert store.compare_and_set("s", "x", expected, value) is is_it
    assert store.get_variable("s", "x").version == 1 + is_it


def test_a_new_value_has_to_fit_in_any_case(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    with pytest.raises(VariableTypeError):
        store.compare_and_set("s", "x", 5, "text")
    store.register_variable("s", "y", "any", 1)
    with pytest.raises(CodecError):
        store.compare_and_set("s", "y", 1, object())


def test_a_value_that_others_replaced_is_not_the_expected_one(
    store: SessionStore, meanwhile: Meanwhile
) -> None:
    store.register_variable("s", "x", "integer", 1)
    meanwhile(lambda other: other.increment("s", "x"))
    assert not store.compare_and_set("s", "x", 1, 100)
    assert store.get_value("s", "x") == 2


def test_a_value_that_others_wrote_again_still_is(
    store: SessionStore, meanwhile: Meanwhile
) -> None:
    store.register_variable("s", "x", "integer", 1)
    meddler = meanwhile(lambda other: other.update_variable("s", "x", 1))
    assert store.compare_and_set("s", "x", 1, 100)
    assert (meddler.left, store.get_variable("s", "x").version) == (0, 4)


# expected versions


@pytest.mark.parametrize("version", [0, -1, 2, 1 << 63, 1 << 70])
def test_a_version_that_it_never_had_is_a_conflict(store: SessionStore, version: int) -> None:
    store.register_variable("s", "x", "integer", 1)
    with pytest.raises(VersionConflict) as caught:
        store.update_variable("s", "x", 2, expected_version=version)
    assert (caught.value.current, caught.value.expected) == (1, version)
    with pytest.raises(VariableNotFound):
        store.update_variable("s", "y", 2, expected_version=version)
