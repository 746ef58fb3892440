"""Where does the main thread of a worker wait that is reached over a socket? On all at once.

It reads the frames of calls itself and sends the replies itself: no other thread stands between
a caller and its tool. What others have to say to it, a stop or a withdrawal, comes through a
list and a pipe that wakes it.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ..lanes.envelope import Header, Outbound, header_of
from ..lanes.packets import ITEMS_AHEAD, Outgoing, PacketKind, PacketReader
from ..lanes.spin import Meet, current_cpu, nobody, spin
from .job import JobCancelled

__all__ = ["SocketInbox", "SocketJob"]

#: Seconds that the worker looks for another call before it sleeps: about what lies between two
#: calls of one caller.
SPIN = 80e-6


class SocketInbox:
    """What `Executor.run` takes its work from; ``sock`` is the worker's end of a `SocketLane`.

    `get` and all that a job does belong to the thread that runs tools; `put` may be called
    from anywhere, signal handlers included.
    """

    def __init__(self, sock: socket.socket, meet: Meet = nobody) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._meet = meet
        self._reader = PacketReader()
        self._reading = threading.Lock()
        self._frames: deque[bytes | memoryview] = deque()  # of calls, read while one was running
        self._items: deque[Any] = deque()
        self._wake_out, self._wake_in = os.pipe()
        for fd in (self._wake_out, self._wake_in):
            os.set_blocking(fd, False)
        self._poller = select.poll()
        for fd in (sock.fileno(), self._wake_out):
            self._poller.register(fd, select.POLLIN)
        self._last: SocketJob | None = None

    def put(self, item: Any) -> None:
        self._items.append(item)
        try:
            os.write(self._wake_in, b"\0")
        except BlockingIOError:
            pass  # so many wakes are under way that it cannot sleep on

    def get(self) -> Any:
        """The next thing that was put, or else the next call; ``None`` if no more will come."""
        while True:
            if self._items:
                return self._items.popleft()
            if self._frames:
                self._last = SocketJob(self, self._frames.popleft())
                return self._last
            self._sort_packets()
            if not self._frames and not spin(self._look, self._meet, SPIN):
                self._wait()

    def send(self, frame: Outbound) -> None:
        packet = Outgoing(frame)
        try:
            while packet:
                packet.send(self._socket)
        except OSError:
            self._give_up()  # the application has closed the lane

    def listen(self, *, wait: bool) -> None:
        """Read what came while a job runs; with ``wait`` sleep until something has come."""
        if not self._reading.acquire(blocking=wait):
            return  # another thread of the tool is at it
        try:
            if wait:
                poller = select.poll()
                poller.register(self._socket.fileno(), select.POLLIN)
                poller.poll()
            self._receive()
            self._sort_packets()
        finally:
            self._reading.release()

    def close_lane(self) -> None:
        """Nothing will be answered any more: whoever waits learns it at once."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the application was faster

    def close(self) -> None:
        """Give the descriptors back; the process's end does that as well."""
        self._socket.close()
        os.close(self._wake_out)
        os.close(self._wake_in)

    def _look(self) -> bool | None:
        """Whether there is anything; ``None`` if not."""
        return True if self._items or self._receive() else None

    def _wait(self) -> None:
        ready = self._poller.poll()
        self._meet(current_cpu())
        for fd, _ in ready:
            if fd == self._wake_out:
                os.read(fd, 4096)
            else:
                self._receive()

    def _receive(self) -> bool:
        """Take what there is; whether there was anything, the end of the lane included."""
        try:
            open_ = self._reader.receive(self._socket, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            open_ = False
        if not open_:
            self._give_up()
        return True

    def _give_up(self) -> None:
        """There is no lane any more, so there is nothing to live for."""
        try:
            self._poller.unregister(self._socket.fileno())
        except KeyError:
            return  # that was seen before
        if self._last is not None:
            self._last.cancel()
        self.put(None)

    def _sort_packets(self) -> None:
        while (packet := self._reader.next()) is not None:
            if packet.kind is PacketKind.FRAME:
                self._frames.append(packet.frame)
            elif self._last is not None and self._last.header.request_id == packet.number:
                self._last.told(packet.kind)


class SocketJob:
    """One request over the socket, with what `Job` has for those who run it."""

    def __init__(self, inbox: SocketInbox, frame: bytes | memoryview) -> None:
        self.frame = frame
        self.header: Header = header_of(frame)
        self.retry_on: tuple[type[Exception], ...] = ()
        self._finished = False
        self._inbox = inbox
        self._room = ITEMS_AHEAD
        self._cancelled = False
        self._on_cancel: Callable[[], object] | None = None

    @property
    def cancelled(self) -> bool:
        if not self._cancelled and self._room < ITEMS_AHEAD:  # a stream that has begun
            self._inbox.listen(wait=False)
        return self._cancelled

    @property
    def finished(self) -> bool:
        return self._finished

    def put(self, reply: Outbound) -> None:
        """Send one of several replies; waits while the consumer is too far behind."""
        while not self._room and not self._cancelled:
            self._inbox.listen(wait=True)
        if self.cancelled:
            raise JobCancelled
        self._room -= 1
        self._inbox.send(reply)

    def try_put(self, reply: Outbound) -> bool:
        if self.cancelled or not self._room:
            return False
        self.put(reply)
        return True

    def finish(self, reply: Outbound) -> None:
        """Send the last reply; an empty one only ends the job."""
        if reply:
            self._inbox.send(reply)
        if self.cancelled:
            self._inbox.put(self)
        self._finished = True

    def refuse(self) -> None:
        self._inbox.close_lane()

    def cancel(self) -> None:
        self._cancelled = True
        if self._on_cancel is not None:
            self._on_cancel()

    def when_cancelled(self, call: Callable[[], object] | None) -> None:
        self._on_cancel = call
        if self._cancelled and call is not None:
            call()

    def told(self, kind: PacketKind) -> None:
        """What the application says of it, perhaps after its end."""
        if kind is PacketKind.CREDIT:
            self._room += 1
        elif not self._finished:
            self.cancel()
        else:
            self._inbox.put(self)  # its caller may not have seen the end, and is told so
