"""Programs are named values beside the variables, in a session or in none."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fix_store import FORKS, in_child, small_store
from value_samples import same

from snakepit_mp.errors import CodecError, ConfigError, SessionNotFound, VariableNotFound
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS

owners = pytest.mark.parametrize("owner", ["s", None])


@pytest.fixture(autouse=True)
def session(store: SessionStore) -> None:
    store.create_session("s")


@owners
@pytest.mark.parametrize("value", [1, "code", b"x" * 50_000, {"a": [1, (2,)]}, None])
def test_a_program_is_kept_as_it_is(store: SessionStore, owner: str | None, value: Any) -> None:
    assert store.put_program(owner, "p", value) == 1
    found = store.get_program(owner, "p")
    assert same(bytes(found) if isinstance(found, memoryview) else found, value)


@owners
def test_a_program_is_replaced(store: SessionStore, owner: str | None) -> None:
    assert [store.put_program(owner, "p", value) for value in (1, "text", b"x" * 99)] == [1, 2, 3]
    assert store.get_program(owner, "p") == b"x" * 99


@owners
def test_programs_are_listed_in_order(store: SessionStore, owner: str | None) -> None:
    for name in ("b", "a1", "c", "a2"):
        store.put_program(owner, name, name)
    assert store.list_programs(owner) == ["b", "a1", "c", "a2"]
    assert store.list_programs(owner, "a?") == ["a1", "a2"]
    store.delete_program(owner, "c")
    assert store.list_programs(owner) == ["b", "a1", "a2"]


def test_a_program_that_is_not_there_is_named(store: SessionStore) -> None:
    for call in (store.get_program, store.delete_program):
        with pytest.raises(VariableNotFound, match="session 's' has no program 'p'") as caught:
            call("s", "p")
        assert (caught.value.session_id, caught.value.name) == ("s", "p")
        with pytest.raises(VariableNotFound, match="the store has no program 'p'"):
            call(None, "p")
        with pytest.raises(SessionNotFound, match="'nope'"):
            call("nope", "p")
    with pytest.raises(SessionNotFound):
        store.put_program("nope", "p", 1)
    with pytest.raises(SessionNotFound):
        store.list_programs("nope")


def test_programs_are_no_variables(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    store.put_program("s", "x", "program")
    store.put_program("s", "y", "program")
    info = store.get_session("s")
    assert (info.variable_count, info.program_count) == (1, 2)
    assert store.variable_names("s") == ["x"]
    assert [v.value for v in store.list_variables("s")] == [1]
    assert not store.has_variable("s", "y")
    with pytest.raises(VariableNotFound):
        store.get_value("s", "y")
    store.delete_variable("s", "x")
    assert store.get_program("s", "x") == "program"
    store.delete_program("s", "x")
    assert store.get_session("s").program_count == 1


def test_owners_do_not_share_programs(store: SessionStore) -> None:
    store.create_session("t")
    for owner in ("s", "t", None):
        store.put_program(owner, "p", owner)
    assert [store.get_program(owner, "p") for owner in ("s", "t", None)] == ["s", "t", None]


def test_a_deleted_session_takes_its_programs_along(store: SessionStore) -> None:
    store.register_variable("s", "x", "integer", 1)
    store.put_program("s", "p", 1)
    store.put_program(None, "p", 2)
    assert store.delete_session("s") == 1
    assert store.get_program(None, "p") == 2
    assert store.create_session("s").program_count == 0


def test_those_of_no_session_stay_and_are_no_session() -> None:
    with small_store(session_ttl=5, max_sessions=1) as store:
        store.put_program(None, "p", 1)
        store._freeze_clock(10**18)
        store.cleanup_expired_sessions()
        assert store.list_sessions() == []
        assert store.stats().sessions == 0
        store.create_session("only")
        assert [info.id for info in store.list_sessions()] == ["only"]
        assert store.get_program(None, "p") == 1
        assert "1 sessions" in repr(store)
        assert not store.exists("\udcff")  # what its name would be, if it had one


def test_programs_do_not_count_as_variables() -> None:
    with small_store(max_variables_per_session=1) as store:
        store.create_session("s")
        for number in range(5):
            store.put_program("s", f"p{number}", number)
        store.register_variable("s", "x", "integer", 1)


@owners
def test_a_wrong_program_is_refused(store: SessionStore, owner: str | None) -> None:
    with pytest.raises(CodecError):
        store.put_program(owner, "p", object())
    with pytest.raises(ConfigError, match="program name"):
        store.put_program(owner, "", 1)
    with pytest.raises(TypeError, match="program name"):
        store.get_program(owner, 1)  # type: ignore[arg-type]
    assert store.list_programs(owner) == []


@owners
def test_all_processes_share_them(store: SessionStore, owner: str | None) -> None:
    assert in_child(lambda: store.put_program(owner, "p", 1)) == 0
    assert store.get_program(owner, "p") == 1
    assert store.put_program(owner, "p", 2) == 2


@owners
def test_whoever_is_faster_is_replaced(store: SessionStore, owner: str | None) -> None:
    def put_and_delete() -> None:
        for number in range(30):
            store.put_program(owner, "p", number)
            try:
                store.delete_program(owner, "p")
            except VariableNotFound:
                pass

    threads = [threading.Thread(target=put_and_delete) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.list_programs(owner) == []
