"""Large frames cross as sealed memory: what is not sealed is refused, and nothing is left behind."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from snakepit_mp.lanes.envelope import LONG, Kind, decode_reply, encode_value, outbound, whole
from snakepit_mp.lanes.lane import LaneBroken
from snakepit_mp.lanes.large_frames import Block, map_block
from snakepit_mp.lanes.packets import Outgoing, Packet, PacketKind, PacketReader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are no seals elsewhere")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def mappings() -> int:
    with open("/proc/self/maps", encoding="ascii") as maps:
        return sum("snakepit_mp-frame" in line for line in maps)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def receive(sock: socket.socket) -> Packet:
    reader = PacketReader()
    while (packet := reader.next()) is None:
        assert reader.receive(sock)
    return packet


def sent(pair: tuple[socket.socket, socket.socket], packet: Outgoing) -> Packet:
    """What comes of it, while somebody reads."""

    def send() -> None:
        while packet:
            packet.send(pair[0])

    thread = threading.Thread(target=send)
    thread.start()
    found = receive(pair[1])
    thread.join()
    return found


@pytest.mark.parametrize("size", [LONG - 1, LONG, 3 * LONG + 5])
def test_there_and_back(pair, size) -> None:
    frame = outbound(Kind.CALL, 7, 1, bytes(range(256)) * (size // 256) + bytes(size % 256))
    assert sent(pair, Outgoing(frame)).frame == whole(frame)
    gc.collect()
    assert mappings() == 0


def test_an_array_is_a_view_of_what_came_and_keeps_it(pair) -> None:
    sent = np.arange(LONG, dtype=np.float64)
    packet = Outgoing(encode_value(7, sent))
    packet.send(pair[0])
    files = open_files()
    found = decode_reply(receive(pair[1]).frame).value
    assert mappings() == 1
    assert open_files() <= files
    assert not found.flags.owndata
    assert not found.flags.writeable
    part = found[5:]
    del found
    gc.collect()
    np.testing.assert_array_equal(part, sent[5:])
    del part
    gc.collect()
    assert mappings() == 0


def test_a_packet_that_is_never_sent_leaves_nothing() -> None:
    before = open_files()
    packet = Outgoing(outbound(Kind.CALL, 7, 1, bytes(LONG)))
    assert open_files() == before + 1
    del packet
    gc.collect()
    assert open_files() == before


def test_without_descriptors_it_goes_byte_by_byte(pair, monkeypatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", none_left)
    frame = outbound(Kind.CALL, 7, 1, bytes(LONG))
    packet = Outgoing(frame)
    assert not packet.whole
    assert sent(pair, packet).frame == whole(frame)


def announce(sock: socket.socket, size: int, *descriptors: int) -> None:
    prefix = Packet(PacketKind.BLOCK, size).prefix()
    socket.send_fds(sock, [prefix], list(descriptors))


def test_memory_that_could_still_change_is_refused(pair) -> None:
    fd = os.memfd_create("mine", os.MFD_ALLOW_SEALING)
    os.write(fd, bytes(LONG))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    announce(pair[0], LONG, fd)
    files = open_files()
    with pytest.raises(LaneBroken, match="not sealed"):
        receive(pair[1])
    assert open_files() == files
    os.close(fd)


def test_a_descriptor_that_is_no_memory_is_refused(pair) -> None:
    out, into = os.pipe()
    announce(pair[0], LONG, out)
    with pytest.raises(LaneBroken, match="no memory file"):
        receive(pair[1])
    os.close(out)
    os.close(into)


@pytest.mark.parametrize("size", [LONG - 1, LONG + 1])
def test_another_size_than_was_announced_is_refused(pair, size) -> None:
    block = Block(bytes(LONG))
    announce(pair[0], size, block.fd)
    with pytest.raises(LaneBroken, match="did not come"):
        receive(pair[1])


def test_an_announcement_without_memory_is_refused(pair) -> None:
    pair[0].sendall(Packet(PacketKind.BLOCK, LONG).prefix())
    with pytest.raises(LaneBroken, match="did not come"):
        receive(pair[1])


def test_descriptors_that_nobody_asked_for_are_closed(pair) -> None:
    out, into = os.pipe()
    files = open_files()
    socket.send_fds(pair[0], [Packet(PacketKind.CREDIT, 7).prefix()], [out, into])
    with pytest.raises(LaneBroken, match="no memory file"):
        receive(pair[1])
    assert open_files() == files
    os.close(out)
    os.close(into)


def test_a_mapped_block_is_like_bytes() -> None:
    block = Block(b"abc" * LONG)
    view = map_block(block.fd)
    block.close()
    assert view.readonly
    assert view == b"abc" * LONG
