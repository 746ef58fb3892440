"""How does new code come in without a call being lost? First a trial, then one by one.

A second fork server imports the code beside the first, and a first worker of it is started in
the spare slot (`recycling`). Until that is ready, whatever goes wrong ends the reload, and
nothing has changed. Once it is, the new server is the one that is asked, and the workers of the
old one are due: each leaves when its successor is ready and its request is done, the idle ones
first. The old server leaves after its last worker.

If the old server dies in between, what it had is lost anyway: the new one takes over at once.
Nor is there a trial if nobody serves: then there is nothing to be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import PoolClosed, PoolError, WorkerStartError
from .events import ForkServerLost
from .fork_server import ForkServerState
from .fork_servers import ForkServers
from .instructions import Instruction, ReportReloaded
from .lifecycle import DEAD_STATES, SERVING_STATES, WorkerState
from .recycling import COMING_STATES, Recycling
from .slots import Slot
from .spawning import Spawning

__all__ = ["Reload", "Workforce"]

_STARTING = frozenset({WorkerState.SPAWNING, WorkerState.CONNECTING})
_STAYING = SERVING_STATES | {WorkerState.RECONNECTING}


class Workforce(Protocol):
    """What a reload asks of the supervisor."""

    slots: list[Slot]
    servers: ForkServers
    spawning: Spawning
    recycling: Recycling
    failure: BaseException | None

    @property
    def all_over(self) -> bool: ...

    def restart(self, now: float) -> list[Instruction]: ...

    def orphan(self, slot: Slot, now: float) -> list[Instruction]: ...


class Reload:
    """One at a time; ``needed()`` tells whether the pool wants workers."""

    def __init__(self, workforce: Workforce, needed: Callable[[], bool]) -> None:
        self._workforce = workforce
        self._servers = workforce.servers
        self._needed = needed
        self._tried = False
        self.active = False

    @property
    def busy(self) -> bool:
        """There is something to go on with."""
        return self.active or bool(self._servers.leaving)

    def begin(self, now: float) -> list[Instruction]:
        self.active = True
        if self._servers.current.alive:
            return self._servers.start_next(now)
        return self._workforce.restart(now)

    def go_on(self, now: float) -> list[Instruction]:
        """After every event: whatever has become possible."""
        instructions: list[Instruction] = []
        if self.active and not self._needed():
            closed = PoolClosed("the pool was shut down before it was reloaded")
            instructions += self._fail(closed, now)
        following = self._servers.next
        if following is not None and following.state is ForkServerState.UP and not self._tried:
            instructions += self._try(now)
        instructions += self._let_servers_go()
        if self.active and self._servers.next is None:
            instructions += self._report()
        return instructions

    def _report(self) -> list[Instruction]:
        """It is over when everybody runs the new code, or nobody can."""
        failed = self._servers.current.state is ForkServerState.FAILED
        if not failed and not self._is_complete():
            return []
        self.active = False
        cause = self._workforce.failure if failed or self._workforce.all_over else None
        return [ReportReloaded(None if cause is None else _refusal(cause))]

    def ready(self, slot: Slot, now: float) -> list[Instruction]:
        """A worker is ready; if it is the first of the new code, that is good."""
        return self._promote(now) if self._is_trial(slot) else []

    def ended(self, slot: Slot, now: float) -> list[Instruction]:
        """A process has ended; if it is the one that was tried, so has the reload."""
        if not self._is_trial(slot):
            return []
        cause = slot.current.cause or PoolError("its first worker ended before it was ready")
        return self._fail(_refusal(cause), now)

    def server_lost(self, event: ForkServerLost, now: float) -> list[Instruction]:
        """One that was to be asked next, or never again, has ended."""
        if self._servers.next is None or self._servers.next.generation != event.generation:
            del self._servers.leaving[event.generation]
            return []
        cause = event.cause or PoolError("its fork server ended before it had a worker ready")
        instructions = self._fail(_refusal(cause), now)
        del self._servers.leaving[event.generation]
        return instructions

    def take_over(self, now: float) -> list[Instruction]:
        """The server that was asked has ended; the next one need not be tried any more."""
        lost = self._servers.promote()
        del self._servers.leaving[lost.generation]
        self._tried = False
        return self._workforce.spawning.those_waiting(now)

    def _is_trial(self, slot: Slot) -> bool:
        following = self._servers.next
        return following is not None and slot.current.generation == following.generation

    def _try(self, now: float) -> list[Instruction]:
        recycling = self._workforce.recycling
        old = recycling.choose(lambda slot: slot.state in _STAYING)
        if old is None and any(slot.state in _STARTING for slot in self._workforce.slots):
            return []  # there may be something to be lost soon
        if old is None:
            return self._promote(now) + self._workforce.restart(now)
        if not recycling.free:
            return []  # somebody is being replaced just now
        self._tried = True
        recycling.leaving = old.worker_id, old.current.number
        return self._workforce.spawning.anew(recycling.spare, now, self._servers.next)

    def _promote(self, now: float) -> list[Instruction]:
        self._tried = False
        old = self._servers.promote()
        for slot in self._workforce.slots:
            if slot.current.generation == old.generation:
                self._workforce.recycling.mark(slot)
        return self._workforce.spawning.those_waiting(now)

    def _fail(self, failure: PoolError, now: float) -> list[Instruction]:
        self.active = self._tried = False
        slots = [slot for slot in self._workforce.slots if self._is_trial(slot)]
        instructions = self._servers.drop_next()
        for slot in slots:
            if slot is self._workforce.recycling.spare:
                self._workforce.recycling.leaving = None
            instructions += self._workforce.orphan(slot, now)
        return [*instructions, ReportReloaded(failure)]

    def _let_servers_go(self) -> list[Instruction]:
        instructions: list[Instruction] = []
        for generation, server in self._servers.leaving.items():
            if not self._has_workers(generation):
                instructions += server.end()
        return instructions

    def _has_workers(self, generation: int) -> bool:
        return any(
            slot.current.generation == generation and slot.state not in DEAD_STATES
            for slot in self._workforce.slots
        )

    def _is_complete(self) -> bool:
        asked = self._servers.current.generation
        return not any(
            slot.state in COMING_STATES
            or (slot.state not in DEAD_STATES and slot.current.generation != asked)
            for slot in self._workforce.slots
        )


def _refusal(cause: BaseException) -> PoolError:
    error = WorkerStartError(f"the new code cannot be started: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
