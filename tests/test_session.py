"""A session is a mapping of its variables; the application's runs tools, the tool's knows its call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snakepit_mp.errors import (
    ConstraintViolation,
    SessionNotFound,
    VariableExists,
    VariableNotFound,
    VariableTypeError,
)
from snakepit_mp.session import Session, SessionContext, VariableMapping
from snakepit_mp.store.session_store import SessionStore


class Recorder:
    """Answers every call with what it was called with."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: (name, args, options)


@pytest.fixture
def session(store: SessionStore) -> Session:
    return Session(store, store.create_session("s").id, Recorder())


@pytest.fixture(params=["session", "context"])
def mapping(request: pytest.FixtureRequest, store: SessionStore) -> VariableMapping:
    store.create_session("s")
    if request.param == "session":
        return Session(store, "s")
    return SessionContext(store, "s", attempt=1)


def test_it_is_a_mapping(mapping: VariableMapping) -> None:
    mapping["x"] = 1
    mapping["y"] = "a"
    assert (mapping["x"], mapping.get("y"), mapping.get("z", 5)) == (1, "a", 5)
    names: list[object] = ["x", "z", 5, ""]
    assert [name in mapping for name in names] == [True, False, False, False]
    assert (list(mapping), len(mapping), dict(mapping)) == (["x", "y"], 2, {"x": 1, "y": "a"})
    del mapping["x"]
    assert list(mapping.items()) == [("y", "a")]
    with pytest.raises(KeyError):
        mapping["x"]
    with pytest.raises(VariableNotFound):
        del mapping["x"]


def test_assignment_registers_with_the_type_of_the_value(mapping: VariableMapping) -> None:
    mapping["x"] = 1.5
    assert mapping.get_variable("x").type == "float"
    mapping["x"] = 2
    assert (repr(mapping["x"]), mapping.get_variable("x").version) == ("2.0", 2)
    with pytest.raises(VariableTypeError):
        mapping["x"] = "text"


def test_changes_by_the_old_value(mapping: VariableMapping) -> None:
    mapping.register_variable("x", "integer", 1, history=2)
    assert mapping.increment("x") == 2
    assert mapping.increment("x", -5) == -3
    assert mapping.update("x", abs) == 3
    assert mapping.compare_and_set("x", 3, 10)
    assert not mapping.compare_and_set("x", 3, 11)
    assert [(old.version, old.value) for old in mapping.history("x")] == [(5, 10), (4, 3), (3, -3)]
    assert mapping.rollback("x", 3) == 6
    assert mapping["x"] == -3


def test_a_batch_and_a_snapshot(mapping: VariableMapping) -> None:
    mapping["x"] = mapping["y"] = 0
    with mapping.batch() as batch:
        batch["x"] = 1
        batch["y"] = 2
    assert mapping.get_values(["x", "y"]) == {"x": 1, "y": 2}


def test_its_changes_can_be_watched(mapping: VariableMapping) -> None:
    mapping["x"] = 0
    changes = mapping.watch(["x"], timeout=0)
    mapping["x"] = 1
    assert list(changes) == [("x", 2, 1, False)]


def test_its_programs_are_its_own(mapping: VariableMapping, store: SessionStore) -> None:
    store.put_program(None, "p", "everybody's")
    assert mapping.put_program("p", "its own") == 1
    assert (mapping.get_program("p"), mapping.list_programs()) == ("its own", ["p"])
    assert (len(mapping), mapping.info().program_count) == (0, 1)
    mapping.delete_program("p")
    assert mapping.list_programs() == []
    assert store.get_program(None, "p") == "everybody's"


def test_a_strict_one_registers_nothing(store: SessionStore) -> None:
    store.create_session("s")
    strict = Session(store, "s", strict=True)
    with pytest.raises(VariableNotFound):
        strict["x"] = 1
    strict.register_variable("x", "integer", 1)
    strict["x"] = 2
    assert strict["x"] == 2


