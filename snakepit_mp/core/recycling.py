"""When is a worker replaced that is well, and by whom? One at a time, and its successor first.

There is one slot more than workers, the *spare*, which as a rule is empty. When a worker is due,
by its tasks, age or memory, or because its code is old (`reload`), a process is started in the
spare; when that is ready, the old worker takes nothing more and leaves, and its slot is the spare from then on. So
there is never a worker less. Only one that has used up its tasks before its successor is there
leaves at once: that limit is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .events import WorkerAged, WorkerMeasured
from .instructions import Instruction, StartTimer
from .lifecycle import SERVING_STATES, SlotRetired, WorkerState
from .slots import Slot

__all__ = ["COMING_STATES", "Recycling", "WorkerLimits"]

_S = WorkerState
COMING_STATES = frozenset({_S.SPAWNING, _S.CONNECTING, _S.BACKOFF})
#: By how much, at most, a worker is due before its limit: so not all are due together.
_SPREAD = 0.2


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """``tasks``, ``age`` in seconds and ``rss`` in bytes, after which a worker is replaced."""

    tasks: int | None = None
    age: float | None = None
    rss: int | None = None

    @property
    def any(self) -> bool:
        return not (self.tasks is None and self.age is None and self.rss is None)


class Recycling:
    """The spare slot, and whom it is to replace."""

    def __init__(
        self, limits: WorkerLimits, slots: Sequence[Slot], jitter: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._jitter = jitter
        self._slots = slots
        self.spare = slots[-1]
        self.leaving: tuple[int, int] | None = None  # worker and incarnation
        self.recycled = 0
        #: Whether anybody may be due.
        self.wanted = limits.tasks is not None

    def is_dormant(self, slot: Slot) -> bool:
        """It is the spare, and there is nothing in it."""
        return self._is_unwanted(slot) and slot.state in (_S.STOPPED, _S.FAILED)

    def _is_unwanted(self, slot: Slot) -> bool:
        """It is the spare, and nobody is to be replaced."""
        return slot is self.spare and self.leaving is None

    def began(self, slot: Slot) -> list[Instruction]:
        """A worker is ready: from here on it ages."""
        limits, current = self._limits, slot.current
        if limits.tasks is not None:
            current.due_after = max(1, int(limits.tasks * self._early()))
        if limits.age is None:
            return []
        aged = WorkerAged(slot.worker_id, current.number)
        return [StartTimer(limits.age * self._early(), aged)]

    def mark(self, slot: Slot) -> None:
        """It is due."""
        slot.current.due = self.wanted = True

    def aged(self, slot: Slot) -> list[Instruction]:
        self.mark(slot)
        return []

    def measured(self, slot: Slot, event: WorkerMeasured) -> list[Instruction]:
        if self._limits.rss is not None and event.rss > self._limits.rss:
            self.mark(slot)
        return []

    def has_to_leave(self, slot: Slot) -> bool:
        """It must not get another request."""
        limit = self._limits.tasks
        return slot.current.retired or (limit is not None and slot.current.tasks >= limit)

    def next_due(self) -> Slot | None:
        """Who is to be replaced now; ``None`` if nobody is, or somebody is already."""
        if not self.free:
            return None
        chosen = self.choose(self._is_due)
        if chosen is None and self._limits.tasks is None:
            self.wanted = any(slot.current.due for slot in self._slots)
        return chosen

    @property
    def free(self) -> bool:
        """Nobody is being replaced, and there is a place for a successor."""
        return self.leaving is None and self.spare.state is _S.STOPPED

    def choose(self, suits: Callable[[Slot], bool]) -> Slot | None:
        """Whom to replace of those who suit: an idle one, whom nobody has to wait for, if any."""
        found = [slot for slot in self._slots if slot is not self.spare and suits(slot)]
        idle = (slot for slot in found if slot.state is _S.READY)
        return next(idle, found[0] if found else None)

    def forgive(self) -> None:
        """An empty spare that had been given up may be used again."""
        if self._is_unwanted(self.spare) and self.spare.state is _S.FAILED:
            self.spare.step(SlotRetired())

    def succeeded(self, slot: Slot) -> Slot | None:
        """A worker is ready; whom it replaces, if it does."""
        if slot is not self.spare or self.leaving is None:
            return None
        old = self._slots[self.leaving[0]]
        self._swap(old)
        old.current.retired = True
        return old

    def ended(self, slot: Slot) -> bool:
        """A process has ended; whether its slot needs no other, being the spare now."""
        if slot.current.retired or self._is_unwanted(slot):
            return True
        if self.leaving == (slot.worker_id, slot.current.number):
            if self.spare.state in COMING_STATES:
                self._swap(slot)
                return True
            self.leaving = None
        # It had used up its tasks before anybody was there to take its place.
        self.recycled += slot.current.ordered and self.has_to_leave(slot)
        return False

    def _swap(self, old: Slot) -> None:
        self.spare, self.leaving = old, None
        self.recycled += 1

    def _is_due(self, slot: Slot) -> bool:
        current = slot.current
        full = current.due_after is not None and current.tasks >= current.due_after
        return slot.state in SERVING_STATES and (full or current.due) and not current.killed

    def _early(self) -> float:
        return 1.0 - _SPREAD * (1.0 + self._jitter()) / 2.0
