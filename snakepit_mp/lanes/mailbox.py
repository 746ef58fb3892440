"""How do frames reach a worker without a system call? Through memory that both of them map.

Theory of operation
-------------------
There is a slot for a request and one for a reply, for one call at a time. The caller's own thread
writes its frame and rings the worker's bell, a counter in the same memory; the worker's main
thread takes it, runs the tool, writes the reply and rings the caller's bell. Neither has a thread
in between.

*Waiting.* Each side tells on which CPU it is. One that waits looks again and again for some
microseconds, with the interpreter's lock given up, but only while the other was last seen on
another CPU: else it would keep from running the very process that it waits for. Then it sleeps
on the bell (a futex). It reads the bell before it looks, and the kernel lets it sleep only if the
bell is still the same: what comes in between is never slept through.

*Death.* The worker's main thread holds a robust mutex for life. The kernel marks and wakes it at
the very start of a process's end, long before its memory is freed; the caller sleeps on both
words at once. Where the kernel cannot (``futex_waitv`` is of Linux 5.16), the watcher, which
learns of the death a little later, buries the mailbox. Who wakes looks for the reply first.

*The rest goes over the socket*, as `SocketLane` does it: frames that are larger than a slot, and the
replies to calls that nobody waits for, streams among them. The bell is rung for that as well, since the worker sleeps on
nothing else. A caller that gives up leaves a reply under way; the next call then takes the
socket, which keeps the order.

*Batches.* Many tiny items come as one request. The worker claims one after the other, and writes
each result into the slot for replies, the *journal*, before it claims the next. How many may be
claimed, are claimed and are done is one word, changed by compare-and-swap: so the application can
take back what is not claimed, at any moment, and what the worker has done, and which item it had
in hand, is known exactly, also after its death.

A slot has a word that says what is in it, written last, and cleared before the slot is written
again. So a frame of a call that was given up is taken whole or not at all.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, ClassVar

from .. import _accel
from .envelope import HEADER_SIZE, REQUEST_ID_AT, Frame, Outbound, request_id_of
from .lane import LaneBroken, LaneTimeout
from .socket import Begun, SocketLane
from .worker_file import MAILBOX_AT, MAILBOX_SIZE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .._speedups import Mailbox
    from .packets import Outgoing, PacketKind
    from .socket import Reactor

__all__ = [
    "AUTOMATIC_SPIN",
    "LARGEST_BATCH",
    "MailboxLane",
    "mailbox_of",
    "workers_mailbox_of",
    "works_here",
]

#: Microseconds that a caller looks; no more than a wake-up costs.
AUTOMATIC_SPIN = 50.0
#: A worker looks longer: between two calls of one caller lies more than a worker needs for one.
_WORKERS_SHARE = 2

#: Bytes of a BATCH frame; half a slot, since results are often longer than what they are of.
LARGEST_BATCH = 32 << 10

_compiled = getattr(_accel.speedups, "Mailbox", None)

if _accel.speedups is not None:
    _ELSEWHERE: int = _accel.speedups.MAILBOX_OUTCOMES["elsewhere"]
    _NONSENSE: int = _accel.speedups.MAILBOX_OUTCOMES["nonsense"]
    _LATE: int = _accel.speedups.MAILBOX_OUTCOMES["late"]
    _LARGEST: int = _accel.speedups.MAILBOX_FRAME
    assert _accel.speedups.MAILBOX_BYTES <= MAILBOX_SIZE
    assert _accel.speedups.MAILBOX_HEADER == (HEADER_SIZE, REQUEST_ID_AT)


def works_here() -> bool:
    """Whether there is the compiled part, on a system that has futexes."""
    return _compiled is not None


def mailbox_of(fd: int, spin: float = AUTOMATIC_SPIN) -> Mailbox:
    """The caller's side of the mailbox in a worker's file; ``spin`` is in microseconds."""
    assert _compiled is not None
    mailbox: Mailbox = _compiled(fd, MAILBOX_AT, int(spin * 1000))
    return mailbox


def workers_mailbox_of(fd: int, spin: float = AUTOMATIC_SPIN) -> Mailbox:
    """The worker's side of the same one."""
    return mailbox_of(fd, spin * _WORKERS_SHARE)


