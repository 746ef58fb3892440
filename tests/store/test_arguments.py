"""A call with an argument that is none says which one, before anything happens; alike in both twins."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from snakepit_mp.errors import ConfigError, VariableNotFound, VersionConflict
from snakepit_mp.session import Session
from snakepit_mp.store.session_store import SessionStore

#: What is called with a variable's name, on a store and on a session.
NAMED: dict[str, Callable[[SessionStore, Any], object]] = {
    "get_value": lambda store, name: store.get_value("s", name),
    "get_variable": lambda store, name: store.get_variable("s", name),
    "get_values": lambda store, name: store.get_values("s", ["x", name]),
    "get_variables": lambda store, name: store.get_variables("s", ["x", name]),
    "update_variable": lambda store, name: store.update_variable("s", name, 2.0),
    "update_variables": lambda store, name: store.update_variables("s", {"x": 2.0, name: 2.0}),
    "increment": lambda store, name: store.increment("s", name),
    "compare_and_set": lambda store, name: store.compare_and_set("s", name, 1.0, 2.0),
    "update": lambda store, name: store.update("s", name, lambda value: 2.0),
    "history": lambda store, name: store.history("s", name),
    "rollback": lambda store, name: store.rollback("s", name, 1),
    "set_constraints": lambda store, name: store.set_constraints("s", name, {"max": 3.0}),
    "facts": lambda store, name: store.facts("s", name),
    "delete_variable": lambda store, name: store.delete_variable("s", name),
    "mapping": lambda store, name: Session(store, "s")[name],
    "mapping get_value": lambda store, name: Session(store, "s").get_value(name),
    "mapping get_variables": lambda store, name: Session(store, "s").get_variables([name]),
    "mapping update_variable": lambda store, name: Session(store, "s").update_variable(name, 2.0),
    "mapping update_variables": lambda store, name: Session(store, "s").update_variables(
        {name: 2.0}
    ),
    "mapping delete": lambda store, name: Session(store, "s").__delitem__(name),
    "batch": lambda store, name: store.batch("s")[name],
}
#: Those that do something else with an empty one.
NAMED_TOO: dict[str, Callable[[SessionStore, Any], object]] = {
    "register_variable": lambda store, name: store.register_variable("s", name, "float", 2.0),
    "has_variable": lambda store, name: store.has_variable("s", name),
    "update_variables one by one": lambda store, name: store.update_variables(
        "s", {name: 2.0}, atomic=False
    ),
    "watch": lambda store, name: store.watch("s", [name]),
    "mapping set": lambda store, name: Session(store, "s").__setitem__(name, 2.0),
    "mapping get": lambda store, name: Session(store, "s").get(name),
    "put_program": lambda store, name: store.put_program("s", name, 1),
    "get_program": lambda store, name: store.get_program("s", name),
    "delete_program": lambda store, name: store.delete_program("s", name),
}
#: What is called with a session's id.
IDENTIFIED: dict[str, Callable[[SessionStore, Any], object]] = {
    "create_session": lambda store, name: store.create_session(name),
    "get_session": lambda store, name: store.get_session(name),
    "touch_session": lambda store, name: store.touch_session(name),
    "exists": lambda store, name: store.exists(name),
    "note_worker": lambda store, name: store.note_worker(name, 1),
    "delete_session": lambda store, name: store.delete_session(name),
    "register_variable": lambda store, name: store.register_variable(name, "y", "float", 1.0),
    "get_value": lambda store, name: store.get_value(name, "x"),
    "update_variable": lambda store, name: store.update_variable(name, "x", 2.0),
    "variable_names": lambda store, name: store.variable_names(name),
    "list_variables": lambda store, name: store.list_variables(name),
    "list_programs": lambda store, name: store.list_programs(name),
    "put_program": lambda store, name: store.put_program(name, "p", 1),
    "batch": lambda store, name: store.batch(name),
    "watch": lambda store, name: store.watch(name),
    "mapping": lambda store, name: Session(store, name),
}
#: An int is no version or worker of these.
NO_INTEGERS = [True, 1.0, "1", math.nan, b"1", [1]]


@pytest.fixture(autouse=True)
def session(store: SessionStore) -> None:
    store.create_session("s")
    store.register_variable("s", "x", "float", 1.0, history=2)


@pytest.mark.parametrize("name", [5, b"x", None, 1.5], ids=repr)
@pytest.mark.parametrize("call", [*NAMED, *NAMED_TOO])
def test_a_name_that_is_no_str_is_a_type_error(store: SessionStore, call: str, name: Any) -> None:
    with pytest.raises(TypeError, match=rf"name must be a str, not {type(name).__name__}$"):
        {**NAMED, **NAMED_TOO}[call](store, name)
    assert store.get_variable("s", "x").version == 1
    assert store.variable_names("s") == ["x"]


@pytest.mark.parametrize("call", NAMED)
def test_there_is_no_variable_without_a_name(store: SessionStore, call: str) -> None:
    with pytest.raises(VariableNotFound, match="no variable ''"):
        NAMED[call](store, "")
    assert store.get_variable("s", "x").version == 1


def test_none_can_be_made(store: SessionStore) -> None:
    for call in ("register_variable", "mapping set", "put_program"):
        with pytest.raises(ConfigError, match="name must not be empty"):
            NAMED_TOO[call](store, "")
    [found] = store.update_variables("s", {"": 2.0}, atomic=False).values()
    assert isinstance(found, VariableNotFound)
    assert not store.has_variable("s", "")


def test_what_cannot_be_a_name_is_in_no_session(store: SessionStore) -> None:
    mapping = Session(store, "s")
    assert "x" in mapping
    for name in ("", 5, None, b"x", ["x"]):
        assert name not in mapping
    assert mapping.get("", "default") == "default"


@pytest.mark.parametrize("call", IDENTIFIED)
def test_a_session_id_is_a_str_and_not_empty(store: SessionStore, call: str) -> None:
    for wrong in (5, b"s", 1.5):
        with pytest.raises(
            TypeError, match=rf"session id must be a str, not {type(wrong).__name__}"
        ):
            IDENTIFIED[call](store, wrong)
    with pytest.raises(ConfigError, match="session id must not be empty"):
        IDENTIFIED[call](store, "")
    assert [info.id for info in store.list_sessions()] == ["s"]


@pytest.mark.parametrize("wrong", NO_INTEGERS, ids=repr)
def test_a_version_is_an_int(store: SessionStore, wrong: Any) -> None:
    right = f"must be an int, not {type(wrong).__name__}"
    with pytest.raises(TypeError, match=f"expected_version {right}"):
        store.update_variable("s", "x", 2.0, expected_version=wrong)
    with pytest.raises(TypeError, match=f"expected_version {right}"):
        Session(store, "s").update_variable("x", 2.0, expected_version=wrong)
    with pytest.raises(TypeError, match=f"version {right}"):
        store.rollback("s", "x", wrong)
    assert store.get_variable("s", "x").version == 1


@pytest.mark.parametrize("never", [0, -1, 1 << 63, 1 << 64, 1 << 70])
def test_a_version_that_never_was_is_a_conflict(store: SessionStore, never: int) -> None:
    with pytest.raises(VersionConflict):
        store.update_variable("s", "x", 2.0, expected_version=never)
    with pytest.raises(VersionConflict):
        store.rollback("s", "x", never)


def test_numpy_has_versions_too(store: SessionStore) -> None:
    assert store.update_variable("s", "x", 2.0, expected_version=np.int64(1)) == 2
    assert store.rollback("s", "x", np.uint8(1)) == 3
    assert store.get_value("s", "x") == 1.0


@pytest.mark.parametrize("wrong", NO_INTEGERS, ids=repr)
def test_a_workers_number_is_an_int(store: SessionStore, wrong: Any) -> None:
    with pytest.raises(
        TypeError, match=f"worker's number must be an int, not {type(wrong).__name__}"
    ):
        store.note_worker("s", wrong)
    assert store.get_session("s").last_worker_id is None


def test_a_workers_number_fits_a_word(store: SessionStore) -> None:
    for wrong in (-1, -(1 << 70), (1 << 63) - 1, 1 << 64):
        with pytest.raises(ConfigError, match="worker's number must be at least 0"):
            store.note_worker("s", wrong)
    assert store.get_session("s").last_worker_id is None
    for right in (0, 7, (1 << 63) - 2):
        store.note_worker("s", right)
        assert store.get_session("s").last_worker_id == right


@pytest.mark.parametrize("wrong", [0, -1, math.nan, -math.inf, True, "1", None], ids=repr)
def test_times_are_numbers_of_seconds(store: SessionStore, wrong: Any) -> None:
    if wrong is not None:  # the store's own
        with pytest.raises(ConfigError, match="ttl must be"):
            store.create_session("new", ttl=wrong)
        assert not store.exists("new")
    if wrong not in (0, None):
        with pytest.raises(ConfigError, match="timeout must be"):
            store.watch("s", timeout=wrong)


@pytest.mark.parametrize(
    "long", [1e308, 10**400, 1e18, 1 << 64], ids=["1e308", "10**400", "1e18", "2**64"]
)
def test_any_time_may_be_long(store: SessionStore, long: float) -> None:
    assert store.create_session("new", ttl=long).ttl > 1e9
    assert store.exists("new")
    watch = store.watch("s", timeout=long)
    store.update_variable("s", "x", 2.0)
    assert next(watch).value == 2.0


@pytest.mark.parametrize("wrong", [5, None, b"*"], ids=repr)
def test_a_pattern_is_a_str(store: SessionStore, wrong: Any) -> None:
    right = f"pattern must be a str, not {type(wrong).__name__}"
    for call in (
        lambda: store.list_sessions(wrong),
        lambda: store.list_variables("s", wrong),
        lambda: store.list_programs("s", wrong),
        lambda: Session(store, "s").list_variables(wrong),
    ):
        with pytest.raises(TypeError, match=right):
            call()


@pytest.mark.parametrize("wrong", [[("x", 2.0)], "x", 5, None], ids=repr)
def test_new_values_are_a_mapping(store: SessionStore, wrong: Any) -> None:
    for atomic in (True, False):
        with pytest.raises(TypeError, match="values must be a mapping"):
            store.update_variables("s", wrong, atomic=atomic)
        with pytest.raises(TypeError, match="values must be a mapping"):
            Session(store, "s").update_variables(wrong, atomic=atomic)
