"""The watcher: descriptors, timers and handed-over functions, in one thread."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from fix_pool import until
from fix_timeouts import scaled

from snakepit_mp.runtime.watcher import Watcher, closing

Make = Callable[[], Watcher]


@pytest.fixture
def errors() -> queue.SimpleQueue[BaseException]:
    return queue.SimpleQueue()


@pytest.fixture
def watcher(errors: queue.SimpleQueue[BaseException]) -> Iterator[Watcher]:
    watcher = Watcher("watcher-under-test", errors.put)
    watcher.start()
    yield watcher
    watcher.stop()
    assert watcher.join(scaled(10))


def _get(answers: queue.SimpleQueue[str]) -> str:
    return answers.get(timeout=scaled(10))


def test_call_runs_in_the_watchers_thread(watcher: Watcher):
    seen: queue.SimpleQueue[bool] = queue.SimpleQueue()

    watcher.call(lambda: seen.put(watcher.here()))

    assert seen.get(timeout=scaled(10))
    assert not watcher.here()


def test_timers_run_in_order_of_their_time(watcher: Watcher):
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start() -> None:
        watcher.after(0.02, lambda: seen.put("later"))
        watcher.after(0.0, lambda: seen.put("now"))
        watcher.after(0.01, lambda: seen.put("soon"))

    watcher.call(start)

    assert [_get(seen) for _ in range(3)] == ["now", "soon", "later"]


def test_cancelled_timer_does_not_run(watcher: Watcher):
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start() -> None:
        watcher.after(0.0, lambda: seen.put("cancelled")).cancel()
        watcher.after(0.01, lambda: seen.put("kept"))

    watcher.call(start)

    assert _get(seen) == "kept"
    assert seen.empty()


def test_many_cancelled_timers_are_forgotten(watcher: Watcher):
    timers = [watcher.after(1000.0, lambda: None) for _ in range(2000)]

    for timer in timers:
        timer.cancel()
        timer.cancel()

    done = threading.Event()
    watcher.call(done.set)
    assert done.wait(scaled(10))
    until(lambda: len(watcher._timers) < 600)


def test_readable_descriptor_calls_back_until_released(watcher: Watcher):
    seen: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    read, write = os.pipe()
    watcher.watch(read, lambda: seen.put(os.read(read, 1)))
    os.write(write, b"ab")
    assert [seen.get(timeout=scaled(10)) for _ in range(2)] == [b"a", b"b"]

    done = threading.Event()
    watcher.release(read, closing(read))
    watcher.call(done.set)
    assert done.wait(scaled(10))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read)
    os.close(write)


def test_writable_descriptor_calls_back_until_it_is_watched_for_reading_only(watcher: Watcher):
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()
    ours, theirs = socket.socketpair()

    def writable() -> None:
        watcher.watch(ours.fileno(), lambda: seen.put(f"readable {ours.recv(1)!r}"))
        seen.put("writable")

    watcher.watch(ours.fileno(), writable, writing=True)
    assert _get(seen) == "writable"
    theirs.send(b"a")
    while (last := _get(seen)) == "writable":
        pass

    assert last == "readable b'a'"
    done = threading.Event()
    watcher.release(ours.fileno(), ours.close)
    watcher.call(done.set)
    assert done.wait(scaled(10))
    theirs.close()


def test_release_after_the_end_closes_at_once():
    watcher = Watcher("test", lambda error: None)
    watcher.close()
    closed = threading.Event()
    watcher.release(0, closed.set)
    assert closed.is_set()


def test_callback_may_release_another_of_the_same_round(watcher: Watcher):
    pipes = [os.pipe() for _ in range(2)]
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()

    def readable(number: int) -> None:
        seen.put(str(number))
        for read, _ in pipes:
            watcher._unregister(read, lambda: None)

    def start() -> None:
        for number, (read, write) in enumerate(pipes):
            watcher._register(read, lambda number=number: readable(number))
            os.write(write, b"x")

    watcher.call(start)
    _get(seen)
    done = threading.Event()
    watcher.call(done.set)

    assert done.wait(scaled(10))
    assert seen.empty()
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_time_beyond_the_reach_of_the_kernels_timers(watcher: Watcher):
    timer = watcher.after(1e9, lambda: None)
    done = threading.Event()
    watcher.call(done.set)

    assert done.wait(scaled(10))
    timer.cancel()


def test_what_was_handed_over_before_the_stop_still_runs():
    seen: list[int] = []
    watcher = Watcher("watcher-under-test", lambda error: None)
    for number in range(3):
        watcher.call(lambda number=number: seen.append(number))
    watcher.stop()

    watcher.start()

    assert watcher.join(scaled(10))
    assert seen == [0, 1, 2]
    watcher.call(lambda: None)  # to nobody, but harmless


def test_error_in_a_callback_is_told_and_ends_the_thread(errors):
    watcher = Watcher("watcher-under-test", errors.put)
    watcher.start()

    watcher.call(lambda: [][0])

    assert isinstance(errors.get(timeout=scaled(10)), IndexError)
    assert watcher.join(scaled(10))
