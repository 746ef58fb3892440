"""What does the application hold of one worker process? Its channel, status page and lane."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from ..adapter import ToolSpec
from ..core import events
from ..errors import PoolError
from ..lanes import envelope
from ..lanes.blackbox import STACK_SIGNAL, BlackBox
from ..lanes.frames import send_frame
from ..lanes.lane import Lane
from ..lanes.mailbox import MailboxLane, mailbox_of
from ..lanes.socket import Reactor, SocketLane
from ..lanes.status import INTERRUPT_SIGNAL, Phase, StatusPage
from ..telemetry.logs import logger
from ..values import codec
from .kernel import send_signal

__all__ = ["ExitStatus", "Incarnation", "LastWords"]

#: Seconds that the rest of a message may take to come.
_PATIENCE = 1.0


def _open_lane(target: str, token: str) -> Lane:
    # Here, since importing the library must not import grpc.
    from ..lanes.grpc import GrpcLane

    return GrpcLane(target, token)


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: by ``exit_code`` or by ``signal`` (a name such as ``SIGKILL``).

    ``oom`` and ``peak_rss`` as in `WorkerDied`.
    """

    exit_code: int | None
    signal: str | None
    oom: bool = False
    peak_rss: int | None = None


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a dead worker left: the last of its standard error, stacks, and since when it ran."""

    pid: int | None
    stderr: str = ""
    stack: str = ""
    since: float | None = None


@dataclass(slots=True)
class Incarnation:
    """One process of a worker slot: private channel, status page and token, never reused."""

    worker_id: int
    number: int
    channel: socket.socket
    status: StatusPage
    socket_path: str
    token: str
    spawned_at: float = field(default_factory=time.monotonic)
    pid: int | None = None
    pidfd: int | None = None
    lane: Lane | None = None
    address: str | None = None
    ready: bool = False
    #: When it was asked whether it is there; ``None`` once it has answered.
    asked_at: float | None = None
    #: Of the fork server that was asked for it.
    generation: int = 0

    @classmethod
    def prepare(
        cls,
        worker_id: int,
        number: int,
        socket_path: str,
        *,
        reactor: Reactor,
        lane: str,
        spin: float,
    ) -> tuple[Incarnation, list[socket.socket]]:
        """All that a process needs, and the child's ends of channel and lane (to be closed here).

        ``lane``: its name; the one over gRPC opens when the worker serves that. ``spin``: as in
        `mailbox_of`.
        """
        with ExitStack() as undo:
            pairs = [socket.socketpair() for _ in range(1 if lane == "grpc" else 2)]
            for end in itertools.chain.from_iterable(pairs):
                undo.callback(end.close)
            status = StatusPage.create()
            undo.callback(status.close)
            mailbox = mailbox_of(status.fd, spin) if lane == "mailbox" else None
            undo.pop_all()
        ours, theirs = zip(*pairs, strict=True)
        # Half a message from a worker that is stopped must not hold up everybody.
        ours[0].settimeout(_PATIENCE)
        made = cls(worker_id, number, ours[0], status, socket_path, secrets.token_hex(16))
        if mailbox is not None:
            made.lane = MailboxLane(ours[1], reactor, mailbox)
        elif lane == "socket":
            made.lane = SocketLane(ours[1], reactor, status.caller_is_on)
        return made, list(theirs)

    @property
    def key(self) -> tuple[int, int]:
        return self.worker_id, self.number

    def understand(
        self, frame: bytes, allow_pickle: bool
    ) -> events.Event | Mapping[str, ToolSpec] | logging.LogRecord | None:
        """What a frame from its channel means: an event, its tools, a record of its logs, or
        nothing to act upon.

        Raises ``ValueError``, ``TypeError`` or ``LookupError`` for what no worker says.
        """
        message = codec.decode(frame)
        kind = message["event"]
        if kind in ("ready", "serving"):
            return self._is_there(message.get("target"))
        if kind == "failed":
            reply = envelope.decode_reply(message["error"], allow_pickle=allow_pickle)
            cause = reply.error or PoolError("the worker did not say why it failed")
            return events.StartFailed(*self.key, cause)
        if kind == "log":
            # As the standard library receives records from elsewhere.
            return logging.makeLogRecord({**message["record"], "worker_id": self.worker_id})
        if kind == "pong":
            self.asked_at = None
            return events.WorkerHeard(*self.key)
        if kind == "tools":
            return {name: ToolSpec.from_dict(spec) for name, spec in message["tools"].items()}
        if kind == "released":
            return events.ToolEnded(*self.key, message["request_id"], message["attempt"])
        return None

    def _is_there(self, target: str | None) -> events.Event | None:
        """It takes calls or, with a ``target``, serves gRPC there; the first of it is news."""
        self.address = target or self.address
        if self.ready:
            return None
        if self.lane is None:
            if target is None:
                raise ValueError("a worker that serves gRPC alone does not say where")
            self.lane = _open_lane(target, self.token)
        self.ready = True
        return events.WorkerReady(*self.key)

    @property
    def black_box(self) -> BlackBox:
        return BlackBox(self.status.fd)

    def last_words(self) -> LastWords:
        """What the process, which has ended, has left behind."""
        box = self.black_box
        note, account = self.status.note(), self.status.account()
        since = account.since if note[2] in (Phase.TAKEN, Phase.ENTERED) else None
        return LastWords(self.pid, box.stderr(), box.stacks(), since)

    def write_stacks(self) -> int:
        """Have the process write its stacks; where they will begin."""
        since = self.black_box.size()
        self._signal(STACK_SIGNAL)
        return since

    def ask(self) -> None:
        """Ask whether it is there; it answers with a `WorkerHeard`."""
        if self.asked_at is None:
            self.asked_at = time.monotonic()
            self.command("ping")

    def command(self, name: str) -> None:
        """Send it an order over its channel."""
        try:
            send_frame(self.channel, codec.encode({"command": name}))
        except OSError as error:
            logger.debug("worker %d is gone already: %s", self.worker_id, error)

    def interrupt(self, request_id: int) -> None:
        """Have an exception raised in the tool, if it still runs this request."""
        self.status.interrupt(request_id)
        self._signal(INTERRUPT_SIGNAL)
        if self.lane is not None:
            self.lane.nudge()

    def _signal(self, number: int) -> None:
        assert self.pid is not None
        assert self.pidfd is not None
        try:
            send_signal(self.pidfd, self.pid, number)
        except OSError as error:  # too many are pending; the worker will be killed in the end
            logger.warning("worker %d cannot be signalled: %s", self.worker_id, error)

    def rss(self) -> int | None:
        """Resident memory in bytes; ``None`` where it cannot be told."""
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as statm:
                pages = int(statm.read().split()[1])
        except (OSError, IndexError):
            return None  # it has just ended, or there is no /proc
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """Let go of everything but the descriptors that a watcher must unregister first."""
        if self.lane is not None:
            self.lane.close()
        self.status.close()
