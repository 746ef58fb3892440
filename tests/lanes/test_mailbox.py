"""The mailbox between two real processes: no wake-up is lost, no death slept through, and nothing
that the other side writes is believed."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from fix_timeouts import scaled
from fix_worker import wait_for

from snakepit_mp.lanes.envelope import Kind, decode_reply, encode_value
from snakepit_mp.lanes.envelope import frame as framed
from snakepit_mp.lanes.lane import LaneBroken, LaneTimeout
from snakepit_mp.lanes.mailbox import MailboxLane, mailbox_of, works_here
from snakepit_mp.lanes.packets import Packet, PacketKind
from snakepit_mp.lanes.status import Phase, StatusPage
from snakepit_mp.lanes.worker_file import MAILBOX_AT
from snakepit_mp.runtime.watcher import Watcher

if TYPE_CHECKING:
    from snakepit_mp._speedups import Mailbox

pytestmark = pytest.mark.skipif(not works_here(), reason="there is no mailbox without its part")

#: Answers every call with its own frame's number; says so when it begins.
ANSWERING = """
import sys
from snakepit_mp.lanes.envelope import encode_value, request_id_of
from snakepit_mp.lanes.mailbox import mailbox_of
mailbox = mailbox_of(int(sys.argv[1]), float(sys.argv[2]))
mailbox.own()
print("ready", flush=True)
while True:
    bell = mailbox.bell()
    if (frame := mailbox.take()) is None:
        mailbox.rest(bell)
    else:
        number = request_id_of(frame)
        mailbox.reply(number, encode_value(number, number))
"""

#: Owns the mailbox and never answers.
SILENT = """
import sys, time
from snakepit_mp.lanes.mailbox import mailbox_of
mailbox = mailbox_of(int(sys.argv[1]))
mailbox.own()
print("ready", flush=True)
while mailbox.take() is None:
    mailbox.rest(mailbox.bell())
