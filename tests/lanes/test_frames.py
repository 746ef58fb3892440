"""Frames arrive whole, with their descriptors, or not at all."""

from __future__ import annotations

import array
import os
import socket
import struct
import threading

import pytest

from snakepit_mp.lanes.frames import MAX_PAYLOAD, FrameError, recv_frame, send_frame


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("payload", [b"", b"x", b"frame" * 100])
def test_a_payload_arrives_unchanged(pair, payload):
    send_frame(pair[0], payload)
    assert recv_frame(pair[1]) == (payload, [])


def test_frames_keep_their_boundaries_and_order(pair):
    for payload in (b"one", b"", b"three"):
        send_frame(pair[0], payload)
    assert [recv_frame(pair[1])[0] for _ in range(3)] == [b"one", b"", b"three"]


def test_a_frame_larger_than_the_socket_buffer_arrives_whole(pair):
    payload = os.urandom(1 << 20)
    sender = threading.Thread(target=send_frame, args=(pair[0], payload))
    sender.start()
    received = recv_frame(pair[1])
    sender.join()
    assert received == (payload, [])


def test_descriptors_come_with_their_frame_in_order(pair, pipe):
    reader, writer = pipe
    send_frame(pair[0], b"first")
    send_frame(pair[0], b"second", [reader, writer])
    assert recv_frame(pair[1], max_fds=2) == (b"first", [])
    payload, fds = recv_frame(pair[1], max_fds=2)
    os.write(fds[1], b"through")
    assert (payload, os.read(fds[0], 10)) == (b"second", b"through")
    for fd in fds:
        os.close(fd)


def test_received_descriptors_do_not_survive_exec(pair, pipe):
    send_frame(pair[0], b"", [pipe[0]])
    _, (fd,) = recv_frame(pair[1], max_fds=1)
    inheritable = os.get_inheritable(fd)
    os.close(fd)
    assert not inheritable


def test_the_end_of_the_stream_is_none(pair):
    pair[0].close()
    assert recv_frame(pair[1]) is None


@pytest.mark.parametrize(
    "part", [b"\0", struct.pack("!II", 10, 0), struct.pack("!II", 10, 0) + b"half"]
)
def test_a_stream_that_ends_inside_a_frame_ends(pair, part):
    pair[0].sendall(part)
    pair[0].close()
    assert recv_frame(pair[1]) is None


def test_a_half_frame_leaves_no_descriptor(pair, pipe):
    # The leak check of every test is what would fail.
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pipe[0]]))]
    pair[0].sendmsg([struct.pack("!II", 10, 1)], rights)
    pair[0].close()
    assert recv_frame(pair[1], max_fds=1) is None


def test_a_peer_that_closed_with_unread_data_is_the_end_as_well(pair):
    send_frame(pair[1], b"never read")
    send_frame(pair[0], b"last words")
    pair[0].close()
    assert recv_frame(pair[1]) == (b"last words", [])
    assert recv_frame(pair[1]) is None


def test_sending_to_a_closed_peer_is_an_error(pair):
    pair[1].close()
    with pytest.raises(ConnectionError):
        send_frame(pair[0], b"x")


def test_too_large_a_payload_is_refused_before_anything_is_sent(pair, monkeypatch):
    monkeypatch.setattr("snakepit_mp.lanes.frames.MAX_PAYLOAD", 3)
    with pytest.raises(ValueError, match="at most 3 bytes, not 4"):
        send_frame(pair[0], b"four")
    send_frame(pair[0], b"3 b")
    assert recv_frame(pair[1]) == (b"3 b", [])


def test_too_many_descriptors_are_refused(pair, pipe):
    with pytest.raises(ValueError, match="at most 253"):
        send_frame(pair[0], b"", [pipe[0]] * 254)


def test_a_header_out_of_bounds_is_refused(pair):
    pair[0].sendall(struct.pack("!II", MAX_PAYLOAD + 1, 0))
    with pytest.raises(FrameError, match="is the limit"):
        recv_frame(pair[1])


def test_descriptors_that_nobody_asked_for_are_refused(pair, pipe):
    send_frame(pair[0], b"", [pipe[0]])
    with pytest.raises(FrameError, match="0 permitted"):
        recv_frame(pair[1])


def test_descriptors_that_were_not_announced_are_refused_and_closed(pair, pipe):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pipe[0]]))]
    pair[0].sendmsg([struct.pack("!II", 0, 0)], rights)
    with pytest.raises(FrameError, match="0 descriptors were announced, 1 came"):
        recv_frame(pair[1], max_fds=1)
