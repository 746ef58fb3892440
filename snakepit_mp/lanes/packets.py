"""How do frames lie on the stream socket between a pool and one of its workers?

Each packet is one byte that says what it is, a number of eight, and for a FRAME so many bytes. A
frame of 256 kB or more is a BLOCK instead: no bytes but a descriptor, see `large_frames`.
The application sends the frames of calls, and of a stream's call also CREDIT, for each item that
was taken, and CLOSE, if no more are wanted; both with the number of the request. The worker
answers with frames alone.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from array import array
from collections import deque
from enum import IntEnum
from typing import NamedTuple

from .envelope import Outbound, whole
from .lane import LaneBroken
from .large_frames import LARGE, Block, map_block

__all__ = [
    "ITEMS_AHEAD",
    "MAX_FRAME",
    "PREFIX_SIZE",
    "Outgoing",
    "Packet",
    "PacketKind",
    "PacketReader",
]

#: Bytes of the largest frame.
MAX_FRAME = 1 << 32
#: Items that a streaming tool may be ahead of its consumer.
ITEMS_AHEAD = 4

_PREFIX = struct.Struct("<BQ")
PREFIX_SIZE = _PREFIX.size
_CHUNK = 1 << 16
#: Bytes that one ``send`` takes whole or not at all: they fit into one buffer of the kernel.
_WHOLE = 1 << 14 if sys.platform == "linux" else 0
#: Of descriptors that come at once; more are never under way, one call at a time.
_ROOM_FOR_BLOCKS = socket.CMSG_SPACE(8 * array("i").itemsize)
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
#: Frames from this size on are read into a place of their own, not gathered in pieces.
_LARGE = 1 << 15


class PacketKind(IntEnum):
    """What a packet is."""

    FRAME = 1
    CREDIT = 2
    CLOSE = 3
    BLOCK = 4


class Packet(NamedTuple):
    """``frame`` belongs to FRAME, as which a BLOCK is read too; ``number`` is the request's for
    CREDIT and CLOSE."""

    kind: PacketKind
    number: int
    frame: bytes | memoryview = b""

    def prefix(self) -> bytes:
        """All of it but the frame."""
        number = len(self.frame) if self.kind is PacketKind.FRAME else self.number
        return _PREFIX.pack(self.kind, number)


class Outgoing:
    """The packet of a frame, of which the socket may take a part at a time."""

    __slots__ = ("_block", "_rest", "whole")

    def __init__(self, frame: Outbound) -> None:
        size = len(frame)
        self._block = _block_of(frame) if size >= LARGE else None
        if self._block is None:
            packet = _PREFIX.pack(PacketKind.FRAME, size) + whole(frame)
        else:
            packet = _PREFIX.pack(PacketKind.BLOCK, size)
        self._rest = memoryview(packet)
        #: The socket takes it all at once or not at all.
        self.whole = len(packet) <= _WHOLE

    def __bool__(self) -> bool:
        """Whether there is something left to be sent."""
        return bool(self._rest)

    def send(self, sock: socket.socket) -> None:
        """Send what the socket takes. Raises what ``send`` does."""
        if self._block is None:
            self._rest = self._rest[sock.send(self._rest) :]
            return
        descriptor = array("i", [self._block.fd])
        # Nine bytes, which are always taken together.
        sock.sendmsg([self._rest], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])
        self._rest = self._rest[:0]
        self._block.close()


def _block_of(frame: Outbound) -> Block | None:
    try:
        return Block(frame)
    except OSError:
        return None  # no descriptors or no memory are left: then byte by byte


class PacketReader:
    """Puts together what comes; a packet that is half here stays until the rest is."""

    def __init__(self) -> None:
        self._blocks: deque[memoryview] = deque()
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
        if sys.maxsize == LARGE:
            data = sock.recv(_CHUNK, flags)
        else:
            data, ancillary, _, _ = sock.recvmsg(_CHUNK, _ROOM_FOR_BLOCKS, flags | _CLOEXEC)
            for _level, _kind, descriptors in ancillary:
                self._keep_blocks(array("i", descriptors[: len(descriptors) // 4 * 4]))
        self._gathered += data
        return bool(data)

    def _keep_blocks(self, descriptors: array[int]) -> None:
        try:
            for fd in descriptors:
                self._blocks.append(map_block(fd))
        finally:
            for fd in descriptors:
                os.close(fd)

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
        if kind == PacketKind.BLOCK:
            return self._next_block(number)
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

    def _next_block(self, size: int) -> Packet:
        if not self._blocks or len(self._blocks[0]) != size:
            raise LaneBroken("a large frame was announced, and did not come")
        del self._gathered[:PREFIX_SIZE]
        return Packet(PacketKind.FRAME, 0, self._blocks.popleft())

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
