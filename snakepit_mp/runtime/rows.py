"""What does each worker do at this moment? The rows of `Pool.workers`."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..core.pool_state import WorkerRow
from .incarnation import Incarnation
from .waiter import Waiter

__all__ = ["WorkerInfo", "row_of"]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A row of `Pool.workers`. ``rss`` in bytes, ``age`` in seconds since it was spawned."""

    id: int
    incarnation: int
    pid: int | None
    state: str
    address: str | None
    lane: str
    tasks: int
    rss: int | None
    age: float | None
    session_id: str | None
    command: str | None


def row_of(
    row: WorkerRow, incarnation: Incarnation | None, waiter: Waiter | None, lane: str
) -> WorkerInfo:
    """What the brain knows of a worker, its process tells, and its request is."""
    return WorkerInfo(
        id=row.worker_id,
        incarnation=row.incarnation,
        pid=row.pid,
        state=row.state.name,
        address=None if incarnation is None else incarnation.address,
        lane=lane,
        tasks=row.tasks,
        rss=None if incarnation is None else incarnation.rss(),
        age=None if incarnation is None else time.monotonic() - incarnation.spawned_at,
        session_id=None if waiter is None else waiter.ticket.session_id,
        command=None if waiter is None else waiter.ticket.command,
    )
