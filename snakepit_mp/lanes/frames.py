"""How do a frame and its file descriptors travel over a Unix stream socket?

A frame is a header (payload length and number of descriptors) and the payload. The
descriptors ride on the frame's first byte. One sender and one receiver at a time per
socket; the functions block and do no locking.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence

__all__ = ["MAX_PAYLOAD", "FrameError", "recv_frame", "send_frame"]

#: The largest payload, bytes.
MAX_PAYLOAD = 1 << 28

_HEADER = struct.Struct("!II")
_MAX_FDS = 253  # SCM_MAX_FD of Linux
_FD_SIZE = array.array("i").itemsize
# Received descriptors must not survive an exec; elsewhere than on Linux that takes two steps.
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class FrameError(ConnectionError):
    """What arrived is no frame; the socket is of no use from here on."""


def send_frame(sock: socket.socket, payload: bytes, fds: Sequence[int] = ()) -> None:
    """Send one frame; blocks until the kernel has taken it.

    The descriptors in ``fds`` stay open here. Raises ``ValueError`` if ``payload`` is larger
    than `MAX_PAYLOAD` or there are more than 253 descriptors, ``OSError`` (as a rule
    ``BrokenPipeError``) if the peer is gone.
    """
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame holds at most {MAX_PAYLOAD} bytes, not {len(payload)}")
    if len(fds) > _MAX_FDS:
        raise ValueError(f"a frame carries at most {_MAX_FDS} descriptors, not {len(fds)}")
    data = memoryview(_HEADER.pack(len(payload), len(fds)) + payload)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = sock.sendmsg([data], rights)
    if sent < len(data):
        sock.sendall(data[sent:])


def recv_frame(sock: socket.socket, max_fds: int = 0) -> tuple[bytes, list[int]] | None:
    """Receive one frame: its payload and its descriptors, which the caller has to close.

    ``None`` at the end of the stream, also where it ends inside a frame: the sender was
    killed while it wrote, and a frame that was not finished was not sent. Raises `FrameError`
    for a header out of bounds or for other than the announced, permitted descriptors.
    """
    fds: list[int] = []
    try:
        payload = _receive(sock, max_fds, fds)
    except ConnectionResetError:
        payload = None  # the peer closed with something unread in its own buffer
    except BaseException:
        _close(fds)
        raise
    if payload is None:
        _close(fds)
        return None
    return payload, fds


def _receive(sock: socket.socket, max_fds: int, fds: list[int]) -> bytes | None:
    space = socket.CMSG_SPACE(max_fds * _FD_SIZE) if max_fds else 0
    data, ancillary, flags, _ = sock.recvmsg(_HEADER.size, space, _CLOEXEC)
    _collect(ancillary, fds)
    if flags & socket.MSG_CTRUNC:
        raise FrameError(f"more descriptors came with a frame than the {max_fds} permitted")
    header = data + _read(sock, _HEADER.size - len(data)) if data else b""
    if len(header) < _HEADER.size:
        return None
    length, count = _HEADER.unpack(header)
    if length > MAX_PAYLOAD:
        raise FrameError(f"a frame of {length} bytes was announced; {MAX_PAYLOAD} is the limit")
    if count != len(fds):
        raise FrameError(f"{count} descriptors were announced, {len(fds)} came")
    payload = _read(sock, length)
    return payload if len(payload) == length else None


def _read(sock: socket.socket, size: int) -> bytes:
    """Read ``size`` bytes, or fewer if the stream ends before."""
    if not size:
        return b""
    data = sock.recv(size, socket.MSG_WAITALL)
    if len(data) == size:
        return data
    parts = [data]  # a signal, or a sender that needed several writes
    missing = size - len(data)
    while parts[-1] and missing:
        parts.append(sock.recv(missing, socket.MSG_WAITALL))
        missing -= len(parts[-1])
    return b"".join(parts)


def _collect(ancillary: list[tuple[int, int, bytes]], fds: list[int]) -> None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i", data[: len(data) - len(data) % _FD_SIZE])
            fds.extend(received)
    if not _CLOEXEC:
        for fd in fds:
            os.set_inheritable(fd, False)


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
