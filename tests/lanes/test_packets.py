"""Packets come out as they went in, however the stream was cut; what is none breaks the lane."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_mp.lanes.lane import LaneBroken
from snakepit_mp.lanes.packets import MAX_FRAME, PREFIX_SIZE, Packet, PacketKind, PacketReader

FRAME = PacketKind.FRAME
NUMBERS = st.integers(0, (1 << 64) - 1)
FRAMES = st.one_of(
    st.binary(max_size=100),
    st.integers(30_000, 200_000).map(lambda size: bytes([size % 251]) * size),
)
PACKETS = st.one_of(
    FRAMES.map(lambda frame: Packet(FRAME, 0, frame)),
    st.tuples(st.sampled_from([PacketKind.CREDIT, PacketKind.CLOSE]), NUMBERS).map(
        lambda facts: Packet(*facts)
    ),
)


class Cut:
    """A socket whose stream comes in pieces of the given sizes."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = sizes or [1 << 16]

    def recv(self, size: int, flags: int) -> bytes:
        self._sizes = self._sizes[1:] + self._sizes[:1]
        size = min(size, self._sizes[0])
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def recvmsg(self, size: int, room: int, flags: int) -> tuple[bytes, list[object], int, None]:
        return self.recv(size, flags), [], 0, None

    def recv_into(self, place: memoryview, size: int, flags: int) -> int:
        piece = self.recv(len(place), flags)
        place[: len(piece)] = piece
        return len(piece)


@given(packets=st.lists(PACKETS, max_size=6), sizes=st.lists(st.sampled_from([1, 7, 900, 40_000])))
def test_however_it_is_cut(packets: list[Packet], sizes: list[int]) -> None:
    data = b"".join(packet.prefix() + packet.frame for packet in packets)
    if sizes and max(sizes) < 900 and len(data) > 20_000:
        sizes = [900]  # byte for byte would take long
    cut, reader = Cut(data, sizes), PacketReader()
    found = []
    while True:
        while (packet := reader.next()) is not None:
            found.append(packet)
        if not reader.receive(cut):  # type: ignore[arg-type]
            break
    assert found == packets


@pytest.mark.parametrize("size", [0, 1, 1 << 15, 1 << 20])
def test_over_a_real_socket(size: int) -> None:
    ours, theirs = socket.socketpair()
    packet, reader = Packet(FRAME, 0, bytes(size)), PacketReader()
    rest = packet.prefix() + packet.frame
    theirs.setblocking(False)
    with ours, theirs:
        while (found := reader.next()) is None:
            if rest:
                try:
                    rest = rest[theirs.send(rest) :]
                except BlockingIOError:
                    pass
            reader.receive(ours)
        assert found == packet
        theirs.close()
        assert not reader.receive(ours)


@pytest.mark.parametrize("prefix", [b"\0", b"\5", b"\xff"])
def test_what_is_no_packet(prefix: bytes) -> None:
    reader = PacketReader()
    reader.receive(Cut(prefix + bytes(8), []))  # type: ignore[arg-type]
    with pytest.raises(LaneBroken, match="of kind"):
        reader.next()


def test_a_frame_that_cannot_be_is_not_made_room_for() -> None:
    reader = PacketReader()
    announced = (MAX_FRAME + 1).to_bytes(8, "little")
    reader.receive(Cut(bytes([FRAME]) + announced, []))  # type: ignore[arg-type]
    with pytest.raises(LaneBroken, match="was announced"):
        reader.next()


def test_a_packet_that_never_comes_to_its_end_is_none() -> None:
    packet, reader = Packet(FRAME, 0, bytes(100)), PacketReader()
    reader.receive(Cut((packet.prefix() + packet.frame)[: PREFIX_SIZE + 50], []))  # type: ignore[arg-type]
    assert reader.next() is None
