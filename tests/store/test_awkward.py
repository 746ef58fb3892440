"""What happens at the worst moment: to threads, to forks, to full stores, beside stopped processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from fix_store import FORKS, assert_intact, in_child, small_store, stepping
from fix_timeouts import scaled

from snakepit_mp import _accel
from snakepit_mp.config import StoreConfig
from snakepit_mp.errors import (
    SnakepitError,
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreFull,
    VariableNotFound,
    VariableTypeError,
)
from snakepit_mp.session import Session
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS

compiled = pytest.mark.skipif(
    not hasattr(_accel.speedups, "RawStore"), reason="the pure twin locks for reading"
)
LONG = 5000


@pytest.fixture
def session(store: SessionStore) -> Session:
    store.create_session("s")
    return Session(store, "s")


@contextmanager
def standing_still(store: SessionStore, label: str, action: Callable[[], object]) -> Iterator[None]:
    """Another process has come to that step of an action, and no further."""
    reached, reach = os.pipe()
    resume, go = os.pipe()

    ahead = [label]

    def step(passed: str) -> None:
        if passed in ahead:
            ahead.clear()
            os.write(reach, b"!")
            os.read(resume, 1)

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store.after_fork()
            with stepping(step):
                action()
            status = 0
        finally:
            os._exit(status)
    try:
        os.read(reached, 1)
        yield
    finally:
        os.write(go, b"!")
        os.waitpid(pid, 0)
        for descriptor in (reached, reach, resume, go):
            os.close(descriptor)


def all_of(*actions: Callable[[], object]) -> list[BaseException]:
    """Run them in threads that start together; what they raised."""
    raised: list[BaseException] = []
    together = threading.Barrier(len(actions))

    def run(action: Callable[[], object]) -> None:
        together.wait()
        try:
            action()
        except BaseException as error:  # noqa: BLE001  handed to the test
            raised.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(30))
    return raised


def test_a_name_that_was_an_id_is_a_name(session: Session) -> None:
    session["x"] = 1
    name = session.get_variable("x").id
    assert session[name] == 1
    session.register_variable(name, "string", "another")
    assert session[name] == "another"
    session[name] = "new"
    assert (session[name], session["x"]) == ("new", 1)


@pytest.mark.parametrize("number", ["9" * 23, "9" * 5000, "02", "-1"])
def test_what_looks_nearly_like_an_id(session: Session, number: str) -> None:
    session["x"] = 1
    name = f"var_x_{number}"
    assert name not in session
    with pytest.raises(VariableNotFound):
        session[name]
    session[name] = 2
    assert session[name] == 2


def test_threads_that_look_at_long_values_for_the_first_time(store: SessionStore) -> None:
    names = [f"v{number}" for number in range(6)]

    def look() -> None:
        store.after_fork()
        found: dict[str, object] = {}
        keep = [lambda n=n: found.update({n: store.get_value("s", n)}) for n in names]
        assert all_of(*keep) == []
        for _ in range(4):
            for name in names:
                store.update_variable("s", name, np.full(LONG, -1.0))
        for number, name in enumerate(names):
            assert (found[name] == np.full(LONG, float(number))).all()

    store.create_session("s")
    for name in names:
        store.register_variable("s", name, "tensor", np.zeros(LONG))
    for _ in range(5):
        for number, name in enumerate(names):
            store.update_variable("s", name, np.full(LONG, float(number)))
        assert in_child(look) == 0


def test_close_beside_threads_that_sweep_and_look() -> None:
    for _ in range(5):
        store = small_store()
        store.create_session("s")
        store.register_variable("s", "x", "tensor", np.zeros(LONG))
        session = Session(store, "s")

        def again_and_again(action: Callable[[], object]) -> None:
            while True:
                action()

        raised = all_of(
            lambda: again_and_again(store.cleanup_expired_sessions),  # noqa: B023
            lambda: again_and_again(lambda: session["x"]),  # noqa: B023
            lambda: again_and_again(lambda: store.allocate(LONG)),  # noqa: B023
            store.close,
        )
        assert [type(error) for error in raised] == [StoreClosed] * 3


def test_a_variable_of_another_type_takes_no_value_checked_for_the_old_one(
    store: SessionStore, session: Session
) -> None:
    session["x"] = 1.0
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            try:
                session["x"] = 0.5
            except VariableTypeError:
                pass

    def exchange() -> None:
        for number in range(400):
            kind, value = ("string", "text") if number % 2 else ("float", 1.0)
            store.delete_variable("s", "x")
            try:
                store.register_variable("s", "x", kind, value)
            except SnakepitError:
                continue  # a writer was faster, with a float
            found = store.get_variable("s", "x")
            assert isinstance(found.value, str) == (found.type == "string")

    def until_done() -> None:
        try:
            exchange()
        finally:
            stop.set()

    assert all_of(write, write, until_done) == []


def test_an_array_that_a_child_stores_stays_when_the_parent_drops_its_own(
    store: SessionStore, session: Session
) -> None:
    arrays = [store.allocate(LONG)]
    arrays[0][:] = 1

    def store_it() -> None:
        store.after_fork()
        store.register_variable("s", "x", "tensor", arrays[0])

    assert in_child(store_it) == 0
    arrays.clear()
    session["y"] = np.full(LONG, 2.0)
    assert (session["x"] == 1).all()
    assert store.verify() == []


def test_a_handle_with_a_lower_limit_works_on_what_is_there(store: SessionStore) -> None:
    store.create_session("s")
    for number in range(40):
        store.register_variable("s", f"v{number}", "tensor", np.full(LONG, float(number)))
    config = StoreConfig(max_bytes=1 << 20)
    with SessionStore.attach(map(os.dup, store.descriptors()), config) as other:
        other.update_variable("s", "v39", np.zeros(10))
        other.delete_variable("s", "v38")
        assert other.get_value("s", "v37")[0] == 37
        other.delete_session("s")
        other.cleanup_expired_sessions()
        assert other.verify() == []


@compiled
def test_a_view_and_a_full_store_block_nobody(store: SessionStore) -> None:
    store.create_session("s")
    store.create_session("o")
    store.register_variable("s", "h", "tensor", np.zeros(1500), history=100)
    store.register_variable("s", "z", "float", 1.0)
    for number in range(101):
        store.update_variable("s", "h", np.full(1500, float(number)))
    view = store.get_value("s", "h")
    with contextlib.suppress(StoreFull):
        for number in itertools.count():
            store.register_variable("o", f"f{number}", "tensor", np.zeros(1500))
    store.delete_variable("s", "h")
    store.update_variable("s", "z", 2.0)
    assert store.verify() == []
    assert (view == 100).all()
    store.delete_session("o")
    store.cleanup_expired_sessions()
    assert store.stats().bytes_used < 1 << 20


@compiled
def test_nobody_waits_long_for_a_process_that_stands_still_among_the_pages(
    store: SessionStore, session: Session
) -> None:
    session["x"] = 1.0
    session["long"] = np.zeros(LONG)
    store._locks.timeout = 0.2
    with standing_still(store, "allocator.entered", lambda: store.allocate(LONG)):
        assert session["long"][0] == 0
        session["x"] = 2.0  # takes no page
        with pytest.raises(StoreBusy, match="lock 256"):
            session["long"] = np.ones(LONG)
    session["long"] = np.ones(LONG)
    assert_intact(store)


@compiled
@pytest.mark.parametrize("label", ["stripe.entered", "stripe.applying", "stripe.left"])
def test_readers_go_on_beside_a_stopped_writer(
    store: SessionStore, session: Session, label: str
) -> None:
    store.create_session("t", ttl=0.2)
    there = Session(store, "t")
    there["x"], there["y"] = 1.0, 1.0

    def write() -> None:
        there["y"] = 2.0

    with standing_still(store, label, write):
        done = store.watch("s", timeout=0.5)  # a stretch of time in which nothing happens
        looks = threading.Thread(target=lambda: list(done))
        looks.start()
        while looks.is_alive():  # much longer than the TTL
            assert there["x"] == 1.0
            assert there["y"] in (1.0, 2.0)
            assert {v.name for v in store.list_variables("t")} == {"x", "y"}
    assert there["y"] == 2.0


@compiled
def test_a_zombie_is_dead(store: SessionStore, session: Session) -> None:
    session["x"] = np.zeros(LONG)
    pid = os.fork()
    if pid == 0:
        store.after_fork()
        kept = [session["x"], store.allocate(LONG)]
        os._exit(len(kept) - 2)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # over, and not reaped
    session["x"] = np.ones(LONG)
    before = store.stats().bytes_used
    assert store.stats().processes == 2
    store.cleanup_expired_sessions()
    assert store.stats().processes == 1
    assert store.stats().bytes_used < before
    os.waitpid(pid, 0)


def test_a_refused_write_is_a_use_all_the_same(store: SessionStore) -> None:
    store._freeze_clock(0)
    store.create_session("t", ttl=10)
    store.register_variable("t", "x", "float", 1.0)
    refused: list[Callable[[], object]] = [
        lambda: store.update_variable("t", "x", 2.0, expected_version=7),
        lambda: store.register_variable("t", "x", "float", 2.0),
        lambda: store.delete_variable("t", "y"),
    ]
    for number, write in enumerate(refused, start=1):
        store._freeze_clock(number * 6 * 10**9)
        with pytest.raises(StoreError):
            write()
    assert store.exists("t")


def test_every_call_of_a_closed_store_says_so() -> None:
    store = small_store()
    store.create_session("s")
    session = Session(store, "s")
    session["x"] = 1.0
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: session["x"],
        lambda: session.__setitem__("x", 2.0),
        lambda: session.get_values(["x"]),
        lambda: session.update_variables({"x": 2.0}),
        lambda: store.touch_session("s"),
        lambda: store.note_worker("s", 1),
        lambda: store.exists("s"),
        lambda: store.list_sessions(),
        lambda: store.cleanup_expired_sessions(),
        lambda: store.watch("s"),
        lambda: store.allocate(LONG),
        lambda: store.verify(),
        lambda: store.stats(),
    ]
    for call in calls:
        with pytest.raises(StoreClosed):
            call()


@pytest.mark.parametrize("alone", [True, False], ids=["the last user", "one of two"])
@pytest.mark.parametrize("kind", ["allocate", "read"])
@compiled
def test_a_store_closed_while_a_process_takes_its_slot_says_so(kind: str, alone: bool) -> None:
    """Taking a slot reads files, which lets other threads run."""
    other = small_store()
    other.create_session("s")
    other.register_variable("s", "x", "bytes", bytes(1 << 16))
    store = SessionStore.attach(map(os.dup, other.descriptors()), other.config)
    store._raw.after_fork()
    store._locks.process = None
    if alone:
        other.close()

    real = _accel.speedups._started

    def started(pid: int) -> int:
        store.close()
        return real(pid)

    with mock.patch.object(_accel.speedups, "_started", started), pytest.raises(StoreClosed):
        store.allocate((1 << 16,), "u1") if kind == "allocate" else store.get_value("s", "x")
    other.close()


def test_close_waits_for_whoever_holds_everything(store: SessionStore) -> None:
    other = SessionStore.attach(map(os.dup, store.descriptors()), store.config)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with other._raw.hold():
            entered.set()
            assert leave.wait(scaled(10))

    holds = threading.Thread(target=hold)
    holds.start()
    assert entered.wait(scaled(10))
    closes = threading.Thread(target=other.close)
    closes.start()
    closes.join(0.2)
    assert closes.is_alive()  # not under the other's feet
    leave.set()
    holds.join(scaled(10))
    closes.join(scaled(10))
    assert not closes.is_alive()
    assert store.verify() == []
