"""A small session store for a test, which is checked to the last block when the test ends."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from snakepit_mp.config import StoreConfig
from snakepit_mp.store import crashpoints
from snakepit_mp.store.session_store import SessionStore

__all__ = ["FORKS", "assert_intact", "in_child", "kill_at_step", "small_store", "store", "tidied"]

#: For tests that fork: their process may have threads of the test runner or of NumPy.
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def small_store(**settings: Any) -> SessionStore:
    """A store that may use 16 MiB, unless told otherwise."""
    settings.setdefault("max_bytes", 16 << 20)
    return SessionStore(StoreConfig(**settings))


def tidied(store: SessionStore) -> SessionStore:
    """The same when all that was left behind has been put away."""
    store.cleanup_expired_sessions()
    return store


def assert_intact(store: SessionStore) -> None:
    """Every page and block is accounted for."""
    assert tidied(store).verify() == []


def in_child(action: Callable[[], object]) -> int:
    """Run ``action`` in a forked process; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException:  # noqa: BLE001  the end of the process
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at_step(number: int, action: Callable[[], object]) -> int:
    """Run ``action`` in a forked process that kills itself at its ``number``-th step."""
    passed = 0

    def step(label: str) -> None:
        nonlocal passed
        passed += 1
        if passed == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def doomed() -> None:
        crashpoints.step = step
        action()

    return in_child(doomed)


@pytest.fixture
def store() -> Iterator[SessionStore]:
    with small_store() as made:
        yield made
        assert_intact(made)
