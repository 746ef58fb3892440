"""How does a slot come to a new process? A fork server is asked, or waited for."""

from __future__ import annotations

from collections.abc import Sequence

from .events import RestartDue, StartTimedOut
from .fork_server import ForkServerRecord, ForkServerState
from .fork_servers import ForkServers
from .instructions import Instruction, SpawnWorker, StartTimer
from .lifecycle import WorkerState
from .slots import Incarnation, Slot

__all__ = ["Spawning"]


class Spawning:
    """Asks for processes, each to be ready within ``start_timeout`` seconds."""

    def __init__(self, servers: ForkServers, slots: Sequence[Slot], start_timeout: float) -> None:
        self._servers = servers
        self._slots = slots
        self._start_timeout = start_timeout
        self.restarts = 0

    def anew(
        self, slot: Slot, now: float, server: ForkServerRecord | None = None
    ) -> list[Instruction]:
        """A further process, by default of the server that is asked."""
        following = slot.current.number + 1
        slot.step(RestartDue(slot.worker_id, following))
        slot.current = Incarnation(following)
        return self.ask(slot, now, server or self._servers.current)

    def those_waiting(self, now: float) -> list[Instruction]:
        """For those who wait for a fork server, if there is one."""
        instructions: list[Instruction] = []
        for slot in self._slots:
            if slot.state is WorkerState.SPAWNING and not slot.unanswered:
                instructions += self.ask(slot, now, self._servers.current)
        return instructions

    def ask(self, slot: Slot, now: float, server: ForkServerRecord) -> list[Instruction]:
        """If the server is not up, whoever comes up next will be asked."""
        if server.state is not ForkServerState.UP:
            return []
        current = slot.current
        current.generation = server.generation
        current.asked_at = now
        self.restarts += current.number > 1
        key = slot.worker_id, current.number
        timer = StartTimer(self._start_timeout, StartTimedOut(*key))
        return [SpawnWorker(*key, server.generation), timer]
