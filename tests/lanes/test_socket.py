"""The socket lane: whatever a caller or a worker leaves half done, the next one is not hurt."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
from fix_timeouts import scaled
from fix_worker import SocketWorker, wait_for

from snakepit_mp.lanes import packets
from snakepit_mp.lanes.envelope import Kind, decode_reply, encode_value
from snakepit_mp.lanes.envelope import frame as framed
from snakepit_mp.lanes.lane import LaneBroken, LaneTimeout
from snakepit_mp.lanes.packets import Packet, PacketKind, PacketReader
from snakepit_mp.lanes.socket import SocketLane
from snakepit_mp.runtime.watcher import Watcher

CALL = framed(Kind.CALL, 7, 1, b"")


@pytest.fixture
def worker(make_worker) -> SocketWorker:
    return make_worker("socket")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


class Pair:
    """A lane whose other end nobody serves but the test."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(scaled(10))
        self.reactor = Watcher("reactor", lambda error: None)
        self.reactor.start()
        self.lane = SocketLane(ours, self.reactor)
        self.reader = PacketReader()

    def heard(self) -> Packet:
        while (packet := self.reader.next()) is None:
            assert self.reader.receive(self.theirs)
        return packet

    def say(self, frame: bytes) -> None:
        self.theirs.sendall(Packet(PacketKind.FRAME, 0, frame).prefix() + frame)

    def begin(self, frame: bytes = CALL) -> Future[Any]:
        outcome: Future[Any] = Future()
        self.lane.begin(frame, outcome.set_result)
        return outcome

    def settled(self) -> None:
        """The reactor has done what it was asked for."""
        done = threading.Event()
        self.reactor.call(done.set)
        wait_for(done)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.lane.close()
    pair.settled()
    pair.reactor.stop()
    assert pair.reactor.join(scaled(10))
    pair.theirs.close()


@pytest.fixture
def byte_by_byte(monkeypatch) -> None:
    """Large frames cross as small ones do, as where no descriptors are left."""
    monkeypatch.setattr(packets, "_block_of", lambda frame: None)


def soon() -> float:
    return time.monotonic() + 0.05


# -- a caller that gives up ---------------------------------------------------------------


@pytest.mark.parametrize("way", ["as memory", "byte by byte"])
def test_a_long_reply_that_nobody_wants_any_more_holds_nobody_up(worker, way, request) -> None:
    if way == "byte by byte":
        request.getfixturevalue("byte_by_byte")
    with pytest.raises(LaneTimeout):
        worker.lane.call(worker.frame("wait_and_hoard", size=20_000_000), soon())
    worker.adapter.gate.set()
    for number in range(3):
        assert decode_reply(worker.lane.call(worker.frame("echo", value=number))).value == number


def test_a_reply_that_is_half_read_is_read_to_its_end(pair) -> None:
    reply = encode_value(7, bytes(100_000))
    packet = Packet(PacketKind.FRAME, 0, reply).prefix() + reply
    pair.theirs.sendall(packet[:50_000])
    with pytest.raises(LaneTimeout):
        pair.lane.call(CALL, soon())
    outcome = pair.begin(framed(Kind.CALL, 8, 1, b""))
    pair.theirs.sendall(packet[50_000:])
    pair.say(encode_value(8, "mine"))
    assert decode_reply(outcome.result(scaled(10))).value == "mine"


