"""One process stands still at a labelled step while another does something; then the first goes
on, or is killed. All labels, pair by pair: the end is that of one after the other.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from fix_store import COMPILED, FORKS, assert_intact, seeded_store, stepping
from fix_timeouts import scaled

from snakepit_mp.errors import SnakepitError, StoreBusy
from snakepit_mp.store.session_store import SessionStore

pytestmark = [FORKS, pytest.mark.timeout(scaled(120))]

#: Of the labels of a pair only every so many, each time others; 1 takes all, and minutes.
APART = int(os.environ.get("SNAKEPIT_MP_LABELS_APART", "17"))

Action = Callable[[SessionStore], object]

FIRST: dict[str, Action] = {
    "update inline": lambda store: store.update_variable("s", "x", 2),
    "update block": lambda store: store.update_variable("s", "b", b"B" * 110),
    "update large": lambda store: store.update_variable("s", "l", b"L" * 12_000),
    "batch": lambda store: store.update_variables("s", {"x": 3, "b": b"C" * 70, "k": b"K" * 90}),
    "register": lambda store: store.register_variable("s", "n", "any", b"n" * 50).version,
    "delete variable": lambda store: store.delete_variable("s", "b"),
    "create session": lambda store: store.create_session("new", exist_ok=False).id,
    "delete session": lambda store: store.delete_session("s"),
}
THEN: dict[str, Action] = {
    "update inline": lambda store: store.update_variable("s", "x", 20),
    "increment": lambda store: store.increment("s", "x"),
    "compare": lambda store: store.update_variable("s", "b", b"v" * 40, expected_version=1),
    "batch": lambda store: store.update_variables("s", {"b": b"D" * 130, "x": 30}),
    "history": lambda store: [(old.version, old.value) for old in store.history("s", "k")],
    "snapshot": lambda store: list(store.get_values("s", ["x", "b"]).values()),
    "register": lambda store: store.register_variable("s", "n", "any", b"m" * 40).version,
    "delete variable": lambda store: store.delete_variable("s", "b"),
    "create session": lambda store: store.create_session("new", exist_ok=False).id,
    "delete session": lambda store: store.delete_session("s"),
    "elsewhere": lambda store: store.update_variable("o", "x", 40),
}
READS = {"history", "snapshot"}


def fresh() -> SessionStore:
    store = seeded_store()
    for session in ("s", "o"):
        store.create_session(session)
        store.register_variable(session, "x", "integer", 1)
    store.register_variable("s", "b", "any", b"b" * 100)
    store.register_variable("s", "l", "any", b"l" * 10_000)
    store.register_variable("s", "k", "any", b"k", history=2)
    store.update_variable("s", "k", b"k" * 80)
    return store


def state(store: SessionStore) -> dict[str, Any]:
    """All that can be read, save ids and times."""
    return {
        info.id: {
            v.name: (v.version, bytes(v.value) if type(v.value) is memoryview else v.value)
            for v in store.list_variables(info.id)
        }
        for info in store.list_sessions()
    }


def outcome(store: SessionStore, action: Action) -> str:
    """What an operation returns or raises."""
    try:
        return repr(action(store))
    except StoreBusy:
        raise
    except SnakepitError as error:
        return type(error).__name__


@dataclass
class Paused:
    """A process that stands still at a step, or has ended before it."""

    pid: int
    again: int
    label: str

    def go_on(self) -> None:
        os.write(self.again, b"g")
        self._expect(0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._expect(-signal.SIGKILL)

    def _expect(self, status: int) -> None:
        pid, self.pid = self.pid, 0
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status


@contextmanager
def paused(store: SessionStore, action: Action, number: int) -> Iterator[Paused]:
    """A forked process that does ``action`` up to its ``number``-th step."""
    told, tell = os.pipe()
    wait, again = os.pipe()
    passed = 0

    def step(label: str) -> None:
        nonlocal passed
        passed += 1
        if passed == number:
            os.write(tell, label.encode())
            os.read(wait, 1)

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(again)  # if the test ends, so does this
            store.after_fork()
            with stepping(step):
                outcome(store, action)
            status = 0
        finally:
            os._exit(status)
    os.close(tell)
    one = Paused(pid, again, os.read(told, 100).decode())
    try:
        yield one
    finally:
        if one.pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for descriptor in (told, wait, again):
            os.close(descriptor)


def serial(*actions: Action) -> tuple[str, dict[str, Any]]:
    """What the last of these returns if they come one after the other, and what is there then."""
    with fresh() as store:
        results = [outcome(store, action) for action in actions]
        return results[-1], state(store)


@dataclass(frozen=True)
class Orders:
    """What may come of two operations: result of the second, and the state at the end."""

    before: dict[str, Any]
    after: dict[str, Any]
    second_alone: tuple[str, dict[str, Any]]
    first_second: tuple[str, dict[str, Any]]
    second_first: tuple[str, dict[str, Any]]

    @classmethod
    def of(cls, first: Action, then: Action) -> Orders:
        second_alone = serial(then)
        return cls(
            before=serial(lambda store: None)[1],
            after=serial(first)[1],
            second_alone=second_alone,
            first_second=serial(first, then),
            second_first=(second_alone[0], serial(then, first)[1]),
        )


def looked(store: SessionStore) -> dict[str, Any] | None:
    """What can be read while somebody stands still; the pure twin may have to wait for it."""
    try:
        return state(store)
    except StoreBusy:
        assert not COMPILED, "a reader waits"
        return None


def tried(store: SessionStore, name: str) -> str | None:
    """What the second operation gives at once, ``None`` if it has to wait."""
    try:
        return outcome(store, THEN[name])
    except StoreBusy:
        assert not (COMPILED and name in READS), "a reader waits"
        return None


def check(orders: Orders, first: Action, then: str, number: int, killed: bool) -> bool:
    """One schedule; whether the first operation has so many steps."""
    with fresh() as store:
        store._locks.timeout = 0.03
        with paused(store, first, number) as other:
            if not other.label:
                return False
            seen = looked(store)
            assert seen in (None, orders.before, orders.after), f"torn at {other.label}"
            result = tried(store, then)
            other.kill() if killed else other.go_on()
        store._locks.timeout = scaled(5)
        at_once = result is not None
        if not at_once:
            result = outcome(store, THEN[then])
        end = (result, state(store))
        allowed = [orders.first_second]
        if at_once and not killed:
            allowed.append(orders.second_first)
        if killed:
            allowed.append(orders.second_alone)
        assert end in allowed, f"at {other.label}, at once: {at_once}, killed: {killed}"
        assert_intact(store)
    return True


@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "is killed"])
@pytest.mark.parametrize("name", FIRST)
def test_two_operations_are_as_one_after_the_other(name: str, killed: bool) -> None:
    for place, then in enumerate(THEN):
        orders = Orders.of(FIRST[name], THEN[then])
        number = 1 + (place + killed) % APART
        while check(orders, FIRST[name], then, number, killed):
            number += APART