print("taken", flush=True)
time.sleep(3600)
"""


def call_of(number: int) -> bytes:
    return framed(Kind.CALL, number, 1, b"")


class Pair:
    """A lane whose other end the test has, or a process that it starts."""

    def __init__(self, spin: float = 20.0) -> None:
        self.page = StatusPage.create()
        self.theirs = mailbox_of(self.page.fd)
        self.reactor = Watcher("reactor", lambda error: None)
        self.reactor.start()
        # The other end is here, so nobody's end is seen on it.
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(scaled(10))
        self.lane = MailboxLane(ours, self.reactor, mailbox_of(self.page.fd, spin))

    def taken(self) -> bytes:
        """The next frame, however it comes about."""
        until = time.monotonic() + scaled(10)
        while (frame := self.theirs.take()) is None:
            assert time.monotonic() < until, "no frame came"
            os.sched_yield()
        return frame

    def close(self) -> None:
        self.lane.close()
        done = threading.Event()
        self.reactor.call(done.set)
        wait_for(done)
        self.reactor.stop()
        assert self.reactor.join(scaled(10))
        self.socket.close()
        self.page.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


@pytest.fixture
def start(pair) -> Iterator:
    """Starts a process at the other end."""
    processes: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, str(pair.page.fd), *arguments]
        process = subprocess.Popen(
            command, pass_fds=[pair.page.fd], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def soon() -> float:
    return time.monotonic() + 0.05


# -- waiting ------------------------------------------------------------------------------


@pytest.mark.parametrize("spin", ["0", "20", "200"])
def test_no_wake_up_is_lost(pair, start, spin) -> None:
    """Each side sleeps, or not, at all moments that there are."""
    start(ANSWERING, spin)
    until = time.monotonic() + scaled(60)
    for number in range(1, 20_001):
        assert decode_reply(pair.lane.call(call_of(number), until)).value == number


def test_a_thread_that_is_not_the_main_one_waits_without_slices(pair, start, threads) -> None:
    start(ANSWERING, "0")
    until = time.monotonic() + scaled(60)

    def calls() -> int:
        return sum(
            decode_reply(pair.lane.call(call_of(number), until)).value for number in range(1, 2001)
        )

    assert threads.submit(calls).result(scaled(60)) == sum(range(1, 2001))


# -- death --------------------------------------------------------------------------------


@pytest.mark.parametrize("thread", ["main", "other"])
def test_the_workers_end_ends_the_wait_though_nobody_tells(pair, start, threads, thread) -> None:
    worker = start(SILENT)

    def kill() -> None:
        assert worker.stdout.readline() == "taken\n"
        worker.kill()

    def call() -> None:
        with pytest.raises(LaneBroken):
            pair.lane.call(call_of(7), time.monotonic() + scaled(30))

    killing = threads.submit(kill)
    if thread == "main":
        call()
    else:
        threads.submit(call).result(scaled(60))
    killing.result()


def test_a_call_to_one_that_is_dead_already(pair, start) -> None:
    worker = start(SILENT)
    worker.kill()
    worker.wait()
    with pytest.raises(LaneBroken):
        pair.lane.call(call_of(7), time.monotonic() + scaled(30))


def test_a_reply_that_was_its_last_deed_counts(pair, start) -> None:
    worker = start(SILENT)
    pair.theirs.reply(7, encode_value(7, "last"))
    worker.kill()
    worker.wait()
    # The call clears what was there before it; so the reply has to be written in between.
    lane = pair.lane
    answering = threading.Thread(
        target=lambda: pair.theirs.reply(7, encode_value(7, "last")) if pair.taken() else None
    )
    answering.start()
    try:
        assert decode_reply(lane.call(call_of(7))).value == "last"
    except LaneBroken:
        pass  # the death was seen first, and the reply was not there yet
    answering.join()


def test_where_nobody_owns_the_mailbox_it_is_buried(pair, threads) -> None:
    """As the watcher does where the kernel cannot wait for two words."""
    waiting = threads.submit(pair.lane.call, call_of(7))
    pair.taken()
    pair.lane.cancel()
    with pytest.raises(LaneBroken):
        waiting.result(scaled(10))


def test_a_cancelled_lane_takes_no_more_calls(pair) -> None:
    pair.lane.cancel()
    with pytest.raises(LaneBroken):
        pair.lane.call(call_of(7))


# -- calls that were given up ---------------------------------------------------------------


def test_a_call_that_was_given_up_makes_way_for_the_next(pair, threads) -> None:
    with pytest.raises(LaneTimeout):
        pair.lane.call(call_of(7), soon())
    waiting = threads.submit(pair.lane.call, call_of(8))  # over the socket, to keep the order
    assert pair.taken() == call_of(7)
    pair.theirs.reply(7, encode_value(7, "late"))
    reply = encode_value(8, "mine")
    pair.socket.sendall(Packet(PacketKind.FRAME, 0, reply).prefix() + reply)
    assert decode_reply(waiting.result(scaled(10))).value == "mine"


def test_a_reply_to_another_call_is_not_taken_for_this_one(pair, threads) -> None:
    waiting = threads.submit(pair.lane.call, call_of(8))
    pair.taken()
    pair.theirs.reply(7, encode_value(7, "late"))
    pair.theirs.reply(8, encode_value(8, "mine"))
    assert decode_reply(waiting.result(scaled(10))).value == "mine"


def test_an_interrupt_ends_the_wait_wherever_it_comes(pair, start) -> None:
    """Ctrl-C at any moment of a call, which leaves the lane as it should be."""
    start(ANSWERING, "20")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    number, interrupts = 0, 0
    until = time.monotonic() + scaled(60)
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.002):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    pair.socket.setblocking(False)
    try:
        thread.start()
        while interrupts < 20 and time.monotonic() < until:
            try:
                number += 1
                pair.lane.call(call_of(number), time.monotonic() + 0.02)
            except (KeyboardInterrupt, LaneTimeout):
                interrupts += 1
                pair.lane._watched = False  # what it left is not on the socket, as the test knows
    finally:
        while True:
            try:
                ended.set()
                thread.join()
                signal.signal(signal.SIGINT, before)
                break
            except KeyboardInterrupt:
                continue
    assert interrupts == 20
    number += 1
    assert decode_reply(pair.lane.call(call_of(number), until)).value == number


# -- frames that do not fit -----------------------------------------------------------------


def test_a_long_reply_comes_over_the_socket(pair, threads) -> None:
    waiting = threads.submit(pair.lane.call, call_of(7))
    pair.taken()
    reply = encode_value(7, bytes(1 << 17))
    assert not pair.theirs.reply(7, reply)
    pair.socket.sendall(Packet(PacketKind.FRAME, 0, reply).prefix() + reply)
    assert decode_reply(waiting.result(scaled(10))).value == bytes(1 << 17)


def test_the_longest_frames_that_fit(pair, threads) -> None:
    for size in ((1 << 16) - 24, 0):
        frame = framed(Kind.CALL, 7, 1, bytes(size))
        waiting = threads.submit(pair.lane.call, frame)
        assert pair.taken() == frame
        reply = framed(Kind.VALUE, 7, 1, bytes(size))
        assert pair.theirs.reply(7, reply)
        assert waiting.result(scaled(10)) == reply


def test_a_frame_that_was_taken_back_is_not_taken(pair) -> None:
    for number in (7, 8):
        with pytest.raises(LaneTimeout):
            pair.lane.call(call_of(number), soon())
        pair.lane._watched = False  # or the second would take the socket
    assert pair.taken() == call_of(8)
    assert pair.theirs.take() is None


# -- what the other side writes ---------------------------------------------------------------


def words(pair) -> memoryview:
    return memoryview(mmap.mmap(pair.page.fd, 4096, offset=MAILBOX_AT)).cast("Q")


def test_sizes_are_not_believed(pair, threads) -> None:
    """Every word of the first page but the two bells is set to something enormous."""
    page = words(pair)
    waiting = threads.submit(pair.lane.call, call_of(7))
    pair.taken()
    with_sizes = [at for at in range(len(page)) if at * 8 % 64 == 8]
    pair.theirs.reply(7, encode_value(7, "x"))
    for at in with_sizes:
        page[at] = 1 << 62
    try:
        waiting.result(scaled(10))
    except LaneBroken:
        pass  # what it read was no reply
    page.release()


def test_a_reply_that_is_none_breaks_the_lane(pair, threads) -> None:
    for nonsense in (b"", b"nonsense", encode_value(8, "of another")):
        waiting = threads.submit(pair.lane.call, call_of(7))
        pair.taken()
        pair.theirs.reply(7, nonsense)
        with pytest.raises(LaneBroken):
            waiting.result(scaled(10))


@pytest.mark.skipif(sys.platform != "linux", reason="seals are of Linux")
def test_nobody_can_make_the_file_shorter(pair) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(pair.page.fd, 0)


# -- batches -------------------------------------------------------------------------------


@pytest.fixture
def sides() -> Iterator[tuple[Mailbox, Mailbox]]:
    """The application's and the worker's, of one file."""
    page = StatusPage.create()
    yield mailbox_of(page.fd), mailbox_of(page.fd)
    page.close()


def test_items_are_claimed_one_by_one_and_their_results_read(sides: tuple[Mailbox, Mailbox]):
    ours, theirs = sides
    ours.post_batch(bytes(24), 3)
    assert theirs.take() == bytes(24)
    assert theirs.answered_apart()
    theirs.open_journal()

    results = [(b"one", False), (b"", True), (bytes(1000), False)]
    for number, (result, failed) in enumerate(results):
        assert ours.standing() == (number, number)
        assert theirs.claim(7)
        assert ours.standing() == (number + 1, number)
        assert theirs.record(result, failed)
        assert ours.journal(number + 1) == results[: number + 1]
    assert not theirs.claim(7)


def test_what_is_claimed_is_noted_as_taken_before():
    page = StatusPage.create()
    try:
        mailbox = mailbox_of(page.fd)
        taken, entered = page.words_of(9, 2)
        mailbox.post_batch(bytes(24), 1)
        mailbox.claim(taken)
        assert page.phase_of(9, 2) is Phase.TAKEN
        mailbox.enter(entered)
        assert page.phase_of(9, 2) is Phase.ENTERED
    finally:
        page.close()


@pytest.mark.parametrize("claimed", [0, 1, 2])
def test_what_is_taken_back_cannot_be_claimed(sides: tuple[Mailbox, Mailbox], claimed: int):
    ours, theirs = sides
    ours.post_batch(bytes(24), 5)
    theirs.open_journal()
    for _ in range(claimed):
        assert theirs.claim(7)
        theirs.record(b"x", False)

    assert ours.take_back() == (claimed, claimed)

    # But for the first of all: a batch that has not begun keeps one.
    assert [theirs.claim(7) for _ in range(2)] == [claimed == 0, False]


def test_each_item_is_either_claimed_or_taken_back(sides: tuple[Mailbox, Mailbox]):
    ours, theirs = sides
    for _ in range(200):
        ours.post_batch(bytes(24), 1000)
        theirs.open_journal()
        began = threading.Event()
        claims = 0

        def claim(began: threading.Event = began) -> None:
            nonlocal claims
            while theirs.claim(7):
                claims += 1
                theirs.record(b"", False)
                began.set()

        worker = threading.Thread(target=claim)
        worker.start()
        assert began.wait(scaled(10))
        claimed, done = ours.take_back()
        worker.join()

        assert claims == claimed >= done >= 1
        assert ours.standing() == (claimed, claimed)


def test_a_journal_has_an_end(sides: tuple[Mailbox, Mailbox]):
    ours, theirs = sides
    ours.post_batch(bytes(24), 3)
    theirs.open_journal()
    theirs.claim(7)
    assert theirs.record(bytes(60_000), False)
    theirs.claim(7)

    assert not theirs.record(bytes(6_000), False)

    assert ours.standing() == (2, 1)
    assert ours.journal(1) == [(bytes(60_000), False)]


def test_a_journal_that_makes_no_sense_is_not_believed():
    page = StatusPage.create()
    try:
        mailbox = mailbox_of(page.fd)
        with mmap.mmap(page.fd, 0) as file:
            file[:] = b"\xff" * len(file)
        with pytest.raises(ValueError, match="longer than it can be"):
            mailbox.journal(1)
        with mmap.mmap(page.fd, 0) as file:
            file[:] = bytes(len(file))
        assert mailbox.journal(8192) == [(b"", False)] * 8192
        with pytest.raises(ValueError, match="ends too early"):
            mailbox.journal(8193)
    finally:
        page.close()


@pytest.mark.parametrize("items", [0, 1 << 20])
def test_a_batch_has_items(sides: tuple[Mailbox, Mailbox], items: int):
    with pytest.raises(ValueError, match="at least one item"):
        sides[0].post_batch(bytes(24), items)