class Interrupted:
    """A socket on which the first ``send`` is interrupted when it has done its work."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.send = self._once

    def _once(self, data: memoryview) -> int:
        self.send = self.sock.send
        self.send(data)
        raise KeyboardInterrupt

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it may have been sent by half")
def test_an_interrupt_just_after_a_call_was_sent_leaves_the_lane_whole(pair, threads) -> None:
    pair.lane._socket = Interrupted(pair.lane._socket)
    with pytest.raises(KeyboardInterrupt):
        pair.lane.call(CALL)
    assert pair.heard().frame == CALL
    waiting = threads.submit(pair.lane.call, framed(Kind.CALL, 8, 1, b""))
    pair.heard()
    pair.say(encode_value(7, "late"))
    pair.say(encode_value(8, "mine"))
    assert decode_reply(waiting.result(scaled(10))).value == "mine"


def test_an_interrupt_within_a_long_call_breaks_the_lane(pair) -> None:
    pair.lane._socket = Interrupted(pair.lane._socket)
    with pytest.raises(KeyboardInterrupt):
        pair.lane.call(framed(Kind.CALL, 7, 1, bytes(1 << 16)))
    with pytest.raises(LaneBroken):
        pair.lane.call(CALL)


def test_a_late_reply_is_not_taken_for_the_next_one(pair, threads) -> None:
    with pytest.raises(LaneTimeout):
        pair.lane.call(CALL, soon())
    waiting = threads.submit(pair.lane.call, framed(Kind.CALL, 8, 1, b""))
    assert pair.heard().frame == CALL
    pair.heard()
    pair.say(encode_value(7, "late"))
    pair.say(encode_value(8, "mine"))
    assert decode_reply(waiting.result(scaled(10))).value == "mine"


def test_a_call_that_is_half_sent_breaks_the_lane(pair, byte_by_byte) -> None:
    """Nobody could make it whole, and the worker waits for the rest."""
    with pytest.raises(LaneTimeout, match="did not take"):
        pair.lane.call(framed(Kind.CALL, 7, 1, bytes(10_000_000)), soon())
    with pytest.raises(LaneBroken):
        pair.lane.call(CALL)


def test_a_long_call_that_is_begun_holds_up_nobody(pair, byte_by_byte) -> None:
    call = framed(Kind.CALL, 7, 1, bytes(10_000_000))
    outcome = pair.begin(call)
    pair.settled()
    assert not outcome.done()
    assert pair.heard().frame == call
    pair.say(encode_value(7, 1))
    assert decode_reply(outcome.result(scaled(10))).value == 1
    again = pair.begin(framed(Kind.CALL, 8, 1, b""))
    pair.say(encode_value(8, 2))
    assert decode_reply(again.result(scaled(10))).value == 2


def test_a_call_that_is_begun_is_sent_once_though_the_reactor_looks_in_between(
    pair, threads, monkeypatch
) -> None:
    looking: list[Future[None]] = []
    send_some = pair.lane.send_some

    def send_while_the_reactor_looks(rest: memoryview) -> memoryview:
        if not looking:
            looking.append(threads.submit(pair.lane._ready))
            wait(looking, timeout=0.1)
        return send_some(rest)

    monkeypatch.setattr(pair.lane, "send_some", send_while_the_reactor_looks)
    outcome = pair.begin()
    looking[0].result(scaled(10))
    pair.heard()
    pair.say(encode_value(7, 1))
    assert decode_reply(outcome.result(scaled(10))).value == 1
    assert pair.reader.next() is None
    pair.theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        pair.theirs.recv(1)


def test_a_stream_that_is_left_tells_so_and_gives_the_lane_back(pair, threads) -> None:
    frames = pair.lane.stream(CALL)
    pair.say(encode_value(7, 1, kind=Kind.ITEM))
    next(frames)
    assert [pair.heard().kind for _ in range(2)] == [PacketKind.FRAME, PacketKind.CREDIT]
    frames.close()
    frames.close()
    assert pair.heard() == Packet(PacketKind.CLOSE, 7)
    pair.say(encode_value(7, 2, kind=Kind.ITEM))
    waiting = threads.submit(pair.lane.call, framed(Kind.CALL, 8, 1, b""))
    pair.heard()
    pair.say(encode_value(8, "mine"))
    assert decode_reply(waiting.result(scaled(10))).value == "mine"
    with pytest.raises(LaneBroken, match="was closed"):
        next(frames)


# -- a worker that ends, or talks nonsense ------------------------------------------------


def test_a_reply_that_was_sent_before_the_end_counts(pair) -> None:
    pair.say(encode_value(7, "last words"))
    pair.theirs.shutdown(socket.SHUT_WR)
    assert decode_reply(pair.lane.call(CALL)).value == "last words"
    with pytest.raises(LaneBroken):
        pair.lane.call(CALL)


@pytest.mark.parametrize("way", ["call", "begin", "stream"])
def test_the_end_of_the_worker_is_noticed(pair, threads, way) -> None:
    if way == "begin":
        outcome = pair.begin()
        pair.theirs.close()
        assert isinstance(outcome.result(scaled(10)), LaneBroken)
        return
    run = pair.lane.call if way == "call" else lambda frame: next(pair.lane.stream(frame))
    waiting = threads.submit(run, CALL)
    pair.heard()
    pair.theirs.close()
    with pytest.raises(LaneBroken):
        waiting.result(scaled(10))


@pytest.mark.parametrize(
    "noise", [b"\x09" * 9, b"\1" + b"\xff" * 8, Packet(PacketKind.CREDIT, 7).prefix()]
)
@pytest.mark.parametrize("way", ["call", "begin"])
def test_noise_breaks_the_lane(pair, noise, way) -> None:
    pair.theirs.sendall(noise)
    if way == "begin":
        assert isinstance(pair.begin().result(scaled(10)), LaneBroken)
    else:
        with pytest.raises(LaneBroken):
            pair.lane.call(CALL)


def test_a_frame_that_is_no_reply_breaks_the_lane(pair) -> None:
    pair.say(b"noise")
    with pytest.raises(LaneBroken, match="what is no reply"):
        pair.lane.call(CALL)


#: A worker as a process, whose child lives on and has its socket.
WORKER = """
import os, socket, sys, time
from fix_worker import Context, Tools
from snakepit_mp.lanes.status import StatusPage
from snakepit_mp.worker.executor import Executor
from snakepit_mp.worker.socket_inbox import SocketInbox

