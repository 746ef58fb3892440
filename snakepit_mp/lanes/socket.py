"""How do frames reach a worker over a socket pair? Straight from the caller's own thread.

Theory of operation
-------------------
One call at a time has the lane, as one request at a time has the worker. Who sends a frame also
reads the reply, in the same thread, with nobody in between; after `begin`, which nobody waits
for, the *reactor* reads, a thread that sleeps on many descriptors.

A caller that gives up, at its deadline or by Ctrl-C, leaves a reply under way, perhaps half
read. Then the reactor reads on and drops it, or the worker would be stuck with a long one; and
whoever has the lane next drops what is not its own, by the request's number. Only a frame that
was half *sent* cannot be made good: then the lane is broken, and the worker with it. A short one
never is: the kernel takes it whole or not at all.

A descriptor is closed when the last thread has left it, so that none ever waits on another
file that got its number.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Protocol, cast

from ..errors import CodecError
from .envelope import Frame, Kind, Outbound, header_of, request_id_of
from .lane import BegunStream, FrameStream, Lane, LaneBroken, LaneTimeout
from .packets import MAX_FRAME, Outgoing, Packet, PacketKind, PacketReader
from .spin import Meet, nobody, spin
from .waits import wait_for

__all__ = ["Begun", "Reactor", "SocketLane"]

#: Seconds that a caller looks for a reply before it sleeps; no more than a wake-up costs.
SPIN = 50e-6

#: Lanes with a caller in them. One that is not alone sleeps at once: who spins takes the
#: interpreter's lock again and again, which another caller needs.
_calling: set[SocketLane] = set()

#: Milliseconds; the system call takes an int.
_LONGEST_POLL = 1 << 30

#: The number of no request: they are counted from 1.
_NOBODYS = -1

Done = Callable[[Frame | LaneBroken], None]


class Reactor(Protocol):
    """A thread that calls back when descriptors are ready. Any thread may ask."""

    def watch(self, fd: int, ready: Callable[[], None], *, writing: bool = False) -> None:
        """Call ``ready`` whenever ``fd`` can be read or, with ``writing``, written; a second
        call for the same descriptor replaces the first."""

    def release(self, fd: int, close: Callable[[], None]) -> None:
        """Forget ``fd``, then call ``close``."""


class SocketLane(Lane):
    """The application's end, ``sock``, of a socket pair to one incarnation of one worker.

    ``meet``: so that caller and worker know on which CPU the other is; see `spin`.
    """

    name: ClassVar[str] = "socket"

    def __init__(self, sock: socket.socket, reactor: Reactor, meet: Meet = nobody) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._fd = sock.fileno()
        self._reactor = reactor
        self._meet = meet
        self._reader = PacketReader()
        self._lock = threading.Lock()
        self._watched = False  # the reactor reads
        self._begun: Begun | None = None  # what for; nothing: to drop what comes
        self._users = 0  # threads that are in here
        self._cancelled = False
        self._closed = False

    # -- a caller's own thread -----------------------------------------------------------

    def call(self, frame: Outbound, deadline: float | None = None) -> Frame:
        if deadline is not None and deadline <= time.monotonic():
            raise LaneTimeout("the deadline had passed before the call was sent")
        request_id = request_id_of(frame)
        _check_size(frame)
        with self._inside():
            self.take()
            _calling.add(self)
            try:
                self.send(frame, deadline)
                return self._reply_to(request_id, deadline)
            except BaseException:
                self.drain()
                raise
            finally:
                _calling.discard(self)

    def stream(self, frame: Outbound) -> FrameStream:
        return _SocketStream(self, frame)

    def _reply_to(self, request_id: int, deadline: float | None) -> Frame:
        def look() -> Frame | None:
            self.receive()
            return self.next_frame(request_id)

        if len(_calling) == 1:
            found = cast("Frame | None", spin(look, self._meet, SPIN))
            if found is not None:
                return found
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        while True:
            frame = self.next_frame(request_id)
            if frame is not None:
                return frame
            if not _poll(poller, deadline):
                raise LaneTimeout("no reply before the deadline")
            self.receive()

    # -- for who has the lane: a caller, a stream ------------------------------------------

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def fileno(self) -> int:
        return self._fd

    def enter(self) -> None:
        """From here to `leave` the descriptor stays open."""
        with self._lock:
            if self._cancelled:
                raise LaneBroken("the lane was cancelled")
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._closed and not self._users
        if last:
            self._give_back()

    def take(self) -> None:
        """From here on this thread alone reads."""
        with self._lock:
            watched, self._watched = self._watched, False
        if watched:
            self._reactor.release(self._fd, lambda: None)

    def send(self, frame: Outbound, deadline: float | None = None) -> None:
        packet = Outgoing(frame)
        try:
            self.send_some(packet)
            if packet:
                poller = select.poll()
                poller.register(self._fd, select.POLLOUT)
            while packet:
                if not _poll(poller, deadline):
                    raise LaneTimeout("the worker did not take the call before the deadline")
                self.send_some(packet)
        except LaneBroken:
            raise
        except BaseException:  # a deadline, a Ctrl-C
            if not packet.whole:  # half of it may be under way
                self.cancel()
            raise

    def send_some(self, packet: Outgoing) -> None:
        """Send what the socket takes now, perhaps nothing."""
        try:
            packet.send(self._socket)
        except BlockingIOError:
            pass
        except OSError as error:
            raise LaneBroken(f"the call cannot be sent: {error}") from error

    def next_frame(self, request_id: int) -> Frame | None:
        """The next reply to that request, if it is here."""
        while (packet := self._reader.next()) is not None:
            if packet.kind is not PacketKind.FRAME:
                raise LaneBroken("the worker sent what only the application sends")
            if _number_of(packet.frame) == request_id:
                return packet.frame
        return None

    def receive(self) -> None:
        """Take what there is, perhaps nothing."""
        try:
            if not self._reader.receive(self._socket):
                raise LaneBroken("the worker closed the lane, or it was cancelled")
        except BlockingIOError:
            pass
        except OSError as error:
            raise LaneBroken(f"the lane broke: {error}") from error

    def drain(self) -> None:
        """Let the reactor drop what still comes; the next one to `take` the lane ends that."""
        with self._lock:
            wanted = not (self._cancelled or self._watched)
            self._watched = self._watched or wanted
        if wanted:
            self._reactor.watch(self._fd, self._ready)

    # -- the reactor's thread ------------------------------------------------------------

    def begin(self, frame: Outbound, done: Done) -> None:
        _check_size(frame)
        self._begin(Begun(frame, done))

    def begin_stream(self, frame: Outbound, arrived: Done) -> BegunStream:
        _check_size(frame)
        begun = Begun(frame, arrived, streaming=True)
        self._begin(begun)
        return _BegunSocketStream(self, begun)

    def _begin(self, begun: Begun) -> None:
        try:
            self.enter()
        except LaneBroken as error:
            begun.done(error)
            return
        try:
            with self._lock:
                self._begun = begun
                watched, self._watched = self._watched, True
                self._push(begun)  # not after the lock: the reactor would send it, too
            if begun.unsent or not watched:
                self._reactor.watch(self._fd, self._ready, writing=bool(begun.unsent))
        except LaneBroken as error:
            self._break_off(error)
        finally:
            self.leave()

    def _push(self, begun: Begun) -> None:
        if begun.unsent is None:
            begun.unsent = Outgoing(begun.frame)
        self.send_some(begun.unsent)

    def _ready(self) -> None:
        """Readable, or writable: called by the reactor, which may be late."""
        try:
            self.enter()
        except LaneBroken:
            return  # and the reactor was told, or will be
        try:
            arrived = self._work()
        except LaneBroken as error:
            self._break_off(error)
        else:
            for begun, frame in arrived:
                begun.done(frame)
        finally:
            self.leave()

    def _work(self) -> list[tuple[Begun, Frame]]:
        """Send and receive what is possible; the calls that came to their end."""
        arrived: list[tuple[Begun, Frame]] = []
        with self._lock:
            if not self._watched:
                return []  # a caller has just taken it
            if self._begun is not None and self._begun.unsent:
                self._push(self._begun)
                if not self._begun.unsent:
                    self._reactor.watch(self._fd, self._ready)
            self.receive()
            while (begun := self._begun) is not None:
                frame = self.next_frame(begun.request_id)
                if frame is None:
                    return arrived
                arrived.append((begun, frame))
                if not (begun.streaming and _is_item(frame)):
                    self._begun = None
            self.next_frame(_NOBODYS)
        return arrived

    def give_up(self, begun: Begun) -> None:
        """What still comes of it is dropped."""
        with self._lock:
            if self._begun is not begun:
                return
            self._begun = None
        try:
            self.tell(PacketKind.CLOSE, begun.request_id)
        except LaneBroken:
            pass  # then nobody is there to be told

    def tell(self, kind: PacketKind, request_id: int) -> None:
        # A handful of bytes, and few are ever unread: they always fit.
        with self._inside():
            try:
                self._socket.send(Packet(kind, request_id).prefix())
            except OSError as error:
                raise LaneBroken(f"the worker reads no more: {error}") from error

    def _break_off(self, error: LaneBroken) -> None:
        with self._lock:
            self._cancelled = True
            begun, self._begun = self._begun, None
            watched, self._watched = self._watched, False
        if watched:
            self._reactor.release(self._fd, lambda: None)
        if begun is not None:
            begun.done(error)

    # -- the end -------------------------------------------------------------------------

    def cancel(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits
            except OSError:
                pass  # the worker has closed its end, or this is the second time
        self._break_off(LaneBroken("the lane was cancelled"))

    def close(self) -> None:
        self.cancel()
        with self._lock:
            last = not self._closed and not self._users
            self._closed = True
        if last:
            self._give_back()

    def _give_back(self) -> None:
        # By the reactor, which may just be looking at it.
        self._reactor.release(self._fd, self._socket.close)


class Begun:
    """A call that nobody waits for. ``unsent``: once it is begun, what the socket did not take.
    ``items``: of a batch, which only a mailbox carries."""

    def __init__(
        self, frame: Outbound, done: Done, *, streaming: bool = False, items: int = 0
    ) -> None:
        self.streaming = streaming
        self.items = items
        self.request_id = request_id_of(frame)
        self.done = done
        self.frame = frame
        self.unsent: Outgoing | None = None


class _BegunSocketStream(BegunStream):
    """A stream whose frames the reactor brings."""

    def __init__(self, lane: SocketLane, begun: Begun) -> None:
        self._lane = lane
        self._begun = begun

    def more(self) -> None:
        try:
            self._lane.tell(PacketKind.CREDIT, self._begun.request_id)
        except LaneBroken:
            pass  # it is told in another way

    def close(self) -> None:
        self._lane.give_up(self._begun)


class _SocketStream(FrameStream):
    """The frames of a stream, which begins when the first one is asked for."""

    def __init__(self, lane: SocketLane, frame: Outbound) -> None:
        self._lane = lane
        self._frame = frame
        self._request_id = request_id_of(frame)
        self._lock = threading.Lock()
        self._wake: tuple[int, int] | None = None  # a pipe, from the first frame to the end
        self._reading = False
        self._ended = False  # its last frame was there
        self._closed = False

    def __next__(self) -> Frame:
        with self._lock:
            if self._ended:
                raise StopIteration
            if self._closed:
                raise LaneBroken("the stream was closed")
            self._reading = True
        try:
            if self._wake is None:
                self._begin()
            return self._next()
        except BaseException:
            self._closed = True
            raise
        finally:
            with self._lock:
                self._reading = False
                over = self._closed or self._ended
            if over:
                self._finish()

    def _begin(self) -> None:
        _check_size(self._frame)
        self._lane.enter()
        try:
            self._wake = os.pipe()
        except OSError:
            self._lane.leave()
            raise
        self._lane.take()
        self._lane.send(self._frame)

    def _next(self) -> Frame:
        assert self._wake is not None
        poller = select.poll()
        for fd in (self._lane.fileno(), self._wake[0]):
            poller.register(fd, select.POLLIN)
        while (frame := self._lane.next_frame(self._request_id)) is None:
            if self._closed:
                raise LaneBroken("the stream was closed")
            _poll(poller, None)
            if not self._closed:
                self._lane.receive()
        if _is_item(frame):
            self._lane.tell(PacketKind.CREDIT, self._request_id)
        else:
            self._ended = True
        return frame

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._reading:  # by another thread, which will finish it
                if self._wake is not None:
                    os.write(self._wake[1], b"\0")
                return
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            wake, self._wake = self._wake, None
        if wake is None:
            return
        for fd in wake:
            os.close(fd)
        if not self._ended:
            try:
                self._lane.tell(PacketKind.CLOSE, self._request_id)
            except LaneBroken:
                pass  # then nobody is there to be told
            self._lane.drain()
        self._lane.leave()


def _number_of(frame: Frame) -> int:
    try:
        return request_id_of(frame)
    except CodecError as error:
        raise LaneBroken(f"the worker sent what is no reply: {error}") from error


def _is_item(frame: Frame) -> bool:
    try:
        return header_of(frame).kind is Kind.ITEM
    except CodecError as error:
        raise LaneBroken(f"the worker sent what is no reply: {error}") from error


def _check_size(frame: Outbound) -> None:
    if len(frame) > MAX_FRAME:
        raise CodecError(
            f"arguments of {len(frame):,} bytes: the socket lane carries {MAX_FRAME:,}",
            path="args",
        )


def _poll(poller: select.poll, deadline: float | None) -> bool:
    """Wait until it is ready; ``False`` if the deadline came first."""

    def ready(seconds: float | None) -> list[tuple[int, int]]:
        return poller.poll(None if seconds is None else min(seconds * 1000.0, _LONGEST_POLL))

    while not (found := wait_for(ready, deadline)):
        if deadline is not None and deadline <= time.monotonic():
            break
    return bool(found)
