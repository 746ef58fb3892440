"""A job between two threads: order, back-pressure, and every way it can end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fix_timeouts import scaled

from snakepit_mp.errors import CodecError
from snakepit_mp.lanes.envelope import Kind, frame
from snakepit_mp.worker.job import Job, JobCancelled, JobRefused

FRAME = frame(Kind.CALL, 7, 1, b"")


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_the_header_is_read_and_nothing_else() -> None:
    assert Job(FRAME + b"noise").header.request_id == 7
    with pytest.raises(CodecError):
        Job(b"noise")


def test_replies_come_in_order(threads) -> None:
    job = Job(FRAME)
    received = threads.submit(lambda: list(job.frames()))
    for number in range(100):
        job.put(bytes([number]))
    job.finish(b"end")
    assert received.result(scaled(10)) == [*(bytes([n]) for n in range(100)), b"end"]


def test_result_waits_for_the_only_reply(threads) -> None:
    job = Job(FRAME)
    received = threads.submit(job.result)
    job.finish(b"reply")
    assert received.result(scaled(10)) == b"reply"


def fill(job: Job) -> int:
    count = 0
    while job.try_put(b"item"):
        count += 1
    return count


def test_the_buffer_is_bounded_and_a_reader_makes_room(threads) -> None:
    job = Job(FRAME)
    assert 1 <= fill(job) <= 16
    waiting = threads.submit(job.put, b"one more")
    frames = job.frames()
    next(frames)
    waiting.result(scaled(10))
    assert not job.try_put(b"full again")
    job.finish(b"never waits")
    assert list(frames)[-2:] == [b"one more", b"never waits"]


def test_cancel_wakes_the_tool_that_waits_for_room(threads) -> None:
    job = Job(FRAME)
    fill(job)
    waiting = threads.submit(job.put, b"one more")
    job.cancel()
    with pytest.raises(JobCancelled):
        waiting.result(scaled(10))


def test_cancel_wakes_the_server_that_waits_for_a_reply(threads) -> None:
    job = Job(FRAME)
    waiting = threads.submit(job.result)
    job.cancel()
    with pytest.raises(JobCancelled):
        waiting.result(scaled(10))


def test_after_cancel_nothing_goes_in_or_out() -> None:
    job = Job(FRAME)
    job.put(b"item")
    job.cancel()
    job.cancel()
    assert job.cancelled
    assert not job.try_put(b"item")
    with pytest.raises(JobCancelled):
        job.put(b"item")
    with pytest.raises(JobCancelled):
        job.result()
    job.finish(b"does not raise")


def test_refuse_wakes_the_server(threads) -> None:
    job = Job(FRAME)
    waiting = threads.submit(job.result)
    job.refuse()
    with pytest.raises(JobRefused):
        waiting.result(scaled(10))


def test_when_cancelled_is_called_once_by_cancel_or_at_once() -> None:
    calls = []
    job = Job(FRAME)
    job.when_cancelled(lambda: calls.append("first"))
    job.cancel()
    job.cancel()
    assert calls == ["first"]
    job.when_cancelled(lambda: calls.append("late"))
    assert calls == ["first", "late"]


def test_when_cancelled_can_be_taken_back() -> None:
    calls = []
    job = Job(FRAME)
    job.when_cancelled(lambda: calls.append("never"))
    job.when_cancelled(None)
    job.cancel()
    assert calls == []


@pytest.mark.parametrize("order", ["finish, cancel", "cancel, finish"])
def test_abandoned_is_called_once_in_either_order(order) -> None:
    calls: list[Job] = []
    job = Job(FRAME, abandoned=calls.append)
    for step in order.split(", "):
        assert calls == []
        job.finish(b"end") if step == "finish" else job.cancel()
    job.cancel()
    assert calls == [job]


def test_abandoned_is_called_once_when_both_happen_at_once(threads) -> None:
    for _ in range(100):
        calls: list[Job] = []
        job = Job(FRAME, abandoned=calls.append)
        barrier = threading.Barrier(2)

        def cancel(job=job, barrier=barrier) -> None:
            barrier.wait(scaled(10))
            job.cancel()

        done = threads.submit(cancel)
        barrier.wait(scaled(10))
        job.finish(b"end")
        done.result(scaled(10))
        assert calls == [job]


def test_a_finished_job_is_not_abandoned() -> None:
    calls: list[Job] = []
    job = Job(FRAME, abandoned=calls.append)
    assert not job.finished
    job.finish(b"end")
    assert job.finished
    assert job.result() == b"end"
    assert calls == []
