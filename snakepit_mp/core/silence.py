"""Who is judged by his silence? Idle workers, and those that a signal has stopped."""

from __future__ import annotations

from .dispatch import IdleWorkers
from .events import SilenceOverdue, WorkerHeard, WorkerSilent
from .instructions import Instruction, StartTimer
from .lifecycle import WorkerState
from .slots import Slot

__all__ = ["Silence"]

_S = WorkerState


class Silence:
    """Takes silent workers out of ``idle`` and gives them ``grace`` seconds."""

    def __init__(self, idle: IdleWorkers, grace: float) -> None:
        self._idle = idle
        self._grace = grace

    def began(self, slot: Slot, event: WorkerSilent) -> list[Instruction]:
        idle = slot.state is _S.READY
        slot.step(event)
        self._idle.discard(slot.worker_id)
        current = slot.current
        judged = idle or (event.stopped and slot.state is _S.EXECUTING)
        if current.silent or not judged:
            return []
        current.silent = True
        current.silences += 1
        overdue = SilenceOverdue(slot.worker_id, current.number, current.silences)
        return [StartTimer(self._grace, overdue)]

    def ended(self, slot: Slot, event: WorkerHeard) -> list[Instruction]:
        was_reconnecting = slot.state is _S.RECONNECTING
        slot.step(event)
        slot.current.silent = False
        if was_reconnecting:
            self._idle.add(slot.worker_id)
        return []
