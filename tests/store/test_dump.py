"""A dump holds everything of one moment; loading gives all of it back, or nothing."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fix_store import FORKS, assert_intact, in_child, small_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakepit_mp.errors import StoreError, StoreFull, VariableNotFound
from snakepit_mp.store import dump as module
from snakepit_mp.store.session_store import SessionStore
from snakepit_mp.values.codec import encode

pytestmark = FORKS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.dump"


@pytest.fixture
def other() -> Iterator[SessionStore]:
    with small_store() as made:
        yield made
        assert_intact(made)


def fill(store: SessionStore) -> None:
    store.create_session("a", ttl=math.inf, metadata={"who": ("me", 1)})
    store.create_session("ä" * 3000, metadata={"long": "m" * 20_000})
    store.register_variable("a", "x", "float", 1.5, constraints={"min": 0}, metadata={"unit": "K"})
    store.register_variable("a", "t", "tensor", np.arange(5000))
    store.register_variable("a", "n", "any", None)
    store.register_variable("a", "h", "any", 0, history=3)
    for value in ("text", b"b" * 30_000, 3, 4, 5):
        store.update_variable("a", "h", value)
    store.put_program("a", "x", "program")
    store.put_program(None, "global", {"code": [1, 2]})


def content(store: SessionStore) -> dict[str, Any]:
    """All that a dump keeps."""
    return {
        "sessions": [(info.id, info.metadata, info.ttl) for info in store.list_sessions()],
        "variables": [
            (
                info.id,
                variable.name,
                variable.type,
                dict(variable.constraints),
                variable.metadata,
                [repr(old.value) for old in store.history(info.id, variable.name)],
            )
            for info in store.list_sessions()
            for variable in store.list_variables(info.id)
        ],
        "programs": [
            (owner, name, store.get_program(owner, name))
            for owner in (None, *(info.id for info in store.list_sessions()))
            for name in store.list_programs(owner)
        ],
    }


def test_everything_comes_back(store: SessionStore, other: SessionStore, file: Path) -> None:
    fill(store)
    assert store.dump(file) == 2
    assert other.load(file) == 2
    assert content(other) == content(store)
    assert other.dump(file) == 2  # once more


def test_an_empty_store_is_one_too(store: SessionStore, other: SessionStore, file: Path) -> None:
    assert store.dump(file) == 0
    assert other.load(file) == 0
    assert content(other) == {"sessions": [], "variables": [], "programs": []}


def test_versions_and_history_begin_anew(
    store: SessionStore, other: SessionStore, file: Path
) -> None:
    fill(store)
    store.dump(file)
    other.load(file)
    assert [(old.version, old.value) for old in other.history("a", "h")] == [
        (4, 5),
        (3, 4),
        (2, 3),
        (1, b"b" * 30_000),
    ]
    other.update_variable("a", "h", 6)
    assert len(other.history("a", "h")) == 4  # it keeps as many as before


def test_a_ttl_goes_on_where_it_was(store: SessionStore, other: SessionStore, file: Path) -> None:
    second = 10**9
    store._freeze_clock(1000 * second)
    store.create_session("s", ttl=100)
    store.create_session("over", ttl=5)
    store._freeze_clock(1070 * second)
    store.dump(file)
    other._freeze_clock(5000 * second)
    assert other.load(file) == 1
    assert other.get_session("s").ttl == 100.0
    other.delete_session("s")
    other.load(file)
    other._freeze_clock(5029 * second)
    assert other.exists("s")
    other._freeze_clock(5030 * second)
    assert not other.exists("s")


def test_a_clock_that_has_just_begun_is_no_problem(
    store: SessionStore, other: SessionStore, file: Path
) -> None:
    store._freeze_clock(10**9)
    store.create_session("s", ttl=10**6)
    store._freeze_clock(10**14)
    store.dump(file)
    other._freeze_clock(10**9)
    other.load(file)
    assert other.exists("s")


def test_what_is_there_is_refused_before_anything_is_changed(
    store: SessionStore, other: SessionStore, file: Path
) -> None:
    fill(store)
    store.dump(file)
    other.create_session("a")
    before = content(other)
    with pytest.raises(StoreError, match="session 'a' exists already"):
        other.load(file)
    assert content(other) == before
    other.delete_session("a")
    other.put_program(None, "global", 1)
    with pytest.raises(StoreError, match="program 'global' already"):
        other.load(file)
    assert other.list_sessions() == []
    other.delete_program(None, "global")
    other.load(file)


def test_what_finds_no_room_is_taken_back(store: SessionStore, file: Path) -> None:
    fill(store)
    store.create_session("z")
    for number in range(20):
        store.register_variable("z", f"v{number}", "bytes", b"v" * 100_000)
    store.dump(file)
    with small_store(max_bytes=1 << 20) as small:
        with pytest.raises(StoreFull):
            small.load(file)
        assert content(small) == {"sessions": [], "variables": [], "programs": []}
        assert_intact(small)


def test_other_sessions_are_left_alone(
    store: SessionStore, other: SessionStore, file: Path
) -> None:
    fill(store)
    store.dump(file)
    other.create_session("mine")
    other.put_program(None, "mine", 1)
    other.load(file)
    assert other.exists("mine")
    assert other.list_programs(None) == ["mine", "global"]


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_file_that_is_cut_off_is_refused(
    store: SessionStore, other: SessionStore, file: Path, part: float
) -> None:
    fill(store)
    store.dump(file)
    os.truncate(file, int(file.stat().st_size * part))
    with pytest.raises(StoreError, match="cannot load"):
        other.load(file)
    assert other.list_sessions() == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_changed_byte_is_noticed(
    store: SessionStore, other: SessionStore, file: Path, at: float, change: int
) -> None:
    if not store.exists("a"):
        fill(store)
    store.dump(file)
    data = bytearray(file.read_bytes())
    data[int(at * len(data))] ^= change
    file.write_bytes(data)
    with pytest.raises(StoreError, match="cannot load"):
        other.load(file)
    assert other.list_sessions() == []


SESSION = ("_Session", "s", b"", 0, 0)
VARIABLE = ("_Variable", "x", False, "integer", b"", 0, [encode(1)])


def with_part(item: tuple[Any, ...], index: int, part: Any) -> tuple[Any, ...]:
    return (*item[:index], part, *item[index + 1 :])


@pytest.mark.parametrize(
    "items",
    [
        [VARIABLE],
        [("other",)],
        [5],
        [with_part(SESSION, 1, None), VARIABLE],
        *(
            [with_part(SESSION, i, p)]
            for i, p in [
                (1, ""),
                (1, b"s"),
                (2, ""),
                (2, encode(5)),
                (2, b"junk"),
                (3, -1),
                (3, 1 << 63),
                (4, 1),
                (4, 0.5),
            ]
        ),
        *(
            [SESSION, with_part(VARIABLE, i, p)]
            for i, p in [
                (1, ""),
                (1, 5),
                (2, 0),
                (3, "unknown"),
                (3, b"integer"),
                (4, b"junk"),
                (4, encode(5)),
                (4, encode(({"choices": 1}, {}))),
                (4, encode(({}, 5))),
                (5, -1),
                (5, 10_001),
                (6, []),
                (6, [5]),
                (6, [b""]),
                (6, [b"a", b"b"]),
                (6, b"a"),
            ]
        ),
        [SESSION, SESSION],
        [SESSION, VARIABLE, VARIABLE],
    ],
)
def test_items_that_nobody_writes_are_refused(
    other: SessionStore, file: Path, items: list[Any]
) -> None:
    write(file, items)
    with pytest.raises(StoreError):
        other.load(file)
    assert other.list_sessions() == []


def write(file: Path, items: list[Any]) -> None:
    checksum = 0
    with file.open("wb") as out:
        out.write(module._MAGIC)
        for item in items:
            checksum = module._put(out, item, checksum)
        module._put(out, ("end", module._VERSION, len(items), checksum), 0)


def test_items_that_are_right_are_taken(other: SessionStore, file: Path) -> None:
    write(file, [SESSION, VARIABLE, with_part(SESSION, 1, "t")])
    assert other.load(file) == 2
    assert other.get_value("s", "x") == 1


def test_a_dump_that_fails_leaves_the_old_one(
    store: SessionStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    store.dump(file)
    before = file.read_bytes()

    def refuse(*args: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", refuse)
        with pytest.raises(OSError, match="no space"):
            store.dump(file)
    assert (file.read_bytes(), os.listdir(file.parent)) == (before, [file.name])
    with pytest.raises(FileNotFoundError):
        store.dump(file.parent / "nowhere" / "file")
    with pytest.raises(FileNotFoundError):
        store.load(file.parent / "nothing")
    store.update_variable("a", "n", 1)  # nothing is held


def test_a_dump_is_of_one_moment(store: SessionStore, other: SessionStore, file: Path) -> None:
    for name in ("left", "right"):
        store.create_session(name)
        store.register_variable(name, "x", "integer", 0)
    pid = os.fork()
    if pid == 0:
        for number in range(10**9):
            store.update_variable("left", "x", number)
            store.update_variable("right", "x", number)
    try:
        for _ in range(5):
            store.dump(file)
            other.load(file)
            left, right = (other.get_value(name, "x") for name in ("left", "right"))
            assert left - right in (0, 1)
            other.delete_session("left")
            other.delete_session("right")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_another_process_loads_it(store: SessionStore, other: SessionStore, file: Path) -> None:
    fill(store)
    assert in_child(lambda: store.dump(file)) == 0
    assert in_child(lambda: other.load(file)) == 0
    assert content(other) == content(store)


def test_programs_of_no_session_are_taken_back_too(
    store: SessionStore, other: SessionStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    store.dump(file)
    create = other._dumps._create

    def create_and_fail(*args: Any) -> None:
        create(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(other._dumps, "_create", create_and_fail)
    with pytest.raises(KeyboardInterrupt):
        other.load(file)
    assert content(other) == {"sessions": [], "variables": [], "programs": []}
    with pytest.raises(VariableNotFound):
        other.get_program(None, "global")
