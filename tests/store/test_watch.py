"""A watcher sees every change once, of whoever made it, and sleeps in between."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
from fix_store import FORKS, in_child, stepping
from fix_timeouts import scaled

from snakepit_mp.errors import ConfigError, SessionNotFound
from snakepit_mp.store.session_store import SessionStore
from snakepit_mp.store.watch import Change, Watch

pytestmark = FORKS


@pytest.fixture(autouse=True)
def session(store: SessionStore) -> None:
    store.create_session("s")
    for name in ("x", "y"):
        store.register_variable("s", name, "integer", 0)


def seen(watch: Watch) -> list[tuple[Any, ...]]:
    """All that has changed until now, of a watch that does not wait."""
    return [tuple(change) for change in watch]


def now(store: SessionStore, *names: str) -> Watch:
    return store.watch("s", names or None, timeout=0)


def test_nothing_that_was_before_is_a_change(store: SessionStore) -> None:
    store.update_variable("s", "x", 1)
    assert seen(now(store)) == []


def test_a_change_has_name_version_and_value(store: SessionStore) -> None:
    watch = store.watch("s", ["x"])
    store.update_variable("s", "x", 5)
    change = next(watch)
    assert isinstance(change, Change)
    assert change == ("x", 2, 5, False)


def test_only_the_wanted_ones_are_told(store: SessionStore) -> None:
    watch = now(store, "x")
    store.update_variables("s", {"x": 1, "y": 1})
    assert seen(watch) == [("x", 2, 1, False)]


def test_without_names_all_are_told(store: SessionStore) -> None:
    watch = now(store)
    store.update_variables("s", {"x": 1, "y": 2})
    store.register_variable("s", "z", "string", "new")
    store.put_program("s", "p", "no variable")
    assert seen(watch) == [("x", 2, 1, False), ("y", 2, 2, False), ("z", 1, "new", False)]


def test_several_changes_of_one_variable_are_one(store: SessionStore) -> None:
    watch = now(store)
    for value in range(5):
        store.update_variable("s", "x", value)
    assert seen(watch) == [("x", 6, 4, False)]


def test_each_change_is_told_once(store: SessionStore) -> None:
    watch = store.watch("s")
    for value in (1, 2, 3):
        store.update_variable("s", "x", value)
        assert next(watch).value == value


def test_a_deletion_is_told(store: SessionStore) -> None:
    watch = now(store)
    store.update_variable("s", "x", 1)
    store.delete_variable("s", "x")
    assert seen(watch) == [("x", 1, None, True)]


def test_one_that_comes_and_goes_unseen_is_not_told(store: SessionStore) -> None:
    watch = now(store)
    store.register_variable("s", "z", "integer", 1)
    store.delete_variable("s", "z")
    assert seen(watch) == []


def test_one_that_does_not_exist_yet_can_be_watched(store: SessionStore) -> None:
    watch = store.watch("s", ["z"])
    store.register_variable("s", "z", "integer", 1)
    assert next(watch) == ("z", 1, 1, False)


def test_another_of_the_same_name_is_a_change(store: SessionStore) -> None:
    watch = now(store, "x")
    store.delete_variable("s", "x")
    store.register_variable("s", "x", "string", "other")
    assert seen(watch) == [("x", 1, "other", False)]


def test_a_variable_answers_to_its_id(store: SessionStore) -> None:
    made = store.get_variable("s", "x")
    watch = store.watch("s", [made.id])
    store.update_variable("s", "x", 1)
    assert next(watch) == (made.id, 2, 1, False)


def test_a_name_that_looks_like_an_id_means_no_other(store: SessionStore) -> None:
    made = store.get_variable("s", "x")
    store.register_variable("s", made.id, "integer", 7)
    watch = now(store)
    store.delete_variable("s", made.id)
    assert seen(watch) == [(made.id, 1, None, True)]


def test_it_ends_after_a_while_without_a_change(store: SessionStore) -> None:
    watch = store.watch("s", timeout=0.01)
    store.update_variable("s", "x", 1)
    assert next(watch).name == "x"
    assert list(watch) == []
    store.update_variable("s", "x", 2)
    assert list(watch) == []  # it has ended


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
def test_a_wrong_time_is_refused(store: SessionStore, timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        store.watch("s", timeout=timeout)


def test_the_end_of_the_session_is_an_error(store: SessionStore) -> None:
    with pytest.raises(SessionNotFound):
        store.watch("nope")
    watch = store.watch("s")
    store.delete_session("s")
    for _ in range(2):
        with pytest.raises(SessionNotFound):
            next(watch)


def test_a_watched_session_is_in_use(store: SessionStore) -> None:
    store._freeze_clock(10**9)
    store.create_session("t", ttl=10)
    store._freeze_clock(10 * 10**9)
    watch = store.watch("t", timeout=0)
    store._freeze_clock(19 * 10**9)
    assert seen(watch) == []
    store._freeze_clock(28 * 10**9)
    assert store.exists("t")
    store._freeze_clock(30 * 10**9)
    assert not store.exists("t")


def wait_in_thread(watch: Watch) -> tuple[threading.Thread, list[Any]]:
    """Wait for the next change; the first outcome says that the thread is about to."""
    outcomes: list[Any] = []
    started = threading.Event()

    def wait() -> None:
        started.set()
        try:
            outcomes.append(next(watch))
        except SessionNotFound as error:
            outcomes.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    return thread, outcomes


def test_a_change_by_another_process_wakes_the_watcher(store: SessionStore) -> None:
    thread, outcomes = wait_in_thread(store.watch("s", timeout=scaled(20)))
    assert in_child(lambda: store.update_variable("s", "y", 9)) == 0
    thread.join()
    assert outcomes == [("y", 2, 9, False)]


def test_the_end_of_the_session_wakes_the_watcher(store: SessionStore) -> None:
    thread, outcomes = wait_in_thread(store.watch("s"))
    assert in_child(lambda: store.delete_session("s")) == 0
    thread.join()
    assert isinstance(outcomes[0], SessionNotFound)


@pytest.mark.parametrize("label", ["stripe.committed", "stripe.applied", "stripe.cleared"])
def test_a_writer_that_was_killed_before_it_rang_is_noticed(
    store: SessionStore, label: str
) -> None:
    thread, outcomes = wait_in_thread(store.watch("s", timeout=scaled(20)))

    def die(reached: str) -> None:
        if reached == label:
            os.kill(os.getpid(), signal.SIGKILL)

    def write() -> None:
        with stepping(die):
            store.update_variable("s", "x", 3)

    assert in_child(write) == -signal.SIGKILL
    thread.join()
    assert outcomes == [("x", 2, 3, False)]


def test_many_watchers_see_the_same(store: SessionStore) -> None:
    waiting = [wait_in_thread(store.watch("s", timeout=scaled(20))) for _ in range(5)]
    store.update_variable("s", "x", 1)
    for thread, outcomes in waiting:
        thread.join()
        assert outcomes == [("x", 2, 1, False)]
