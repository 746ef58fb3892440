"""How much memory has this worker? Measured by itself, now and then."""

from __future__ import annotations

import os
import time

from ..lanes.status import StatusPage

__all__ = ["MemoryNotes", "resident"]

#: Seconds between two measurements: each costs as much as a short tool.
_INTERVAL = 0.25


def resident() -> int | None:
    """Resident bytes of this process; ``None`` where that cannot be told."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


class MemoryNotes:
    """Keeps a status page informed."""

    def __init__(self, status: StatusPage) -> None:
        self._status = status
        self._due = 0.0

    def after_task(self) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _INTERVAL
        if (size := resident()) is not None:
            self._status.measure(size)