class MailboxLane(SocketLane):
    """The application's end of a mailbox, and of a socket pair for what does not fit into it."""

    name: ClassVar[str] = "mailbox"

    def __init__(self, sock: socket.socket, reactor: Reactor, mailbox: Mailbox) -> None:
        super().__init__(sock, reactor)
        self._mailbox = mailbox
        self._main = threading.main_thread().ident

    def call(self, frame: Outbound, deadline: float | None = None) -> Frame:
        if not isinstance(frame, bytes) or len(frame) > _LARGEST or self._watched:
            return super().call(frame, deadline)
        if deadline is not None and deadline <= time.monotonic():
            raise LaneTimeout("the deadline had passed before the call was sent")
        try:
            reply = self._mailbox.call(frame, deadline, threading.get_ident() == self._main)
            if isinstance(reply, bytes):
                return reply
            if reply == _ELSEWHERE:
                with self._inside():
                    return self._reply_to(request_id_of(frame), deadline)
            if reply == _LATE:
                raise LaneTimeout("no reply before the deadline")
        except BaseException:
            self._give_up_reading()
            raise
        if reply == _NONSENSE:
            raise LaneBroken("the worker sent what is no reply to this call")
        raise LaneBroken("the worker has ended, or the lane was cancelled")

    def begin_batch(
        self, frame: bytes, items: int, done: Callable[[Frame | LaneBroken], None]
    ) -> None:
        """As `begin`, of a BATCH frame of at most `LARGEST_BATCH` bytes, with so many items."""
        self._begin(Begun(frame, done, items=items))

    def take_back(self) -> tuple[int, int]:
        """Leave the worker no item but the one that it has claimed, or will claim first; how many
        it has claimed by now, and how many of these are done."""
        return self._mailbox.take_back()

    def standing(self) -> tuple[int, int]:
        """How many items of the batch the worker has claimed, and how many are done."""
        return self._mailbox.standing()

    def journal(self, done: int) -> list[tuple[bytes, bool]]:
        """The results of that many items, each a value's encoding or an ERROR frame, and which.

        They outlive the worker, and last until the next call. ``ValueError`` for nonsense.
        """
        return self._mailbox.journal(done)

    def close_journal(self) -> None:
        """The batch has ended. Until the next one is on its way none of it counts as claimed, so
        that who asks too early is not told of this one."""
        self._mailbox.close_journal()

    def _give_up_reading(self) -> None:
        """What still comes is dropped, and the next call is not taken for it."""
        try:
            with self._inside():
                self.drain()
        except LaneBroken:
            pass  # nothing comes any more

    def _push(self, begun: Begun) -> None:
        frame = begun.frame
        # What may come after a stream's call, that it is closed, must not overtake it.
        plain = begun.unsent is None and not begun.streaming
        if begun.items:
            assert isinstance(frame, bytes)
            self._mailbox.post_batch(frame, begun.items)
        elif plain and isinstance(frame, bytes) and len(frame) <= _LARGEST:
            self._mailbox.post(frame)
        else:
            super()._push(begun)

    def send_some(self, packet: Outgoing) -> None:
        super().send_some(packet)
        self._mailbox.tell()

    def tell(self, kind: PacketKind, request_id: int) -> None:
        super().tell(kind, request_id)
        self._mailbox.tell()

    def nudge(self) -> None:
        self._mailbox.tell()

    def cancel(self) -> None:
        super().cancel()
        self._mailbox.tell()  # that the socket has ended

    def _break_off(self, error: LaneBroken) -> None:
        super()._break_off(error)
        self._mailbox.bury()
