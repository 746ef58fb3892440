"""Is there a fork server to ask, and when is another one started?

One that had a worker ready has proved that it can work: the next one starts at once. One
that had not counts as a failed start, by the same rule as a worker's, but never as the last one
if there was a worker ready before: what can be imported is worth another try. A new one is only
started where somebody wants to be forked, so there is none for a pool that ends.
"""

from __future__ import annotations

from enum import Enum, auto

from ..telemetry.events import Announcer, ForkServerStateChanged
from .events import ForkServerDue, ForkServerEvent, ForkServerLost, ForkServerStarted
from .instructions import Instruction, StartForkServer, StartTimer, StopForkServer
from .lifecycle import Verdict
from .restart import RestartIntensity

__all__ = ["ForkServerRecord", "ForkServerState"]


class ForkServerState(Enum):
    """Where the fork server is in its life."""

    DOWN = auto()  # none, and one may be started
    STARTING = auto()
    UP = auto()
    DYING = auto()  # it left a fork unanswered; the notice of its end follows
    BACKOFF = auto()
    FAILED = auto()
    ENDED = auto()  # told to stop; there will be no other


_ALIVE = frozenset({ForkServerState.STARTING, ForkServerState.UP, ForkServerState.DYING})


class ForkServerRecord:
    """The fork server of a pool, as the machine sees it."""

    def __init__(self, intensity: RestartIntensity, announcer: Announcer) -> None:
        self._intensity = intensity
        self._announcer = announcer
        self._proven = False
        self._ever_proven = False
        self._started_at = 0.0
        self.generation = 0
        self.state = ForkServerState.DOWN

    @property
    def alive(self) -> bool:
        return self.state in _ALIVE

    def _turn(self, state: ForkServerState) -> None:
        before, self.state = self.state, state
        if self._announcer.active and state is not before:
            change = ForkServerStateChanged(self.generation, before.name, state.name)
            self._announcer.publish(change)

    def judge(self, event: ForkServerEvent) -> Verdict:
        if isinstance(event, ForkServerDue):
            return self._judge_due(event)
        if event.generation != self.generation:
            late = event.generation < self.generation
            return Verdict.LATE if late else Verdict.ILLEGAL
        if isinstance(event, ForkServerLost):
            return Verdict.NEWS if self.alive else Verdict.LATE
        if isinstance(event, ForkServerStarted) and self.state is ForkServerState.UP:
            return Verdict.ILLEGAL
        expected = self.state in (ForkServerState.STARTING, ForkServerState.ENDED)
        return Verdict.NEWS if expected else Verdict.LATE

    def _judge_due(self, event: ForkServerDue) -> Verdict:
        if event.generation > self.generation + 1:
            return Verdict.ILLEGAL
        due = self.state is ForkServerState.BACKOFF and event.generation > self.generation
        return Verdict.NEWS if due else Verdict.LATE

    def start(self, generation: int, now: float) -> list[Instruction]:
        self.generation = generation
        self._turn(ForkServerState.STARTING)
        self._proven = False
        self._started_at = now
        return [StartForkServer(self.generation)]

    def started(self) -> list[Instruction]:
        if self.state is ForkServerState.ENDED:
            # The order to stop overtook the order to start.
            return [StopForkServer(self.generation)]
        self._turn(ForkServerState.UP)
        return []

    def had_worker_ready(self, generation: int) -> None:
        self._proven = self._proven or generation == self.generation
        self._ever_proven = True

    def left_unanswered(self, generation: int) -> None:
        """It died before it answered: ask it for nothing more."""
        if generation == self.generation and self.alive:
            self._turn(ForkServerState.DYING)

    def lost(self, event: ForkServerLost, now: float) -> list[Instruction]:
        if event.permanent:
            self._turn(ForkServerState.FAILED)
            return []
        if self._proven:
            self._intensity.reset()
            self._turn(ForkServerState.DOWN)
            return []
        delay = self._intensity.record_death(now, now - self._started_at)
        if delay is None and self._ever_proven:
            # The adapter can be imported, so somebody kills it: wait long, but go on.
            delay = self._intensity.longest
        if delay is None:
            self._turn(ForkServerState.FAILED)
            return []
        self._turn(ForkServerState.BACKOFF)
        return [StartTimer(delay, ForkServerDue(self.generation + 1))]

    def due(self) -> None:
        self._turn(ForkServerState.DOWN)

    def forgive(self) -> None:
        """Forget failures; what had been given up, or waits, may be started at once."""
        self._intensity.reset()
        if self.state in (ForkServerState.FAILED, ForkServerState.BACKOFF):
            self._turn(ForkServerState.DOWN)

    def end(self) -> list[Instruction]:
        alive = self.alive
        self._turn(ForkServerState.ENDED)
        return [StopForkServer(self.generation)] if alive else []
