"""Where does the main thread of a worker wait that is reached through a mailbox? At its bell.

Everybody who has something for it rings: the application, whether it wrote into the mailbox or
into the socket, and the worker's own threads and signal handlers.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from ..lanes.envelope import Outbound
from .job import Journal
from .socket_inbox import SocketInbox, SocketJob

if TYPE_CHECKING:
    from .._speedups import Mailbox

__all__ = ["MailboxInbox", "MailboxJob", "PostedJob"]


class MailboxInbox(SocketInbox):
    """What `Executor.run` takes its work from; to be made by the thread that calls `get`.

    The end of that thread is what a waiting caller learns of at once.
    """

    def __init__(self, sock: socket.socket, mailbox: Mailbox) -> None:
        super().__init__(sock)
        self._mailbox = mailbox
        self._unread = False  # there may be more in the socket
        mailbox.own()

    def put(self, item: Any) -> None:
        super().put(item)
        self._mailbox.ring()

    def get(self) -> Any:
        mailbox = self._mailbox
        while True:
            bell = mailbox.bell()
            if self._items:
                return self._items.popleft()
            frame = mailbox.take()
            if frame is not None:
                kind = PostedJob if mailbox.answered_apart() else MailboxJob
                self._last = job = kind(self, frame)
                return job
            if self._frames:
                self._last = SocketJob(self, self._frames.popleft())
                return self._last
            if mailbox.news() or self._unread:
                self._unread = self._receive()
                self._sort_packets()
            elif self._reader.waits_for_more:
                self._wait()
                self._sort_packets()
                self._unread = True
            else:
                mailbox.rest(bell)

    @property
    def journal(self) -> Mailbox:
        return self._mailbox

    def answer(self, request_id: int, reply: Outbound) -> None:
        short = reply if isinstance(reply, bytes) else None
        if not self._mailbox.reply(request_id, short):
            self.send(reply)


class PostedJob(SocketJob):
    """One request, perhaps a batch, that came through the mailbox and is answered apart."""

    _inbox: MailboxInbox

    @property
    def journal(self) -> Journal:
        return self._inbox.journal


class MailboxJob(SocketJob):
    """One request that came through the mailbox, to whose caller the reply goes the same way."""

    _inbox: MailboxInbox

    def finish(self, reply: Outbound) -> None:
        if reply:
            self._inbox.answer(self.header.request_id, reply)
        super().finish(b"")
