"""How do frames lie on the stream socket between a pool and one of its workers?

Each packet is one byte that says what it is, a number of eight, and for a FRAME so many bytes.
The application sends the frames of calls, and of a stream's call also CREDIT, for each item that
was taken, and CLOSE, if no more are wanted; both with the number of the request. The worker
answers with frames alone.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import NamedTuple

from .lane import LaneBroken

__all__ = ["ITEMS_AHEAD", "MAX_FRAME", "PREFIX_SIZE", "Packet", "PacketKind", "PacketReader"]

#: Bytes of the largest frame.
MAX_FRAME = 1 << 32
#: Items that a streaming tool may be ahead of its consumer.
ITEMS_AHEAD = 4

_PREFIX = struct.Struct("<BQ")
PREFIX_SIZE = _PREFIX.size
_CHUNK = 1 << 16
#: Frames from this size on are read into a place of their own, not gathered in pieces.
_LARGE = 1 << 15


class PacketKind(IntEnum):
    """What a packet is."""

    FRAME = 1
    CREDIT = 2
    CLOSE = 3


class Packet(NamedTuple):
    """``frame`` belongs to FRAME, ``number`` is the request's for CREDIT and CLOSE."""

    kind: PacketKind
    number: int
    frame: bytes = b""

    def prefix(self) -> bytes:
        """All of it but the frame."""
        number = len(self.frame) if self.kind is PacketKind.FRAME else self.number
        return _PREFIX.pack(self.kind, number)


class PacketReader:
    """Puts together what comes; a packet that is half here stays until the rest is."""

    def __init__(self) -> None:
        self._gathered = bytearray()
        self._large: bytearray | None = None
        self._filled = 0

    def receive(self, sock: socket.socket, flags: int = 0) -> bool:
        """Read once; ``False`` at the end of the stream. Raises what ``recv`` does."""
        if self._large is not None:
            with memoryview(self._large) as view:
                count = sock.recv_into(view[self._filled :], 0, flags)
            self._filled += count
            return count > 0
        data = sock.recv(_CHUNK, flags)
        self._gathered += data
        return bool(data)

    @property
    def waits_for_more(self) -> bool:
        """Whether a packet is half here, once `next` has none."""
        return self._large is not None or bool(self._gathered)

    def next(self) -> Packet | None:
        """The next whole packet; `LaneBroken` for what is none."""
        if self._large is not None:
            return self._next_large()
        have = len(self._gathered)
        if have < PREFIX_SIZE:
            return None
        kind, number = _PREFIX.unpack_from(self._gathered)
        if kind != PacketKind.FRAME:
            return self._next_control(kind, number)
        if number > MAX_FRAME:
            raise LaneBroken(f"a frame of {number:,} bytes was announced")
        end = PREFIX_SIZE + number
        if have >= end:
            frame = bytes(memoryview(self._gathered)[PREFIX_SIZE:end])
            del self._gathered[:end]
            return Packet(PacketKind.FRAME, 0, frame)
        if number >= _LARGE:
            self._large = bytearray(number)
            self._filled = have - PREFIX_SIZE
            self._large[: self._filled] = memoryview(self._gathered)[PREFIX_SIZE:]
            self._gathered = bytearray()
        return None

    def _next_control(self, kind: int, number: int) -> Packet:
        if kind not in PacketKind._value2member_map_:
            raise LaneBroken(f"a packet of kind {kind} came, which there is not")
        del self._gathered[:PREFIX_SIZE]
        return Packet(PacketKind(kind), number)

    def _next_large(self) -> Packet | None:
        assert self._large is not None
        if self._filled < len(self._large):
            return None
        frame, self._large = bytes(self._large), None
        return Packet(PacketKind.FRAME, 0, frame)