if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
inbox = SocketInbox(socket.socket(fileno=int(sys.argv[1])))
Executor(Tools(), StatusPage.create(), context=Context, inbox=inbox).run()
"""


def test_a_real_process_answers_until_it_is_killed(pair, fake_main, threads) -> None:
    """A grandchild holds the socket, so that only `cancel` ends the wait."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    theirs = pair.theirs.fileno()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(theirs)],
        stdin=subprocess.PIPE,
        pass_fds=[theirs],
        env=environment,
    ) as process:
        frame_of = fake_main().frame
        reply = pair.lane.call(frame_of("echo", args=(process.pid,)))
        assert decode_reply(reply).value == process.pid
        frames = pair.lane.stream(frame_of("endless", 8, args=(1,), streaming=True))
        next(frames)
        frames.close()
        waiting = threads.submit(pair.lane.call, frame_of("wait", 9))
        process.send_signal(signal.SIGKILL)
        pair.lane.cancel()
        with pytest.raises(LaneBroken):
            waiting.result(scaled(10))
        assert process.stdin is not None
        process.stdin.close()


# -- descriptors --------------------------------------------------------------------------


def test_the_descriptor_is_closed_when_the_last_one_has_left(pair, threads) -> None:
    fd = pair.lane.fileno()
    waiting = threads.submit(pair.lane.call, CALL)
    pair.heard()
    pair.lane.close()
    with pytest.raises(LaneBroken):
        waiting.result(scaled(10))
    pair.settled()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("how", ["idle", "begun", "drained", "streamed"])
def test_closing_gives_everything_back(how) -> None:
    before = set(os.listdir("/proc/self/fd"))
    pair = Pair()
    if how == "begun":
        pair.begin()
    elif how == "drained":
        with pytest.raises(LaneTimeout):
            pair.lane.call(CALL, soon())
    elif how == "streamed":
        frames = pair.lane.stream(CALL)
        pair.say(encode_value(7, 1, kind=Kind.ITEM))
        next(frames)
        pair.lane.close()
        frames.close()
    pair.lane.close()
    pair.lane.close()
    pair.settled()
    pair.reactor.stop()
    assert pair.reactor.join(scaled(10))
    pair.theirs.close()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_lane_closed_after_its_reactor_gives_its_descriptor_back() -> None:
    pair = Pair()
    pair.reactor.stop()
    assert pair.reactor.join(scaled(10))
    fd = pair.lane.fileno()
    pair.lane.close()
    pair.theirs.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
