"""A signal handler may raise anywhere in the pure twin: no lock outlives the thread's next call."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from fix_store import FORKS, PureStore, in_child, stepping
from fix_timeouts import scaled

from snakepit_mp import _accel
from snakepit_mp.errors import StoreBusy, VariableNotFound
from snakepit_mp.store import locks, stripe
from snakepit_mp.store.layout import ALLOCATOR_LOCK, JANITOR_LOCK
from snakepit_mp.store.places import NewVariable, Place, Update

pytestmark = [
    FORKS,
    pytest.mark.skipif(
        _accel.implementation == "c", reason="of the pure twin alone, whose suite has it"
    ),
]

#: Where locks are taken and let go.
FILES = locks.__file__, stripe.__file__

Action = Callable[[PureStore], object]


class Interrupted(BaseException):
    """What a handler raises."""


class Interruption:
    """Raises at the ``number``-th event of the code that locks: a call, a line or a return."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.raised = False
        #: The events that were passed.
        self.events: list[tuple[str, str, int]] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code.co_filename not in FILES or code.co_qualname.startswith("Operation"):
            return None
        if event != "exception":
            self.events.append((event, code.co_name, frame.f_lineno))
            self._left -= 1
            if self._left == 0:
                self.raised = True
                raise Interrupted
        return self._trace


def place(store: PureStore) -> Place:
    return store.keys.place("s")


def write(size: int) -> Action:
    def action(store: PureStore) -> None:
        key = store.keys.variable("x")
        number, _, version = 1 + 1, 0, 0
        data = os.urandom(8) + bytes(size)
        assert store.raw.write(place(store), [Update(key, data, number, version)])

    return action


def register_and_delete(store: PureStore) -> None:
    key = store.keys.variable("new")
    store.raw.register(place(store), key, NewVariable(b"any", b"n" * 20_000, b"", 2), True)
    store.raw.delete_variable(place(store), key)


def hold(store: PureStore) -> None:
    with store.raw.hold():
        pass


OPERATIONS: dict[str, Action] = {
    "read": lambda store: store.raw.all_variables(place(store)),
    "write": write(8),
    "write of a run": write(50_000),
    "register and delete": register_and_delete,
    "tidy": lambda store: store.raw.tidy(place(store).stripe),
    "hold": hold,
}


@pytest.fixture
def used(pure: PureStore) -> PureStore:
    pure.raw.create_session(place(pure), 0, b"", True)
    new = NewVariable(b"any", b"0" * 20_000, b"")
    pure.raw.register(place(pure), pure.keys.variable("x"), new, False)
    pure.locks.timeout = scaled(0.5)
    return pure


def lock_all(store: PureStore) -> None:
    store.locks.timeout = 0.05
    for index in range(JANITOR_LOCK):
        with store.locks.exclusive(index):
            pass


def assert_free(store: PureStore) -> None:
    """After the next call everybody else gets every lock, and all is in order."""
    write(3)(store)
    assert store.locks._notes.held == {}
    assert in_child(lambda: lock_all(store)) == 0
    failures: list[BaseException] = []

    def other_thread() -> None:
        try:
            lock_all(store)
        except StoreBusy as error:
            failures.append(error)

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    store.locks.timeout = scaled(0.5)
    assert failures == []
    assert store.problems() == []


def interrupted(store: PureStore, action: Action, number: int) -> bool:
    """Whether the operation has so many events; it is interrupted at that one."""
    interruption = Interruption(number)
    try:
        with interruption():
            action(store)
    except Interrupted:
        pass
    except VariableNotFound:  # deleted by the round before
        pass
    return interruption.raised


def places_of(store: PureStore, action: Action) -> list[int]:
    """The numbers of an operation's events: of each kind the first and the last one."""
    write(50_000)(store)
    whole = Interruption(0)
    with whole():
        action(store)
    found: dict[tuple[str, str, int], list[int]] = {}
    for number, event in enumerate(whole.events, 1):
        found.setdefault(event, []).append(number)
    return sorted({number for some in found.values() for number in (some[0], some[-1])})


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_interruption_anywhere_leaves_no_lock(used: PureStore, name: str) -> None:
    action = OPERATIONS[name]
    numbers = places_of(used, action)
    assert len(numbers) > 30
    came = 0
    for number in numbers:
        write(50_000)(used)  # so that it has something to free
        came += interrupted(used, action, number)
        assert_free(used)
    assert came > 0.9 * len(numbers)  # what was there before is not always quite the same


def test_an_interruption_of_whoever_puts_it_right_leaves_no_lock(used: PureStore) -> None:
    """The first comes where the lock is let go, before a line of that has run."""
    write(8)(used)
    whole = Interruption(0)
    with whole():
        write(8)(used)
    letting_go = [n for n, event in enumerate(whole.events, 1) if event[:2] == ("call", "let_go")]
    number, again = 1, True
    while again:
        assert interrupted(used, write(8), letting_go[-1])
        assert used.locks._notes.held
        again = interrupted(used, write(8), number)
        assert_free(used)
        number += 1
    assert number > 40


def test_what_was_broken_off_is_repaired_by_the_next(used: PureStore) -> None:
    """Interrupted in the midst of a commit, and again in the repair of that."""

    def step(label: str) -> None:
        if label in ("stripe.applying", "stripe.applied"):
            raise Interrupted

    with stepping(step), pytest.raises(Interrupted):
        write(50_000)(used)
    write(8)(used)
    assert_free(used)


def test_a_handler_that_uses_the_store_breaks_nothing(used: PureStore) -> None:
    """It runs within a call that goes on afterwards: those locks are no leftovers."""
    other = used.keys.place("t" if used.keys.place("t").stripe != place(used).stripe else "u")
    answers: list[str] = []

    def handler(label: str) -> None:
        if label != "allocator.applying" or answers:
            return
        answers.append("called")
        with pytest.raises(StoreBusy, match="this very thread"):
            used.raw.session(place(used))
        with pytest.raises(StoreBusy, match="this very thread"):
            used.locks.wait_until_unused()
        with pytest.raises(StoreBusy, match="this very thread"):
            hold(used)
        answers.append(str(used.raw.session_exists(other)))
        assert set(used.locks._notes.held) == {place(used).stripe, ALLOCATOR_LOCK}
        assert in_child(lambda: expect_busy(used, place(used).stripe)) == 0

    with stepping(handler):
        write(50_000)(used)
    assert answers == ["called", "False"]
    assert_free(used)


def expect_busy(store: PureStore, index: int) -> None:
    store.locks.timeout = 0.01
    with pytest.raises(StoreBusy), store.locks.exclusive(index):
        pass


def test_what_another_thread_holds_is_not_let_go(used: PureStore) -> None:
    """A note may be of a lock that was never taken."""
    held, done = threading.Event(), threading.Event()

    def other_thread() -> None:
        with used.locks.exclusive(1):
            held.set()
            done.wait()

    thread = threading.Thread(target=other_thread)
    thread.start()
    held.wait()
    used.locks._notes.held[1] = finished_frame()
    write(8)(used)
    assert used.locks._notes.held == {}
    assert in_child(lambda: expect_busy(used, 1)) == 0
    done.set()
    thread.join()
    assert_free(used)


def finished_frame() -> FrameType:
    return sys._getframe()


def test_closing_lets_go_what_was_left(used: PureStore) -> None:
    used.locks.exclusive(7).__enter__()
    used.locks._notes.held[7] = finished_frame()
    used.locks.wait_until_unused()
    assert used.locks._notes.held == {}
    assert_free(used)