def test_a_registration_that_loses_the_race_becomes_an_update(
    session: Session, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def somebody_was_faster(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        store.register_variable("s", "x", "integer", 5)
        raise VariableExists("x")

    monkeypatch.setattr(store, "register_variable", somebody_was_faster)
    session["x"] = 1
    assert session.get_variable("x").version == 2


def test_the_stores_calls_without_the_session_id(mapping: VariableMapping) -> None:
    made = mapping.register_variable(
        "x", "float", 1, constraints={"max": 2}, metadata={"unit": "K"}
    )
    assert mapping.register_variable("x", "float", 5, exist_ok=True) == made
    assert mapping.get_variable(made.id) == made
    assert mapping.get_value("x") == 1.0
    assert mapping.update_variable("x", 2, expected_version=1) == 2
    assert mapping.update_variables({"x": 1.5}) == {"x": 3}
    assert isinstance(mapping.update_variables({"x": 9}, atomic=False)["x"], ConstraintViolation)
    assert mapping.get_variables(["x", "y"], missing_ok=True)["x"].value == 1.5
    assert mapping.set_constraints("x", {"max": 5}).constraints == {"max": 5.0}
    assert [v.name for v in mapping.list_variables("?")] == ["x"]
    mapping.delete_variable("x")
    mapping.touch()
    assert (mapping.info().id, mapping.info().variable_count) == ("s", 0)


def test_arrays_are_read_only(mapping: VariableMapping) -> None:
    mapping["a"] = np.zeros(100)
    assert mapping.get_variable("a").type == "tensor"
    assert not mapping["a"].flags.writeable


def test_two_sessions_are_two_sessions(store: SessionStore) -> None:
    store.create_session("s")
    one, two = Session(store, "s"), Session(store, "s")
    assert one != two
    assert len({one, two}) == 2
    assert one


@pytest.mark.parametrize("name", ["execute", "submit", "stream"])
def test_tools_run_in_the_session(session: Session, name: str) -> None:
    call = getattr(session, name)
    assert call("tool", {"a": 1}, timeout=2, retries=1, affinity="hint") == (
        name,
        ("tool", {"a": 1}),
        {"session_id": "s", "timeout": 2, "retries": 1, "affinity": "hint"},
    )


def test_map_runs_in_the_session(session: Session) -> None:
    name, args, options = session.map("tool", [1, 2], window=3)
    assert (name, args) == ("map", ("tool", [1, 2]))
    assert (options["session_id"], options["window"], options["ordered"]) == ("s", 3, True)


def test_without_a_pool_no_tool_can_run(store: SessionStore) -> None:
    with pytest.raises(TypeError, match="without a pool"):
        Session(store, "s").execute("tool")


def test_it_is_deleted_at_the_end_where_that_was_asked_for(store: SessionStore) -> None:
    for delete in (True, False):
        with Session(store, store.create_session("s").id, delete_on_exit=delete) as session:
            session["x"] = 1
            assert session.id == session.session_id == "s"
        assert store.exists("s") is not delete


def test_an_end_after_the_end_is_fine(store: SessionStore) -> None:
    store.create_session("s")
    with Session(store, "s", delete_on_exit=True) as session:
        session["x"] = 1
        assert session.delete() == 1
    with Session(store, "s", delete_on_exit=True):
        pass  # it was never there


def test_a_context_knows_its_call(store: SessionStore) -> None:
    context = SessionContext(store, "s", attempt=2, deadline=12.5)
    assert (context.session_id, context.attempt, context.deadline) == ("s", 2, 12.5)
    assert repr(context) == "<SessionContext of session 's', attempt 2>"


@pytest.mark.parametrize("has_store", [True, False])
def test_a_call_without_a_session_says_so(store: SessionStore, has_store: bool) -> None:
    context = SessionContext(store if has_store else None, None, attempt=1)
    assert context.session_id is None
    for use in (
        lambda: context["x"],
        lambda: context.__setitem__("x", 1),
        lambda: "x" in context,
        lambda: list(context),
        lambda: context.get("x"),
    ):
        with pytest.raises(SessionNotFound, match="session_id="):
            use()


def test_a_repr_names_the_session(session: Session) -> None:
    assert repr(session) == "<Session 's'>"
