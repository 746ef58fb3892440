"""The store as a whole: shared, attached, inherited, full, busy, closed."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from fix_store import FORKS, PureStore, assert_intact, in_child, small_store
from fix_timeouts import scaled

from snakepit_mp.config import StoreConfig
from snakepit_mp.errors import StoreBusy, StoreClosed, StoreFull, StoreMismatch
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS


def fill(store: SessionStore, size: int) -> None:
    for number in itertools.count():
        store.register_variable("s", f"v{number}", "any", b"a" * size)


ATTACH = """
import sys
from snakepit_mp.config import StoreConfig
from snakepit_mp.store.session_store import SessionStore
store = SessionStore.attach(map(int, sys.argv[1:]), StoreConfig(max_bytes=16 << 20))
assert store.get_value("s", "x") == 1
store.update_variable("s", "x", 2)
store.close()
"""


def with_x(store: SessionStore) -> SessionStore:
    store.create_session("s")
    store.register_variable("s", "x", "integer", 1)
    return store


def test_a_forked_process_shares_the_store(store: SessionStore) -> None:
    with_x(store)

    def child() -> None:
        store.after_fork()
        assert store.get_value("s", "x") == 1
        store.update_variable("s", "x", 2)
        store.create_session("childs")
        store.close()

    assert in_child(child) == 0
    assert store.get_value("s", "x") == 2
    assert store.exists("childs")


def test_an_executed_process_attaches_by_descriptors(store: SessionStore) -> None:
    with_x(store)
    descriptors = store.descriptors()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ATTACH, *map(str, descriptors)],
        pass_fds=descriptors,
        timeout=scaled(30),
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert store.get_value("s", "x") == 2


def test_a_second_handle_in_one_process_is_excluded_too(store: SessionStore) -> None:
    with_x(store)
    other = SessionStore.attach(map(os.dup, store.descriptors()), store.config)
    store._locks.timeout = 0.01
    with store._raw.hold(), pytest.raises(StoreBusy):
        other.update_variable("s", "x", 2)
    store._locks.timeout = scaled(5)
    other.update_variable("s", "x", 2)
    other.close()
    assert store.get_value("s", "x") == 2
    # Its descriptors stay open with ours: to close them would have dropped our locks.
    assert in_child(lambda: store.update_variable("s", "x", 3)) == 0


def test_a_stranger_cannot_be_attached(tmp_path: Path) -> None:
    config = StoreConfig(max_bytes=1 << 20)
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 32 << 20)
    files = [os.open(tmp_path / "file", os.O_RDWR) for _ in range(2)]
    with pytest.raises(StoreMismatch, match="none"):
        SessionStore.attach(files, config)


def test_a_fork_while_threads_work_hurts_nobody(store: SessionStore) -> None:
    with_x(store)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            store.update_variable("s", "x", 1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(20):
            assert in_child(lambda: store.update_variable("s", "x", 2)) == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("size", [200, 1000, 9000, 200_000])
def test_a_full_store_says_so_and_is_intact(size: int) -> None:
    with small_store(max_bytes=1 << 20) as store:
        with_x(store)
        with pytest.raises(StoreFull, match="max_bytes is 1048576"):
            fill(store, size)
        count = len(store.list_variables("s", "v*"))
        assert count > 0
        assert_intact(store)
        assert all(v.value == b"a" * size for v in store.list_variables("s", "v*"))
        store.delete_variable("s", "v0")
        store.update_variable("s", "x", 2)
        assert store.delete_session("s") == count
        assert_intact(store)
        store.create_session("s")
        store.register_variable("s", "large", "any", b"a" * 900_000)


def test_a_batch_that_does_not_fit_changes_nothing() -> None:
    with small_store(max_bytes=1 << 20) as store:
        with_x(store)
        store.register_variable("s", "y", "any", b"")
        with pytest.raises(StoreFull):
            store.update_variables("s", {"x": 2, "y": b"a" * (2 << 20)})
        assert (store.get_value("s", "x"), store.get_value("s", "y")) == (1, b"")
        assert_intact(store)


def test_what_has_expired_makes_room_for_new_values() -> None:
    with small_store(max_bytes=1 << 20) as store:
        store._freeze_clock(10**9)
        store.create_session("old", ttl=5)
        store.register_variable("old", "x", "any", b"a" * 900_000)
        store._freeze_clock(11 * 10**9)
        store.create_session("new")
        store.register_variable("new", "x", "any", b"b" * 900_000)
        assert_intact(store)


def test_memory_does_not_grow_with_use(store: SessionStore) -> None:
    with_x(store)

    def taken() -> int:
        return os.fstat(store._segment.descriptor).st_blocks

    def round_of_use() -> None:
        store.update_variable("s", "x", 1)
        store.create_session("t")
        store.register_variable("t", "y", "any", np.zeros(20_000))
        store.update_variable("t", "y", [b"a" * 5000])
        store.delete_session("t")

    round_of_use()
    before = taken()
    for _ in range(50):
        round_of_use()
    assert taken() == before


def test_a_stopped_writer_makes_the_store_busy(store: SessionStore) -> None:
    with_x(store)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with store._raw.hold():
            os.write(writing, b"x")
            signal.pause()
    os.read(reading, 1)
    os.kill(pid, signal.SIGSTOP)
    store._locks.timeout = 0.05
    with pytest.raises(StoreBusy):
        store.update_variable("s", "x", 2)
    with pytest.raises(TimeoutError):
        store.create_session("t")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    store._locks.timeout = scaled(5)
    assert store.update_variable("s", "x", 2) == 2
    os.close(reading)
    os.close(writing)


def test_a_stopped_writer_makes_its_stripe_busy_and_no_other(pure: PureStore) -> None:
    place = pure.keys.place("s")
    pure.raw.create_session(place, 0, b"", True)
    names = map(str, range(99))
    other = next(p for p in map(pure.keys.place, names) if p.stripe != place.stripe)
    pure.locks.timeout = 0.05

    def elsewhere() -> None:
        for call in (pure.raw.session, pure.raw.touch):
            with pytest.raises(StoreBusy):
                call(place)
        pure.raw.create_session(other, 0, b"", True)

    with pure.raw._stripes.writing(place.stripe):
        assert in_child(elsewhere) == 0


def test_a_closed_store_says_so() -> None:
    store = with_x(small_store())
    store.close()
    store.close()
    for call in (
        lambda: store.get_value("s", "x"),
        lambda: store.create_session("t"),
        store.list_sessions,
        store.descriptors,
        store.start_sweeping,
        store.cleanup_expired_sessions,
    ):
        with pytest.raises(StoreClosed):
            call()
    assert repr(store) == "<SessionStore: closed>"


def test_closing_waits_for_calls_in_other_threads() -> None:
    store = with_x(small_store())
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while True:
                store.get_value("s", "x")
        except StoreClosed:
            pass
        except BaseException as error:  # noqa: BLE001  shown by the test
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    store.close()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_forgotten_store_is_closed() -> None:
    store = with_x(small_store())
    descriptors = store.descriptors()
    del store
    gc.collect()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_its_repr_tells_how_full_it_is(store: SessionStore) -> None:
    with_x(store)
    assert "1 sessions" in repr(store)
    assert "16,777,216 bytes" in repr(store)
