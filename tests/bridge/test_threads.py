"""Threads for RPCs: as many as are needed, no more than allowed, and daemons all."""

from __future__ import annotations

import threading

import pytest
from fix_timeouts import scaled

from snakepit_mp.bridge.threads import DaemonThreads


@pytest.fixture
def threads():
    threads = DaemonThreads(2, "test")
    yield threads
    threads.shutdown()


def test_results_and_errors(threads: DaemonThreads) -> None:
    assert threads.submit(pow, 2, 10).result(scaled(5)) == 1024
    assert threads.submit(int, "ff", base=16).result(scaled(5)) == 255
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result(scaled(5))


def test_they_are_daemons(threads: DaemonThreads) -> None:
    thread = threads.submit(threading.current_thread).result(scaled(5))
    assert thread.daemon
    assert thread.name.startswith("test-")


def test_no_more_than_allowed_and_what_is_over_waits(threads: DaemonThreads) -> None:
    both, gate = threading.Barrier(3), threading.Event()

    def block() -> int:
        both.wait(scaled(5))
        gate.wait(scaled(5))
        return threading.get_ident()

    blocked = [threads.submit(block) for _ in range(2)]
    both.wait(scaled(5))
    waiting = threads.submit(threading.get_ident)
    assert not waiting.done()
    gate.set()
    idents = {future.result(scaled(5)) for future in blocked}
    assert len(idents) == 2
    assert waiting.result(scaled(5)) in idents


def test_work_that_was_cancelled_is_not_done(threads: DaemonThreads) -> None:
    gate = threading.Event()
    blocked = [threads.submit(gate.wait, scaled(5)) for _ in range(2)]
    done = threading.Event()
    waiting = threads.submit(done.set)
    assert waiting.cancel()
    gate.set()
    assert [future.result(scaled(5)) for future in blocked] == [True, True]
    threads.submit(int).result(scaled(5))
    assert not done.is_set()


def test_shutdown_finishes_what_was_given(threads: DaemonThreads) -> None:
    gate = threading.Event()
    given = [threads.submit(gate.wait, scaled(5)) for _ in range(5)]
    threads.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        threads.submit(int)
    gate.set()
    assert all(future.result(scaled(5)) for future in given)
