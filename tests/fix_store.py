"""A small session store for a test, which is checked to the last block when the test ends."""

from __future__ import annotations

import itertools
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from snakepit_mp import _accel
from snakepit_mp.config import StoreConfig
from snakepit_mp.store import crashpoints, verify
from snakepit_mp.store import segment as segments
from snakepit_mp.store.layout import FAMILY_LOCKED
from snakepit_mp.store.locks import LOCK_FILE_BYTES, LockFile
from snakepit_mp.store.places import Keys, Limits
from snakepit_mp.store.raw_store import PyRawStore, RawStore
from snakepit_mp.store.segment import Segment, anonymous_file
from snakepit_mp.store.session_store import SessionStore

__all__ = [
    "COMPILED",
    "FORKS",
    "PURE_ONLY",
    "PureStore",
    "assert_intact",
    "in_child",
    "kill_at_step",
    "pure",
    "seeded_store",
    "small_store",
    "stepping",
    "store",
    "tidied",
]

#: Whether `SessionStore` uses the compiled twin here.
COMPILED = RawStore is not PyRawStore

#: For tests that fork: their process may have threads of the test runner or of NumPy.
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

#: For tests of what only the pure twin does.
PURE_ONLY = pytest.mark.skipif(COMPILED, reason="of the pure twin alone; the compiled one is used")

_identities = itertools.count(1)


def small_store(**settings: Any) -> SessionStore:
    """A store that may use 16 MiB, unless told otherwise."""
    settings.setdefault("max_bytes", 16 << 20)
    return SessionStore(StoreConfig(**settings))


def seeded_store(**settings: Any) -> SessionStore:
    """The same with names that always have the same hashes, so that calls have the same steps."""

    def urandom(size: int) -> bytes:
        return next(_identities).to_bytes(8, "little") + bytes(range(size - 8))

    with mock.patch.object(segments.os, "urandom", urandom):
        return small_store(**settings)


def tidied(store: SessionStore) -> SessionStore:
    """The same when all that was left behind has been put away."""
    store.cleanup_expired_sessions()
    return store


def assert_intact(store: SessionStore) -> None:
    """Every page and block is accounted for."""
    assert store.verify() == []


@contextmanager
def stepping(step: Callable[[str], object]) -> Iterator[None]:
    """Call ``step`` at every label that is passed meanwhile."""
    report = getattr(_accel.speedups, "report_steps", lambda wanted: None)
    with mock.patch.object(crashpoints, "step", step):
        report(True)
        try:
            yield
        finally:
            report(False)


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
        with stepping(step):
            action()

    return in_child(doomed)


@dataclass
class PureStore:
    """The pure twin by itself, whichever one `SessionStore` uses."""

    segment: Segment
    locks: LockFile
    keys: Keys
    raw: PyRawStore

    @classmethod
    def make(cls, max_bytes: int = 16 << 20) -> PureStore:
        segment = Segment.create(max_bytes, FAMILY_LOCKED)
        descriptor = anonymous_file("locks", LOCK_FILE_BYTES)
        locks = LockFile.open(segment.identity, descriptor)
        raw = PyRawStore(segment, locks, Limits(max_bytes, 1000, 1000))
        keys = Keys(segment.seed)
        raw.create_session(keys.hidden_place(), 0, b"", True)
        return cls(segment, locks, keys, raw)

    def problems(self) -> list[str]:
        with self.raw.hold():
            return verify.problems(self.segment)

    def close(self) -> None:
        identity = self.segment.identity
        self.segment.close()
        self.locks.close(identity)


@pytest.fixture
def store() -> Iterator[SessionStore]:
    with small_store() as made:
        yield made
        assert_intact(made)


@pytest.fixture
def pure() -> Iterator[PureStore]:
    made = PureStore.make()
    yield made
    assert made.problems() == []
    made.close()
