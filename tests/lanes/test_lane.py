"""What every lane promises: every wait ends, and only in ways that are ours."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from fix_timeouts import scaled
from fix_worker import wait_for

from snakepit_mp.errors import CodecError
from snakepit_mp.lanes import grpc as grpc_lane
from snakepit_mp.lanes import socket as socket_lane
from snakepit_mp.lanes.envelope import Kind, decode_reply
from snakepit_mp.lanes.lane import LaneBroken, LaneTimeout


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def soon() -> float:
    return time.monotonic() + 0.05


def far() -> float:
    return time.monotonic() + scaled(60)


@pytest.mark.parametrize("deadline", [None, "far"])
def test_call(worker, deadline) -> None:
    at = far() if deadline else None
    assert decode_reply(worker.lane.call(worker.frame("echo", value=3), at)).value == 3


def test_an_error_is_a_reply_like_any(worker) -> None:
    error = decode_reply(worker.lane.call(worker.frame("fail", text="x"))).error
    assert isinstance(error, ValueError)
    assert "in fail" in str(error.__cause__)


def test_messages_above_the_usual_limit(worker) -> None:
    value = bytes(5 << 20)
    assert decode_reply(worker.lane.call(worker.frame("echo", value=value))).value == value


def test_a_deadline_ends_the_wait_but_not_the_lane(worker) -> None:
    with pytest.raises(LaneTimeout):
        worker.lane.call(worker.frame("wait"), soon())
    worker.adapter.gate.set()
    assert decode_reply(worker.lane.call(worker.frame("echo", value=3))).value == 3


def test_a_deadline_that_has_passed_sends_nothing(worker) -> None:
    with pytest.raises(LaneTimeout):
        worker.lane.call(worker.frame("echo", value=3), time.monotonic())
    assert decode_reply(worker.lane.call(worker.frame("echo", value=4))).value == 4
    assert [note[0] for note in worker.main.status.notes].count("taken") == 1


def test_an_interrupt_ends_the_wait_in_the_main_thread(worker) -> None:
    """As Ctrl-C does: the signal comes while the call waits."""

    def interrupt() -> None:
        wait_for(worker.adapter.entered)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            worker.lane.call(worker.frame("wait"))
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    worker.adapter.gate.set()
    assert decode_reply(worker.lane.call(worker.frame("echo", value=3))).value == 3


def begin(worker, frame: bytes) -> Future[Any]:
    """The outcome as a future, which can be answered only once."""
    outcome: Future[Any] = Future()
    worker.lane.begin(frame, outcome.set_result)
    return outcome


def test_begin(worker) -> None:
    reply = begin(worker, worker.frame("echo", value=3)).result(scaled(10))
    assert decode_reply(reply).value == 3


def test_begin_does_not_wait(worker) -> None:
    outcome = begin(worker, worker.frame("wait"))
    wait_for(worker.adapter.entered)
    assert not outcome.done()
    worker.adapter.gate.set()
    assert decode_reply(outcome.result(scaled(10))).value == "done"


def test_begin_on_a_cancelled_lane(worker) -> None:
    worker.lane.cancel()
    assert isinstance(begin(worker, worker.frame("wait")).result(scaled(10)), LaneBroken)


@pytest.mark.parametrize("n", [0, 1, 100])
def test_stream(worker, n) -> None:
    frames = list(worker.lane.stream(worker.frame("count", streaming=True, n=n)))
    replies = [decode_reply(frame) for frame in frames]
    assert [reply.value for reply in replies[:-1]] == list(range(n))
    assert [reply.kind for reply in replies] == [Kind.ITEM] * n + [Kind.END]


def test_a_stream_that_fails(worker) -> None:
    frames = list(worker.lane.stream(worker.frame("fail_after", streaming=True, n=2)))
    assert [decode_reply(frame).kind for frame in frames] == [Kind.ITEM, Kind.ITEM, Kind.ERROR]
    assert isinstance(decode_reply(frames[-1]).error, ValueError)


def test_a_stream_is_sent_when_its_first_frame_is_asked_for(worker) -> None:
    worker.lane.stream(worker.frame("count", streaming=True, n=1)).close()
    assert worker.main.status.notes == []


def test_closing_a_stream_closes_the_tool(worker) -> None:
    frames = worker.lane.stream(worker.frame("endless", streaming=True, size=1))
    next(frames)
    frames.close()
    wait_for(worker.adapter.closed)
    wait_for(worker.main.told)
    assert worker.main.abandoned == [7]
    assert decode_reply(worker.lane.call(worker.frame("echo", value=3))).value == 3


def test_a_slow_consumer_holds_the_tool_back(worker) -> None:
    frames = worker.lane.stream(worker.frame("endless", streaming=True, size=1 << 20))
    for taken in range(1, 30):
        next(frames)
        assert worker.adapter.produced <= taken + 20
    frames.close()
    wait_for(worker.adapter.closed)


def test_cancel_wakes_a_call_at_once(worker, threads) -> None:
    waiting = threads.submit(worker.lane.call, worker.frame("wait"))
    wait_for(worker.adapter.entered)
    worker.lane.cancel()
    with pytest.raises(LaneBroken):
        waiting.result(scaled(5))


def test_cancel_wakes_a_begun_call(worker) -> None:
    outcome = begin(worker, worker.frame("wait"))
    wait_for(worker.adapter.entered)
    worker.lane.cancel()
    assert isinstance(outcome.result(scaled(5)), LaneBroken)


def test_cancel_wakes_a_stream(worker, threads) -> None:
    frames = worker.lane.stream(worker.frame("endless", streaming=True, size=1))
    next(frames)
    worker.lane.cancel()
    with pytest.raises(LaneBroken):
        list(frames)
    wait_for(worker.adapter.closed)


def test_a_closed_lane_is_broken(worker) -> None:
    worker.lane.close()
    worker.lane.close()
    with pytest.raises(LaneBroken):
        worker.lane.call(worker.frame("echo", value=3))


def test_close_wakes_who_waits(worker, threads) -> None:
    waiting = threads.submit(worker.lane.call, worker.frame("wait"))
    wait_for(worker.adapter.entered)
    worker.lane.close()
    with pytest.raises(LaneBroken):
        waiting.result(scaled(5))


def test_a_frame_too_large_is_the_callers_mistake(worker, monkeypatch) -> None:
    for module in (grpc_lane, socket_lane):
        monkeypatch.setattr(module, "MAX_FRAME", 100_000)
    frame = worker.frame("echo", value=bytes(100_000))
    with pytest.raises(CodecError, match="carries 100,000"):
        worker.lane.call(frame)
    with pytest.raises(CodecError):
        worker.lane.begin(frame, lambda outcome: pytest.fail("nothing was begun"))
    with pytest.raises(CodecError):
        worker.lane.begin_stream(frame, lambda outcome: pytest.fail("nothing was begun"))
    with pytest.raises(CodecError):
        next(worker.lane.stream(frame))
    assert worker.main.status.notes == []


def test_done_is_called_once_however_a_cancel_races(make_worker, lane_name) -> None:
    for _ in range(30):
        worker = make_worker(lane_name)
        calls: list[object] = []
        ended = threading.Event()

        def done(outcome, calls=calls, ended=ended) -> None:
            calls.append(outcome)
            ended.set()

        canceller = threading.Thread(target=worker.lane.cancel)
        worker.lane.begin(worker.frame("echo", value=1), done)
        canceller.start()
        canceller.join()
        wait_for(ended)
        worker.lane.close()
        assert len(calls) == 1


def test_a_stream_closed_by_another_thread_wakes_its_reader(worker, threads) -> None:
    frames = worker.lane.stream(worker.frame("wait_in_stream", streaming=True))
    assert decode_reply(next(frames)).value == 0
    waiting = threads.submit(next, frames)
    wait_for(worker.adapter.entered)
    frames.close()
    with pytest.raises(LaneBroken):
        waiting.result(scaled(5))
    worker.adapter.gate.set()
    wait_for(worker.main.told)
    assert decode_reply(worker.lane.call(worker.frame("echo", value=3))).value == 3


# -- begin_stream -------------------------------------------------------------------------


class Brought:
    """What a stream that was begun has brought."""

    def __init__(self, worker, frame: bytes) -> None:
        self._queue: queue.SimpleQueue[bytes | LaneBroken] = queue.SimpleQueue()
        self.stream = worker.lane.begin_stream(frame, self._queue.put)

    def next(self) -> Any:
        return self._queue.get(timeout=scaled(10))

    def nothing_more(self) -> bool:
        return self._queue.empty()


@pytest.mark.parametrize("n", [0, 1, 100])
def test_a_stream_that_is_begun_is_brought(worker, n) -> None:
    brought = Brought(worker, worker.frame("count", streaming=True, n=n))
    for number in range(n):
        assert decode_reply(brought.next()).value == number
        brought.stream.more()
    assert decode_reply(brought.next()).kind is Kind.END
    brought.stream.close()
    assert decode_reply(worker.lane.call(worker.frame("echo", value=3))).value == 3


def test_a_stream_that_is_begun_and_closed_stops_the_tool(worker) -> None:
    brought = Brought(worker, worker.frame("endless", streaming=True, size=1))
    brought.next()
    brought.stream.close()
    brought.stream.close()
    wait_for(worker.adapter.closed)
    wait_for(worker.main.told)
    assert worker.main.abandoned == [7]
    assert decode_reply(worker.lane.call(worker.frame("echo", value=3))).value == 3


def test_who_takes_nothing_of_a_begun_stream_holds_the_tool_back(worker) -> None:
    brought = Brought(worker, worker.frame("endless", streaming=True, size=1 << 20))
    for taken in range(1, 30):
        brought.next()
        brought.stream.more()
        assert worker.adapter.produced <= taken + 20
    brought.stream.close()
    wait_for(worker.adapter.closed)


def test_cancel_ends_a_begun_stream_once(worker) -> None:
    brought = Brought(worker, worker.frame("wait_in_stream", streaming=True))
    assert decode_reply(brought.next()).value == 0
    worker.lane.cancel()
    assert isinstance(brought.next(), LaneBroken)
    brought.stream.more()
    brought.stream.close()
    worker.adapter.gate.set()
    assert brought.nothing_more()


def test_a_stream_begun_on_a_cancelled_lane(worker) -> None:
    worker.lane.cancel()
    assert isinstance(
        Brought(worker, worker.frame("count", streaming=True, n=1)).next(), LaneBroken
    )


def test_calls_and_streams_and_begun_calls_take_turns(worker) -> None:
    for number in range(20):
        assert decode_reply(worker.lane.call(worker.frame("echo", value=number))).value == number
        items = list(worker.lane.stream(worker.frame("count", streaming=True, n=number)))
        assert len(items) == number + 1
        reply = begin(worker, worker.frame("echo", value=number)).result(scaled(10))
        assert decode_reply(reply).value == number
