"""Processes write and are killed at random moments; nothing is torn, lost or left locked."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator

import pytest
from fix_store import FORKS, assert_intact, small_store
from fix_timeouts import scaled

from snakepit_mp.errors import SessionNotFound, VariableExists, VariableNotFound
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS

WORKERS = 4
KILLS = 60
SESSIONS = ["a", "b"]
SIZES = (1, 6, 12, 200, 3000)


def sealed(writer: int, size: int) -> bytes:
    """A value in which a tear shows."""
    return b"%07d|" % writer * size


def assert_whole(value: bytes | memoryview) -> None:
    value = bytes(value)
    assert value == value[:8] * (len(value) // 8), "torn"


def work(store: SessionStore, seed: int) -> None:
    """Random operations for ever."""
    rng = random.Random(seed)
    store.after_fork()
    while True:
        session = rng.choice(SESSIONS)
        try:
            step(store, session, rng)
        except (SessionNotFound, VariableNotFound, VariableExists):
            pass


def step(store: SessionStore, session: str, rng: random.Random) -> None:
    value = sealed(rng.randrange(10**7), rng.choice(SIZES))
    choice = rng.random()
    if choice < 0.3:
        store.update_variable(session, "x", value)
    elif choice < 0.5:
        store.update_variables(session, {"left": value, "right": value})
    elif choice < 0.8:
        check(store, session)
    elif choice < 0.9:
        store.register_variable(session, rng.choice("pqr"), "any", value)
    elif choice < 0.97:
        store.delete_variable(session, rng.choice("pqr"))
    else:
        store.delete_session(session)
        prepare(store, session)


def check(store: SessionStore, session: str) -> None:
    assert_whole(store.get_value(session, "x"))
    pair = store.get_variables(session, ["left", "right"])
    assert pair["left"].value == pair["right"].value, "half a batch"
    for variable in store.list_variables(session):
        assert_whole(variable.value)


def prepare(store: SessionStore, session: str) -> None:
    store.create_session(session)
    for name in ("x", "left", "right"):
        store.register_variable(session, name, "any", sealed(0, 1), exist_ok=True)


def spawn(store: SessionStore, seed: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work(store, seed)
        except BaseException as error:  # noqa: BLE001  the end of the process
            os.write(2, f"worker: {error!r}\n".encode())
        finally:
            os._exit(1)
    return pid


@pytest.fixture
def store() -> Iterator[SessionStore]:
    with small_store() as made:
        made._locks.timeout = scaled(20)
        yield made


@pytest.mark.timeout(scaled(60))
def test_a_storm_of_kills(store: SessionStore) -> None:
    rng = random.Random(7)
    for session in SESSIONS:
        prepare(store, session)
    pids = [spawn(store, number) for number in range(WORKERS)]
    try:
        for kill in range(KILLS):
            time.sleep(rng.uniform(0.001, 0.02))  # a random moment, that is the point
            victim = rng.randrange(WORKERS)
            os.kill(pids[victim], signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(pids[victim], 0)[1]) == -signal.SIGKILL
            pids[victim] = spawn(store, WORKERS + kill)
            for session in SESSIONS:
                observe(store, session)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert_intact(store)
    for session in SESSIONS:
        prepare(store, session)
        check(store, session)
        store.delete_session(session)
    assert_intact(store)


def observe(store: SessionStore, session: str) -> None:
    """Nobody is blocked, nothing is torn; a session may be between delete and creation."""
    try:
        check(store, session)
    except (SessionNotFound, VariableNotFound):
        with contextlib.suppress(SessionNotFound):  # another one deletes it once more
            prepare(store, session)
