"""What does the application hold of one worker process? Its channel, status page and lane."""

from __future__ import annotations

import os
import secrets
import socket
import time
from dataclasses import dataclass, field

from ..lanes.lane import Lane
from ..lanes.status import Phase, StatusPage

__all__ = ["ExitStatus", "Incarnation"]


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: by ``exit_code`` or by ``signal`` (a name such as ``SIGKILL``)."""

    exit_code: int | None
    signal: str | None


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
    #: The fork server that was asked for it.
    server: object = None

    @classmethod
    def prepare(
        cls, worker_id: int, number: int, socket_path: str
    ) -> tuple[Incarnation, socket.socket]:
        """All that a process needs, and the child's end of the channel (to be closed here)."""
        ours, theirs = socket.socketpair()
        incarnation = cls(
            worker_id, number, ours, StatusPage.create(), socket_path, secrets.token_hex(16)
        )
        return incarnation, theirs

    @property
    def key(self) -> tuple[int, int]:
        return self.worker_id, self.number

    def phase_of(self, request_id: int | None) -> Phase | None:
        """How far the process came with the request; ``None`` if it never noted it."""
        noted, phase = self.status.read()
        return phase if noted == request_id else None

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
