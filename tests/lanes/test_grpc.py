"""The gRPC lane against a real server: what it has beyond the promises of every lane."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fix_timeouts import scaled
from fix_worker import TOKEN, GrpcWorker, wait_for

from snakepit_mp.lanes.envelope import decode_reply
from snakepit_mp.lanes.grpc import GrpcLane
from snakepit_mp.lanes.lane import LaneBroken, LaneTimeout


@pytest.fixture
def worker(make_worker) -> GrpcWorker:
    return make_worker("grpc")


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def soon() -> float:
    return time.monotonic() + 0.05


def far() -> float:
    return time.monotonic() + scaled(60)


def test_calls_of_several_threads_do_not_mix(worker, threads) -> None:
    def echo(number: int) -> Any:
        return decode_reply(worker.lane.call(worker.frame("echo", value=number))).value

    assert list(threads.map(echo, range(50))) == list(range(50))


def test_the_server_learns_that_a_call_was_given_up(worker) -> None:
    with pytest.raises(LaneTimeout):
        worker.lane.call(worker.frame("wait"), soon())
    worker.adapter.gate.set()
    worker.main.executor.stop()
    worker.main.thread.join(scaled(10))
    begun = time.monotonic()
    worker.server.stop(scaled(60))  # waits for handlers, and none is left
    assert time.monotonic() - begun < scaled(30)


def test_cancel_is_for_ever(worker) -> None:
    worker.lane.cancel()
    worker.lane.cancel()
    with pytest.raises(LaneBroken, match="was cancelled"):
        worker.lane.call(worker.frame("echo", value=3))
    with pytest.raises(LaneBroken, match="was cancelled"):
        next(worker.lane.stream(worker.frame("count", streaming=True, n=3)))
    other = worker.connect()
    assert decode_reply(other.call(worker.frame("echo", value=3))).value == 3


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
