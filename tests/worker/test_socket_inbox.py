"""The main thread of a worker on a socket: all that may wake it, and how a job ends."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fix_timeouts import scaled

from snakepit_mp.errors import CodecError
from snakepit_mp.lanes.envelope import Kind, frame
from snakepit_mp.lanes.packets import ITEMS_AHEAD, Packet, PacketKind, PacketReader
from snakepit_mp.worker.job import JobCancelled
from snakepit_mp.worker.socket_inbox import SocketInbox, SocketJob


class Scene:
    """An inbox, and the application's end of its socket."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(scaled(10))
        self.inbox = SocketInbox(theirs)
        self.reader = PacketReader()

    def call(self, number: int = 7) -> SocketJob:
        self.say(Packet(PacketKind.FRAME, 0, frame(Kind.CALL, number, 1, b"")))
        job = self.inbox.get()
        assert isinstance(job, SocketJob)
        return job

    def say(self, packet: Packet) -> None:
        self.ours.sendall(packet.prefix() + packet.frame)

    def heard(self) -> bytes:
        while (packet := self.reader.next()) is None:
            assert self.reader.receive(self.ours)
        return packet.frame


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.inbox.close()
    scene.ours.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_a_call_and_its_reply(scene: Scene) -> None:
    job = scene.call()
    assert job.header.request_id == 7
    job.finish(b"reply")
    assert scene.heard() == b"reply"


def test_what_is_put_wakes_it_and_comes_first(scene: Scene, threads) -> None:
    waiting = threads.submit(scene.inbox.get)
    scene.inbox.put("stop")
    assert waiting.result(scaled(10)) == "stop"
    scene.say(Packet(PacketKind.FRAME, 0, frame(Kind.CALL, 7, 1, b"")))
    scene.inbox.put("first")
    assert scene.inbox.get() == "first"
    assert scene.inbox.get().header.request_id == 7


def test_more_wakes_than_the_pipe_holds(scene: Scene) -> None:
    for number in range(100_000):
        scene.inbox.put(number)
    assert [scene.inbox.get() for _ in range(100_000)] == list(range(100_000))


def test_the_end_of_the_lane_is_the_end(scene: Scene) -> None:
    scene.ours.close()
    assert scene.inbox.get() is None


def test_a_frame_that_is_no_call_is_not_run(scene: Scene) -> None:
    scene.say(Packet(PacketKind.FRAME, 0, b"noise"))
    with pytest.raises(CodecError):
        scene.inbox.get()


def test_a_stream_waits_for_credit(scene: Scene, threads) -> None:
    job = scene.call()
    for number in range(ITEMS_AHEAD):
        assert job.try_put(bytes([number]))
    assert not job.try_put(b"one too many")
    waiting = threads.submit(job.put, b"next")
    scene.say(Packet(PacketKind.CREDIT, 3))  # another's
    scene.say(Packet(PacketKind.CREDIT, 7))
    waiting.result(scaled(10))
    expected = [*(bytes([number]) for number in range(ITEMS_AHEAD)), b"next"]
    assert [scene.heard() for _ in expected] == expected


def test_a_stream_that_nobody_wants_any_more(scene: Scene, threads) -> None:
    job = scene.call()
    told = threading.Event()
    job.when_cancelled(told.set)
    for number in range(ITEMS_AHEAD):
        job.put(bytes([number]))
    waiting = threads.submit(job.put, b"next")
    scene.say(Packet(PacketKind.CLOSE, 7))
    with pytest.raises(JobCancelled):
        waiting.result(scaled(10))
    assert told.is_set()
    job.finish(b"end")
    assert scene.inbox.get() is job  # to be told as abandoned
    assert job.finished


def test_a_close_that_comes_after_the_end_is_told_as_well(scene: Scene) -> None:
    job = scene.call()
    job.put(b"item")
    job.finish(b"end")
    scene.say(Packet(PacketKind.CLOSE, 7))
    assert scene.inbox.get() is job


def test_the_next_call_that_comes_while_one_ends_is_kept(scene: Scene) -> None:
    job = scene.call()
    job.put(b"item")
    scene.say(Packet(PacketKind.FRAME, 0, frame(Kind.CALL, 8, 1, b"")))
    job.finish(b"end")
    assert scene.inbox.get().header.request_id == 8


def test_the_end_of_the_lane_ends_a_stream(scene: Scene) -> None:
    job = scene.call()
    for number in range(ITEMS_AHEAD):
        job.put(bytes([number]))
    scene.ours.close()
    with pytest.raises(JobCancelled):
        job.put(b"next")
    assert scene.inbox.get() is None


def test_whether_it_is_cancelled_may_be_asked_while_another_thread_waits(
    scene: Scene, threads
) -> None:
    job = scene.call()
    for number in range(ITEMS_AHEAD):
        job.put(bytes([number]))
    waiting = threads.submit(job.put, b"next")
    while not scene.inbox._reading.locked():
        os.sched_yield()
    assert not threads.submit(lambda: job.cancelled).result(scaled(10))
    scene.say(Packet(PacketKind.CREDIT, 7))
    waiting.result(scaled(10))


def test_a_refused_call_ends_the_lane(scene: Scene) -> None:
    scene.call().refuse()
    assert scene.ours.recv(1) == b""
