"""A process is killed at every labelled step of every operation; the rest of the world goes on."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from fix_store import (
    FORKS,
    PURE_ONLY,
    assert_intact,
    in_child,
    kill_at_step,
    seeded_store,
    stepping,
)

from snakepit_mp.store import crashpoints
from snakepit_mp.store.layout import CLASSES, PAGE_WORDS
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS

ROOT = Path(__file__).parents[2]
STORE = str(Path(crashpoints.__file__).parent)
LARGE = np.arange(5000)
#: Values of a class of blocks that nothing else uses, and as many as fill a page of them.
RARE = "r" * 1500
PAGEFUL = PAGE_WORDS // next(size for size in CLASSES if 8 * size > 1500)

Action = Callable[[SessionStore], object]

#: What somebody else does next, taking memory and giving it back in every order.
NEXT: dict[str, Action] = {
    "frees": lambda store: store.delete_variable("s", "large"),
    "takes": lambda store: store.register_variable("s", "next", "any", b"n" * 100),
    "replaces": lambda store: store.update_variable("s", "large", LARGE + 2),
    "is elsewhere": lambda store: store.create_session("elsewhere"),
}

#: Every line would take minutes; this is prime, so that loops do not hide any.
LINES_APART = 11


def add(store: SessionStore, count: int) -> None:
    for number in range(count):
        store.register_variable("s", f"v{number}", "integer", number)


def add_history(store: SessionStore) -> None:
    store.register_variable("s", "h", "any", "0", history=2)
    for value in ("1" * 100, 2, LARGE, 4):
        store.update_variable("s", "h", value)


def add_long_history(store: SessionStore) -> None:
    """More old values than a delete frees along the way, or a log of the usual length takes."""
    store.register_variable("s", "h", "any", "0", history=100)
    for number in range(110):
        store.update_variable("s", "h", "v" * (30 + 400 * (number % 3)))


def add_expired(store: SessionStore) -> None:
    store._freeze_clock(10**9)
    store.create_session("new", ttl=1)
    store._freeze_clock(2 * 10**9)


def crowd_index(store: SessionStore) -> None:
    """Fill the table of sessions in the stripe of ``s``, so that one more makes it grow."""
    for name in neighbours(store)[:4]:
        store.create_session(name)


def neighbours(store: SessionStore) -> list[str]:
    stripe = store._keys.place("s").stripe
    names = map(str, range(3000))
    return [name for name in names if store._keys.place(name).stripe == stripe]


#: What an operation needs besides the two variables that are always there.
NEEDS: dict[str, Action] = {
    "batch": lambda store: add(store, 12),
    "long batch": lambda store: add(store, 60),
    "delete session": lambda store: add(store, 30),
    "delete session with history": add_history,
    "register in a crowded table": lambda store: add(store, 3),
    "register where a page is full": lambda store: [
        store.register_variable("s", f"r{number}", "any", RARE) for number in range(PAGEFUL)
    ],
    "create session over an expired one": add_expired,
    "create session in a crowded index": crowd_index,
    "history write": add_history,
    "delete variable with history": add_history,
    "delete variable with long history": add_long_history,
    "delete session with long history": add_long_history,
    "delete the last of a page": lambda store: store.register_variable("s", "r", "any", RARE),
    "replace program": lambda store: store.put_program("s", "p", "old"),
    "delete program": lambda store: store.put_program("s", "p", "old"),
}

OPERATIONS: dict[str, Action] = {
    "create session": lambda store: store.create_session("new", metadata={"a": 1}),
    "create session in a crowded index": lambda store: store.create_session(neighbours(store)[4]),
    "create session over an expired one": lambda store: store.create_session("new", ttl=100),
    "delete session": lambda store: store.delete_session("s"),
    "delete session with history": lambda store: store.delete_session("s"),
    "delete session with long history": lambda store: store.delete_session("s"),
    "register": lambda store: store.register_variable("s", "x", "integer", 1),
    "register constrained": lambda store: store.register_variable(
        "s", "x", "string", "a" * 100, constraints={"max_length": 200}
    ),
    "register in a crowded table": lambda store: store.register_variable("s", "x", "any", 1),
    "register with history": lambda store: store.register_variable("s", "x", "any", 1, history=99),
    "register where a page is full": lambda store: store.register_variable("s", "x", "any", RARE),
    "update inline": lambda store: store.update_variable("s", "small", 2.0),
    "update large": lambda store: store.update_variable("s", "large", LARGE + 1),
    "update with growth": lambda store: store.update_variable("s", "large", np.zeros(500_000)),
    "history write": lambda store: store.update_variable("s", "h", "5" * 100),
    "batch": lambda store: store.update_variables("s", {f"v{n}": -n - 1 for n in range(12)}),
    "long batch": lambda store: store.update_variables("s", {f"v{n}": -n - 1 for n in range(60)}),
    "set constraints": lambda store: store.set_constraints("s", "small", {"max": 5.0}),
    "delete variable": lambda store: store.delete_variable("s", "large"),
    "delete variable with history": lambda store: store.delete_variable("s", "h"),
    "delete variable with long history": lambda store: store.delete_variable("s", "h"),
    "delete the last of a page": lambda store: store.delete_variable("s", "r"),
    "put program": lambda store: store.put_program("s", "p", "new"),
    "put global program": lambda store: store.put_program(None, "p", "new"),
    "replace program": lambda store: store.put_program("s", "p", "new" * 50),
    "delete program": lambda store: store.delete_program("s", "p"),
}


def fresh(name: str = "") -> SessionStore:
    """A store in which the operation of that name has something to do."""
    store = seeded_store()
    store.create_session("s", metadata={"who": "me"})
    store.register_variable("s", "small", "float", 1.0, constraints={"min": 0.0})
    store.register_variable("s", "large", "tensor", LARGE)
    NEEDS.get(name, lambda store: None)(store)
    return store


def state(store: SessionStore) -> dict[str, Any]:
    """All that can be read, save ids and times."""
    found: dict[str, Any] = {
        info.id: {
            v.name: (v.version, repr(v.value), dict(v.constraints), history(store, info.id, v.name))
            for v in store.list_variables(info.id)
        }
        for info in store.list_sessions()
    }
    for owner in (None, *found):
        names = store.list_programs(owner)
        found[f"programs of {owner}"] = {n: store.get_program(owner, n) for n in names}
    return found


def history(store: SessionStore, session_id: str, name: str) -> list[tuple[int, str]]:
    return [(old.version, repr(old.value)) for old in store.history(session_id, name)]


def labels_of(name: str) -> tuple[list[str], Any, Any]:
    """The steps of an operation, and the state before and after it."""
    labels: list[str] = []
    with fresh(name) as store:
        before = state(store)
        with stepping(labels.append):
            OPERATIONS[name](store)
        return labels, before, state(store)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_state(name: str) -> None:
    action = OPERATIONS[name]
    labels, before, after = labels_of(name)
    assert before != after
    seen = []
    for number in range(1, len(labels) + 1):
        with fresh(name) as store:
            assert kill_at_step(number, lambda: action(store)) == -signal.SIGKILL
            store._locks.timeout = 0.5
            found = state(store)
            assert found in (before, after), f"torn by a kill at {labels[number - 1]}"
            seen.append(found == after)
            assert_intact(store)
            store.create_session("next")  # nobody is blocked
    # The commit divides the kills: all before it leave the old state, all after it the new one.
    assert seen == sorted(seen)
    assert {False, True} == set(seen)


def dead(what: str) -> SessionStore:
    """A store in which something was deleted whose blocks are still to be freed."""
    store = seeded_store()
    store.create_session("s")
    add_long_history(store)
    place = store._keys.place("s")
    if what == "variable":
        store._raw.delete_variable(place, store._keys.variable("h"))
    else:
        store._raw.delete_session(place)
    return store


def put_away(store: SessionStore) -> int:
    """Free the blocks of what was deleted; the pages that are used then."""
    store._sweeper.tidy(store._keys.place("s").stripe, 60)
    return store.stats().bytes_used


@pytest.mark.parametrize("what", ["variable", "session"])
def test_a_kill_while_the_dead_are_put_away_loses_nothing(what: str) -> None:
    with dead(what) as store:
        assert store.stats().bytes_used > put_away(store)
        right = store.stats().bytes_used
    number, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        number += 1
        with dead(what) as store:
            status = kill_at_step(number, lambda: put_away(store))
            assert_intact(store)
            assert put_away(store) == right
            assert_intact(store)
    assert number > 10


@pytest.mark.parametrize("label", crashpoints.LABELS)
def test_a_kill_of_whoever_repairs_is_repaired(label: str) -> None:
    names = ("update large", "update with growth", "register constrained")
    name = next(name for name in names if label in labels_of(name)[0])
    action = OPERATIONS[name]
    labels, before, after = labels_of(name)
    number = 1 + labels.index(label)
    repair = 0
    status = -signal.SIGKILL
    while status == -signal.SIGKILL:
        repair += 1
        with fresh(name) as store:
            assert kill_at_step(number, lambda: action(store)) == -signal.SIGKILL
            status = kill_at_step(repair, lambda: store.update_variable("s", "small", 1.0))
            assert {**state(store)["s"], "small": None} in (
                {**before["s"], "small": None},
                {**after["s"], "small": None},
            )
            assert_intact(store)
    assert status == 0
    assert repair > 1


@pytest.mark.parametrize("following", NEXT)
def test_the_next_operation_finds_everything_in_order(following: str) -> None:
    action = OPERATIONS["update large"]
    labels, *_ = labels_of("update large")
    for number in range(1, len(labels) + 1):
        with fresh() as store:
            assert kill_at_step(number, lambda: action(store)) == -signal.SIGKILL
            NEXT[following](store)
            assert_intact(store)


def is_killed_at_line(number: int, action: Callable[[], object]) -> bool:
    """Run ``action`` in a child killed at the ``number``-th line of the store's code."""
    passed = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.startswith(STORE):
            return None
        passed += event == "line"
        if passed == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    def doomed() -> None:
        sys.settrace(trace)
        action()

    return in_child(doomed) == -signal.SIGKILL


