"""What is supervised, and by whom? A picture of one moment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..core.pool_state import ForkServerRow, WorkerRow
from .incarnation import Incarnation

__all__ = ["Branch", "server_branch", "worker_branch"]


@dataclass(frozen=True, slots=True)
class Branch:
    """A component, and what it supervises; printed, it is a tree.

    ``since``: seconds that it has been what it is; ``restarts``: how often it was started
    again; ``facts``: whatever else there is to say, as text.
    """

    name: str
    state: str
    since: float | None = None
    restarts: int = 0
    pid: int | None = None
    facts: tuple[str, ...] = ()
    children: tuple[Branch, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = [self._line()]
        for number, child in enumerate(self.children, 1):
            last = number == len(self.children)
            first, *rest = child._lines()
            lines.append(("└── " if last else "├── ") + first)
            lines += [("    " if last else "│   ") + line for line in rest]
        return lines

    def _line(self) -> str:
        facts = [self.state]
        if self.pid is not None:
            facts.append(f"pid {self.pid}")
        if self.since is not None:
            facts.append(f"for {self.since:.1f} s")
        if self.restarts:
            facts.append(f"restarted {self.restarts} times")
        return f"{self.name}: {', '.join((*facts, *self.facts))}"


def server_branch(
    row: ForkServerRow,
    pid: int | None,
    since: float | None,
    workers: Sequence[tuple[WorkerRow, Incarnation | None]],
) -> Branch:
    """A fork server's place in the tree, with its workers, and those who wait for it."""
    own = (row.generation, 0) if row.asked else (row.generation,)
    return Branch(
        "fork server",
        row.state.name,
        since=since,
        restarts=max(row.generation - 1, 0),
        pid=pid,
        children=tuple(worker_branch(*each) for each in workers if each[0].generation in own),
    )


def worker_branch(row: WorkerRow, incarnation: Incarnation | None) -> Branch:
    """A worker's place in the tree."""
    since, facts = None, []
    if incarnation is not None:
        account = incarnation.status.account()
        since = time.monotonic() - incarnation.spawned_at
        facts.append(f"{account.tasks} tasks in {account.busy:.1f} s")
    if row.request_id is not None:
        facts.append(f"has request {row.request_id}")
    return Branch(
        name=f"worker {row.worker_id}",
        state=row.state.name,
        since=since,
        restarts=max(row.incarnation - 1, 0),
        pid=row.pid,
        facts=tuple(facts),
    )
