"""A batch is written at the end of its block, all of it or nothing; a snapshot never sees half."""

from __future__ import annotations

import threading

import pytest

from snakepit_mp.errors import (
    ConstraintViolation,
    SessionNotFound,
    VariableNotFound,
    VariableTypeError,
)
from snakepit_mp.store.session_store import SessionStore


@pytest.fixture(autouse=True)
def session(store: SessionStore) -> None:
    store.create_session("s")
    for name in ("x", "y"):
        store.register_variable("s", name, "integer", 0, constraints={"max": 1000})


def test_nothing_is_written_before_the_end(store: SessionStore) -> None:
    with store.batch("s") as batch:
        batch["x"] = 1
        batch["y"] = 2
        assert (batch["x"], store.get_value("s", "x")) == (1, 0)
    assert store.get_values("s", ["x", "y"]) == {"x": 1, "y": 2}
    assert batch.versions == {"x": 2, "y": 2}


def test_what_was_not_set_is_read_from_the_store(store: SessionStore) -> None:
    with store.batch("s") as batch:
        batch["x"] = batch["y"] + 5
    assert store.get_value("s", "x") == 5


def test_the_last_of_several_values_counts(store: SessionStore) -> None:
    with store.batch("s") as batch:
        batch["x"] = 1
        batch["x"] = 2
    assert (store.get_value("s", "x"), batch.versions) == (2, {"x": 2})


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("y", "text", VariableTypeError),
        ("y", 1001, ConstraintViolation),
        ("z", 1, VariableNotFound),
    ],
)
def test_one_that_does_not_fit_spoils_all(
    store: SessionStore, name: str, value: object, error: type
) -> None:
    batch = store.batch("s")
    batch["x"] = 1
    batch[name] = value
    with pytest.raises(error), batch:
        pass
    assert store.get_values("s", ["x", "y"]) == {"x": 0, "y": 0}


def test_an_exception_in_the_block_writes_nothing(store: SessionStore) -> None:
    batch = store.batch("s")
    batch["x"] = 1
    with pytest.raises(ZeroDivisionError), batch:
        batch["y"] = 1 // 0
    assert (store.get_value("s", "x"), batch.versions) == (0, {})


def test_an_empty_batch_writes_nothing(store: SessionStore) -> None:
    with store.batch("s") as batch:
        pass
    assert batch.versions == {}


def test_a_batch_needs_a_session(store: SessionStore) -> None:
    with pytest.raises(SessionNotFound):
        store.batch("nope")


def test_a_snapshot_names_what_is_missing(store: SessionStore) -> None:
    made = store.get_variable("s", "x")
    assert store.get_values("s", [made.id, "y"]) == {made.id: 0, "y": 0}
    assert store.get_values("s", []) == {}
    with pytest.raises(VariableNotFound, match="'z'"):
        store.get_values("s", ["x", "z"])
    with pytest.raises(SessionNotFound):
        store.get_values("nope", ["x"])


def test_a_snapshot_never_sees_half_a_batch(store: SessionStore) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1) % 1000
            with store.batch("s") as batch:
                batch["x"] = batch["y"] = number

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(300):
            seen = store.get_values("s", ["x", "y"])
            assert seen["x"] == seen["y"]
    finally:
        stop.set()
        thread.join()


def test_long_bytes_come_as_a_read_only_view(store: SessionStore) -> None:
    store.register_variable("s", "long", "bytes", b"a" * 20_000)
    store.register_variable("s", "short", "bytes", b"a" * 200)
    found = store.get_values("s", ["long", "short"])
    assert found == {"long": b"a" * 20_000, "short": b"a" * 200}
    assert type(found["short"]) is bytes
    assert type(found["long"]) is memoryview
    assert found["long"].readonly
    view = store.get_value("s", "long")
    store.update_variable("s", "long", b"b" * 20_000)
    store.delete_variable("s", "long")
    assert view == b"a" * 20_000