@PURE_ONLY
@pytest.mark.parametrize("name", ["update large", "register constrained", "delete variable"])
def test_a_kill_at_any_line_is_as_harmless_as_one_at_a_label(name: str) -> None:
    _, before, after = labels_of(name)
    number, killed = 1, True
    while killed:
        with fresh(name) as store:
            killed = is_killed_at_line(number, lambda: OPERATIONS[name](store))
            assert state(store) in ((before, after) if killed else (after,))
            assert_intact(store)
        number += LINES_APART
    assert number > 20 * LINES_APART


@PURE_ONLY
def test_an_exception_at_any_step_is_as_harmless_as_a_kill() -> None:
    action = OPERATIONS["update large"]
    labels, before, after = labels_of("update large")
    for number in range(1, len(labels)):
        passed = iter(range(1, len(labels) + 1))

        def step(label: str) -> None:
            if next(passed, 0) == number:  # noqa: B023  called within this round
                raise KeyboardInterrupt

        with fresh() as store:
            with stepping(step), pytest.raises(KeyboardInterrupt):
                action(store)
            assert in_child(lambda: state(store)) == 0  # no lock is kept
            assert state(store) in (before, after)
            assert_intact(store)


def test_every_label_is_met_by_some_operation() -> None:
    met = {label for name in OPERATIONS for label in labels_of(name)[0]}
    assert met == set(crashpoints.LABELS)


def test_an_operation_always_has_the_same_steps() -> None:
    for name in ("batch", "create session", "delete session with history"):
        assert labels_of(name)[0] == labels_of(name)[0]


def test_the_crash_table_has_a_row_for_every_label() -> None:
    page = (ROOT / "docs" / "memory-layout.md").read_text()
    rows = re.findall(r"^\| `(\w+\.\w+)` \|", page, re.MULTILINE)
    assert rows == list(crashpoints.LABELS)
