"""Which fork servers are there? One that is asked; in a reload, the next; and those that leave.

Each has a generation of its own, counted over all of them, by which its reports are told apart.
"""

from __future__ import annotations

from collections.abc import Callable

from .events import ForkServerDue, ForkServerEvent, ForkServerLost
from .fork_server import ForkServerRecord
from .instructions import Instruction
from .lifecycle import Verdict

__all__ = ["ForkServers"]


class ForkServers:
    """``record()`` makes the one of a server that has not been started."""

    def __init__(self, record: Callable[[], ForkServerRecord]) -> None:
        self._record = record
        self._count = 0
        self.current = record()
        self.next: ForkServerRecord | None = None
        #: Those that get no request any more, until their end is known.
        self.leaving: dict[int, ForkServerRecord] = {}

    def judge(self, event: ForkServerEvent) -> Verdict:
        if isinstance(event, ForkServerDue):
            return self.current.judge(event)
        record = self.of(event.generation)
        if record is None:
            return Verdict.LATE if event.generation <= self._count else Verdict.ILLEGAL
        if record is not self.current and isinstance(event, ForkServerLost):
            return Verdict.NEWS
        return record.judge(event)

    def of(self, generation: int) -> ForkServerRecord | None:
        for record in (self.current, self.next):
            if record is not None and record.generation == generation:
                return record
        return self.leaving.get(generation)

    def start(self, now: float) -> list[Instruction]:
        """The one that is asked."""
        self._count += 1
        return self.current.start(self._count, now)

    def start_next(self, now: float) -> list[Instruction]:
        """One beside it."""
        self._count += 1
        self.next = self._record()
        return self.next.start(self._count, now)

    def promote(self) -> ForkServerRecord:
        """The next one is asked from now on; who was it until now."""
        assert self.next is not None
        before, self.current, self.next = self.current, self.next, None
        self.leaving[before.generation] = before
        return before

    def drop_next(self) -> list[Instruction]:
        """The next one will never be asked."""
        dropped, self.next = self.next, None
        if dropped is None:
            return []
        self.leaving[dropped.generation] = dropped
        return dropped.end()

    def end(self) -> list[Instruction]:
        ending = self.drop_next()
        for record in (self.current, *self.leaving.values()):
            ending += record.end()
        return ending
