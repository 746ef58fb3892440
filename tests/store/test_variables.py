"""Variables have types, constraints, versions and ids; updates are all or nothing."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from fix_store import FORKS, in_child
from value_samples import same

from snakepit_mp.errors import (
    CodecError,
    ConfigError,
    ConstraintError,
    ConstraintViolation,
    SessionNotFound,
    VariableExists,
    VariableNotFound,
    VariableTypeError,
    VersionConflict,
)
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS


@pytest.fixture(autouse=True)
def session(store: SessionStore) -> None:
    store.create_session("s")


def values(store: SessionStore) -> dict[str, Any]:
    return {v.name: v.value for v in store.list_variables("s")}


def test_a_variable_has_all_it_was_registered_with(store: SessionStore) -> None:
    made = store.register_variable(
        "s", "t", "float", 1, constraints={"min": 0, "max": 2}, metadata={"unit": "K"}
    )
    assert made == store.get_variable("s", "t")
    assert (made.name, made.type, made.value, made.version) == ("t", "float", 1.0, 1)
    assert (made.constraints, made.metadata) == ({"min": 0.0, "max": 2.0}, {"unit": "K"})
    assert made.created_at == made.updated_at > 0


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "boolean"),
        (1, "integer"),
        (1.5, "float"),
        ("x", "string"),
        ([1], "list"),
        ({1: 2}, "map"),
        (b"x", "bytes"),
        (None, "any"),
    ],
)
def test_a_type_may_be_inferred(store: SessionStore, value: Any, kind: str) -> None:
    made = store.register_variable("s", "x", None, value)
    assert (made.type, made.value) == (kind, value)


def test_a_second_registration_is_refused_or_returns_the_first(store: SessionStore) -> None:
    first = store.register_variable("s", "x", "integer", 1)
    with pytest.raises(VariableExists) as caught:
        store.register_variable("s", "x", "integer", 2)
    assert (caught.value.session_id, caught.value.name) == ("s", "x")
    assert store.register_variable("s", "x", "string", "a", exist_ok=True) == first


@pytest.mark.parametrize(
    ("kind", "value", "constraints", "error"),
    [
        ("float", "1", None, VariableTypeError),
        ("flote", 1.0, None, VariableTypeError),
        ("float", 3.0, {"max": 2}, ConstraintViolation),
        ("float", 1.0, {"maximum": 2}, ConstraintError),
        ("any", object(), None, CodecError),
    ],
)
def test_a_bad_registration_leaves_nothing(
    store: SessionStore, kind: str, value: Any, constraints: Any, error: type
) -> None:
    with pytest.raises(error):
        store.register_variable("s", "x", kind, value, constraints=constraints)
    assert values(store) == {}


def test_unknown_sessions_and_variables_are_named(store: SessionStore) -> None:
    for call in (store.get_value, store.get_variable, store.delete_variable):
        with pytest.raises(VariableNotFound, match="'s' has no variable 'x'"):
            call("s", "x")
        with pytest.raises(SessionNotFound, match="no session 'nope'"):
            call("nope", "x")
    with pytest.raises(VariableNotFound):
        store.update_variable("s", "x", 1)
    with pytest.raises(KeyError):
        store.set_constraints("s", "x", {})


def test_names_must_be_texts(store: SessionStore) -> None:
    with pytest.raises(TypeError, match="session id must be a str, not int"):
        store.exists(1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="variable name must not be empty"):
        store.register_variable("s", "", "integer", 1)


def test_a_variable_answers_to_its_id(store: SessionStore) -> None:
    made = store.register_variable("s", "x_1", "integer", 1)
    assert made.id.startswith("var_x_1_")
    assert store.get_value("s", made.id) == 1
    assert store.update_variable("s", made.id, 2) == 2
    assert list(store.get_variables("s", [made.id])) == [made.id]
    store.delete_variable("s", made.id)
    again = store.register_variable("s", "x_1", "integer", 1)
    assert again.id != made.id
    with pytest.raises(VariableNotFound):
        store.get_value("s", made.id)


def test_a_name_that_looks_like_an_id_comes_first(store: SessionStore) -> None:
    made = store.register_variable("s", "x", "integer", 1)
    store.register_variable("s", made.id, "integer", 2)
    assert store.get_value("s", made.id) == 2


def test_versions_rise_and_conflicts_are_seen(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    assert [store.update_variable("s", "x", n) for n in (5, 6)] == [2, 3]
    assert store.update_variable("s", "x", 7, expected_version=3) == 4
    with pytest.raises(VersionConflict) as caught:
        store.update_variable("s", "x", 8, expected_version=3)
    assert (caught.value.current, caught.value.expected) == (4, 3)
    assert store.get_variable("s", "x").value == 7


@pytest.mark.parametrize("bad", ["text", 5.0, object()])
def test_a_bad_update_leaves_the_old_value(store: SessionStore, bad: Any) -> None:
    store.register_variable("s", "x", "float", 1.0, constraints={"max": 2})
    with pytest.raises((VariableTypeError, ConstraintViolation)):
        store.update_variable("s", "x", bad)
    variable = store.get_variable("s", "x")
    assert (variable.value, variable.version) == (1.0, 1)


def test_arrays_are_private_read_only_copies(store: SessionStore) -> None:
    array = np.arange(1000.0).reshape(10, 100)
    store.register_variable("s", "a", "tensor", array)
    array[0, 0] = -1
    found = store.get_value("s", "a")
    assert (found[0, 0], found.shape, found.dtype) == (0.0, (10, 100), np.float64)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 5
    store.update_variable("s", "a", np.zeros((10, 100)))
    assert found[9, 99] == 999.0


def test_a_mutable_value_is_a_fresh_copy(store: SessionStore) -> None:
    store.register_variable("s", "x", "any", {"a": [1]})
    store.get_value("s", "x")["a"].append(2)
    assert store.get_value("s", "x") == {"a": [1]}


def test_a_batch_is_all_or_nothing(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    store.register_variable("s", "y", "integer", 1, constraints={"max": 5})
    assert store.update_variables("s", {"x": 2, "y": 2}) == {"x": 2, "y": 2}
    for bad, error in (
        ({"x": 3, "y": 9}, ConstraintViolation),
        ({"x": 3, "z": 1}, VariableNotFound),
    ):
        with pytest.raises(error):
            store.update_variables("s", bad)
        assert values(store) == {"x": 2, "y": 2}
    assert store.update_variables("s", {}) == {}


def test_a_batch_may_name_a_variable_twice(store: SessionStore) -> None:
    made = store.register_variable("s", "x", "string", "a" * 100)
    assert store.update_variables("s", {"x": "b" * 100, made.id: "c" * 100}) == {"x": 2, made.id: 3}
    assert store.get_value("s", "x") == "c" * 100


def test_updates_one_by_one_tell_what_failed(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    store.register_variable("s", "y", "integer", 1, constraints={"max": 5})
    results = store.update_variables("s", {"x": 2, "y": 9, "z": 1, "w": object()}, atomic=False)
    assert results.pop("x") == 2
    assert isinstance(results["y"], ConstraintViolation)
    assert isinstance(results["z"], VariableNotFound)
    assert isinstance(results["w"], VariableNotFound)
    assert values(store) == {"x": 2, "y": 1}
    with pytest.raises(SessionNotFound):
        store.update_variables("nope", {}, atomic=False)


def test_a_snapshot_has_what_was_asked_for(store: SessionStore) -> None:
    for name in "abc":
        store.register_variable("s", name, "string", name)
    found = store.get_variables("s", ["c", "a"])
    assert {name: variable.value for name, variable in found.items()} == {"c": "c", "a": "a"}
    with pytest.raises(VariableNotFound, match="'x'"):
        store.get_variables("s", ["a", "x"])
    assert list(store.get_variables("s", ["a", "x"], missing_ok=True)) == ["a"]


def test_lists_are_sorted_by_creation(store: SessionStore) -> None:
    names = [f"v{number}" for number in range(50)]
    for name in names:
        store.register_variable("s", name, "integer", 0)
    store.delete_variable("s", "v3")
    store.register_variable("s", "v3", "integer", 0)
    names.remove("v3")
    assert [v.name for v in store.list_variables("s")] == [*names, "v3"]
    assert store.variable_names("s") == [*names, "v3"]
    assert [v.name for v in store.list_variables("s", "v1?")] == names[9:19]


def test_constraints_can_be_replaced_if_the_value_obeys(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 4, constraints={"max": 5}, metadata={"a": 1})
    changed = store.set_constraints("s", "x", {"min": 3})
    assert (changed.constraints, changed.metadata, changed.version) == ({"min": 3}, {"a": 1}, 1)
    assert changed == store.get_variable("s", "x")
    assert store.update_variable("s", "x", 9) == 2
    with pytest.raises(ConstraintViolation):
        store.set_constraints("s", "x", {"max": 5})
    with pytest.raises(ConstraintError):
        store.set_constraints("s", "x", {"min_length": 5})
    assert store.get_variable("s", "x").constraints == {"min": 3}
    assert store.set_constraints("s", "x", None).constraints == {}


def test_constraints_replaced_by_another_process_count_at_once(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    store.update_variable("s", "x", 2)  # now its facts are known here
    assert in_child(lambda: store.set_constraints("s", "x", {"max": 5})) == 0
    with pytest.raises(ConstraintViolation):
        store.update_variable("s", "x", 9)
    assert in_child(lambda: store.set_constraints("s", "x", {"max": 50})) == 0
    assert store.update_variable("s", "x", 9) == 3


def test_a_variable_replaced_by_another_of_its_name_is_noticed(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    store.update_variable("s", "x", 2)
    store.delete_session("s")
    store.create_session("s")
    store.register_variable("s", "x", "string", "a")
    assert store.update_variable("s", "x", "b") == 2
    with pytest.raises(VariableTypeError):
        store.update_variable("s", "x", 3)


def test_what_is_known_of_a_gone_variable_does_not_answer_for_it(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    store.update_variable("s", "x", 2)
    store.delete_variable("s", "x")
    with pytest.raises(VariableNotFound):
        store.update_variable("s", "x", "of a wrong type, too")


def test_no_update_is_lost_between_threads_and_processes(store: SessionStore) -> None:
    store.register_variable("s", "count", "integer", 0)

    def add(times: int) -> None:
        while times:
            seen = store.get_variable("s", "count")
            try:
                store.update_variable("s", "count", seen.value + 1, expected_version=seen.version)
                times -= 1
            except VersionConflict:
                pass

    def two_threads() -> None:
        threads = [threading.Thread(target=add, args=(25,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    helper = threading.Thread(target=lambda: results.append(in_child(two_threads)))
    results: list[int] = []
    helper.start()
    two_threads()
    helper.join()
    assert results == [0]
    variable = store.get_variable("s", "count")
    assert (variable.value, variable.version) == (100, 101)


@pytest.mark.parametrize(
    ("kind", "value", "constraints", "wrong", "constraint"),
    [
        ("choice", "a", {"choices": ["a"]}, "b", "choices"),
        ("module", "A", {"allowed_modules": ["A"]}, "B", "allowed_modules"),
        ("embedding", np.array([0.5], "f4"), {"dimensions": 1}, [1, 2], "dimensions"),
        (list, [1, (None,)], {"unique": True}, [1, 1], "unique"),
        (dict, {1: b"x"}, {"max_length": 1}, {1: 2, 3: 4}, "max_length"),
        (bytes, b"x", {"min_length": 1}, b"", "min_length"),
        (np.ndarray, np.zeros((2, 3), ">i2"), {"dtype": ">i2"}, np.zeros(1), "dtype"),
        (float, 0.3, {"multiple_of": 0.1}, 0.35, "multiple_of"),
        (str, "ab", {"pattern": "[ab]+"}, "abc", "pattern"),
    ],
)
def test_every_type_keeps_its_value_and_its_limits(
    store: SessionStore,
    kind: Any,
    value: Any,
    constraints: dict[str, Any],
    wrong: Any,
    constraint: str,
) -> None:
    made = store.register_variable("s", "x", kind, value, constraints=constraints)
    with pytest.raises(ConstraintViolation, match="variable 'x'") as caught:
        store.update_variable("s", made.id, wrong)
    assert (caught.value.variable, caught.value.constraint) == ("x", constraint)
    kept = store.get_variable("s", "x")
    assert same(kept.value, value)
    assert (kept.version, kept.constraints) == (1, constraints)


def test_none_is_kept_where_it_is_allowed(store: SessionStore) -> None:
    store.register_variable("s", "x", "embedding", None, constraints={"nullable": True})
    store.update_variable("s", "x", [1.0])
    store.update_variable("s", "x", None)
    assert store.get_value("s", "x") is None
    with pytest.raises(VariableTypeError, match="variable 'x': None"):
        store.set_constraints("s", "x", {"dimensions": 1})
    assert store.get_variable("s", "x").constraints == {"nullable": True}
