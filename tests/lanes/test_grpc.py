"""The gRPC lane against a real server: every wait ends, and only in ways that are ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from fix_timeouts import scaled
from fix_worker import TOKEN, wait_for

from snakepit_mp.errors import CodecError
from snakepit_mp.lanes import grpc as grpc_lane
from snakepit_mp.lanes.envelope import Kind, decode_reply
from snakepit_mp.lanes.grpc import GrpcLane
from snakepit_mp.lanes.lane import LaneBroken, LaneTimeout


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def soon() -> float:
    return time.monotonic() + 0.05


def far() -> float:
    return time.monotonic() + scaled(60)


# -- call ---------------------------------------------------------------------------------


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


def test_calls_of_several_threads_do_not_mix(worker, threads) -> None:
    def echo(number: int) -> Any:
        return decode_reply(worker.lane.call(worker.frame("echo", value=number))).value

    assert list(threads.map(echo, range(50))) == list(range(50))


def test_a_deadline_ends_the_wait_but_not_the_lane(worker) -> None:
    with pytest.raises(LaneTimeout):
        worker.lane.call(worker.frame("wait"), soon())
    worker.adapter.gate.set()
    assert decode_reply(worker.lane.call(worker.frame("echo", value=3))).value == 3


def test_a_deadline_that_has_passed_sends_nothing(worker) -> None:
    with pytest.raises(LaneTimeout):
        worker.lane.call(worker.frame("echo", value=3), time.monotonic())
    assert decode_reply(worker.lane.call(worker.frame("echo", value=4))).value == 4
    assert [note for note in worker.main.status.notes if note[0] == "taken"] == [("taken", 7)]


def test_the_server_learns_that_a_call_was_given_up(worker) -> None:
    with pytest.raises(LaneTimeout):
        worker.lane.call(worker.frame("wait"), soon())
    worker.adapter.gate.set()
    worker.main.executor.stop()
    worker.main.thread.join(scaled(10))
    begun = time.monotonic()
    worker.server.stop(scaled(60))  # waits for handlers, and none is left
    assert time.monotonic() - begun < scaled(30)


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


# -- begin --------------------------------------------------------------------------------


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


def test_done_is_called_once_however_a_cancel_races(worker) -> None:
    for round_ in range(30):
        lane = worker.connect()
        calls: list[object] = []
        ended = threading.Event()

        def done(outcome, calls=calls, ended=ended) -> None:
            calls.append(outcome)
            ended.set()

        canceller = threading.Thread(target=lane.cancel)
        lane.begin(worker.frame("echo", value=round_), done)
        canceller.start()
        canceller.join()
        wait_for(ended)
        lane.close()
        assert len(calls) == 1


# -- stream -------------------------------------------------------------------------------


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


# -- the lane breaks ----------------------------------------------------------------------


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


def test_cancel_is_for_ever(worker) -> None:
    worker.lane.cancel()
    worker.lane.cancel()
    with pytest.raises(LaneBroken, match="was cancelled"):
        worker.lane.call(worker.frame("echo", value=3))
    with pytest.raises(LaneBroken, match="was cancelled"):
        next(worker.lane.stream(worker.frame("count", streaming=True, n=3)))
    other = worker.connect()
    assert decode_reply(other.call(worker.frame("echo", value=3))).value == 3


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


def test_a_channel_closed_between_look_and_call(worker) -> None:
    worker.lane._channel.close()
    with pytest.raises(LaneBroken, match="cannot be sent"):
        worker.lane.call(worker.frame("echo", value=3))


def test_nobody_listens(tmp_path) -> None:
    lane = GrpcLane(f"unix:{tmp_path}/nobody.sock", "token")
    frame = b"whatever"
    with pytest.raises(LaneBroken, match="UNAVAILABLE"):
        lane.call(frame, far())
    with pytest.raises(LaneBroken, match="UNAVAILABLE"):
        next(lane.stream(frame))
    lane.close()


def test_the_server_goes_away_under_a_call(worker, threads) -> None:
    waiting = threads.submit(worker.lane.call, worker.frame("wait"))
    wait_for(worker.adapter.entered)
    stopping = threads.submit(worker.server.stop, 0)
    with pytest.raises(LaneBroken):
        waiting.result(scaled(5))
    worker.adapter.gate.set()
    stopping.result(scaled(10))


#: A worker as a process: its main thread runs the executor, and it says when it serves.
WORKER = """
import sys
from fix_worker import TOKEN, Context, Tools
from snakepit_mp.lanes.status import StatusPage
from snakepit_mp.worker.executor import Executor
from snakepit_mp.worker.servicer import serve

executor = Executor(Tools(), StatusPage.create(), context=Context)
server = serve(executor, socket_path=sys.argv[1], token=TOKEN)
print(server.target, flush=True)
executor.run()
"""


def test_a_real_process_answers_until_it_is_killed(tmp_path, fake_main, threads) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", WORKER, str(tmp_path / "w.sock")]
    frame_of = fake_main().frame
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lane = GrpcLane(process.stdout.readline().strip(), TOKEN)
        reply = lane.call(frame_of("echo", args=(process.pid,)), far())
        assert decode_reply(reply).value == process.pid
        frames = lane.stream(frame_of("endless", args=(1,), streaming=True))
        next(frames)
        waiting = threads.submit(lane.call, frame_of("wait"))
        process.kill()
        with pytest.raises(LaneBroken):
            waiting.result(scaled(10))
        with pytest.raises(LaneBroken):
            list(frames)
        lane.close()


def test_the_wrong_token(worker) -> None:
    lane = worker.connect("guess")
    with pytest.raises(LaneBroken, match="UNAUTHENTICATED"):
        lane.call(worker.frame("echo", value=3))
    with pytest.raises(LaneBroken, match="UNAUTHENTICATED"):
        next(lane.stream(worker.frame("count", streaming=True, n=1)))
    assert worker.main.status.notes == []


def test_what_is_no_frame_breaks_the_lane(worker) -> None:
    with pytest.raises(LaneBroken, match="INVALID_ARGUMENT"):
        worker.lane.call(b"noise")


def test_a_stopping_worker_is_unavailable(worker) -> None:
    worker.main.executor.stop()
    worker.main.thread.join(scaled(10))
    with pytest.raises(LaneBroken, match="UNAVAILABLE: the worker is stopping"):
        worker.lane.call(worker.frame("echo", value=3))
    with pytest.raises(LaneBroken, match="UNAVAILABLE: the worker is stopping"):
        next(worker.lane.stream(worker.frame("count", streaming=True, n=1)))


def test_a_frame_too_large_is_the_callers_mistake(worker, monkeypatch) -> None:
    monkeypatch.setattr(grpc_lane, "MAX_FRAME", 1000)
    frame = worker.frame("echo", value=bytes(1000))
    with pytest.raises(CodecError, match="carries 1,000"):
        worker.lane.call(frame)
    with pytest.raises(CodecError):
        worker.lane.begin(frame, lambda outcome: pytest.fail("nothing was begun"))
    with pytest.raises(CodecError):
        next(worker.lane.stream(frame))
    assert worker.main.status.notes == []
