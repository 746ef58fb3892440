"""A pool's brain to be played with: feed it events, look at the instructions.

`Play` validates the state after every event and lets a test write only what it is about.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import (
    Event,
    ForkServerStarted,
    PoolStarted,
    Request,
    RequestSubmitted,
    WorkerForked,
    WorkerReady,
)
from snakepit_mp.core.instructions import Instruction, StartTimer
from snakepit_mp.core.lifecycle import WorkerState
from snakepit_mp.core.pool_state import PoolState, WorkerRow

SETTINGS: dict[str, Any] = {
    "workers": 1,
    "queue_size": 10,
    "on_full": "wait",
    "restart": RestartPolicy(jitter=0.0),
    "poison_after": 3,
    "start_timeout": 60.0,
    "grace": 5.0,
    "jitter": lambda: 0.0,
}


def pid_of(worker_id: int, incarnation: int) -> int:
    return 1000 * (worker_id + 1) + incarnation


class Play:
    """A `PoolState` and a clock that stands still unless it is moved."""

    def __init__(self, **settings: Any) -> None:
        self.state = PoolState(**{**SETTINGS, **settings})
        self.now = 100.0

    def __call__(self, *events: Event) -> list[Instruction]:
        """Handle the events; all instructions that came of them."""
        instructions: list[Instruction] = []
        for event in events:
            instructions += self.state.handle(event, self.now)
            self.state.validate()
        return instructions

    def start(self) -> Play:
        """Up to SPAWNING, with a fork server that was asked."""
        self(PoolStarted(), ForkServerStarted(1))
        return self

    def fork(self, worker_id: int = 0, incarnation: int = 1) -> list[Instruction]:
        return self(WorkerForked(worker_id, incarnation, pid_of(worker_id, incarnation)))

    def ready(self, worker_id: int = 0, incarnation: int = 1) -> list[Instruction]:
        """From SPAWNING to READY."""
        forked = self.fork(worker_id, incarnation)
        return forked + self(WorkerReady(worker_id, incarnation))

    def up(self) -> Play:
        """Every worker READY."""
        self.start()
        for worker_id in range(len(self.state.workers())):
            self.ready(worker_id)
        return self

    def submit(self, request_id: int = 1, **facts: Any) -> list[Instruction]:
        return self(RequestSubmitted(Request(request_id, **facts)))

    def row(self, worker_id: int = 0) -> WorkerRow:
        return self.state.workers()[worker_id]

    def worker(self, worker_id: int = 0) -> WorkerState:
        return self.row(worker_id).state

    def picture(self) -> object:
        """All that the machine knows, to be compared."""
        return _picture(self.state)


def without_timers(instructions: list[Instruction]) -> list[Instruction]:
    return [one for one in instructions if not isinstance(one, StartTimer)]


def _picture(thing: Any, within: tuple[int, ...] = ()) -> object:
    if id(thing) in within:
        return "see above"
    within = (*within, id(thing))
    if isinstance(thing, dict):
        return [(key, _picture(value, within)) for key, value in thing.items()]
    if isinstance(thing, (list, tuple, deque)):
        return [_picture(item, within) for item in thing]
    names = [*getattr(thing, "__dict__", ()), *getattr(type(thing), "__slots__", ())]
    if type(thing).__module__.startswith("snakepit_mp.core") and names:
        return [(name, _picture(getattr(thing, name), within)) for name in names]
    return thing if isinstance(thing, (int, float, str, set, frozenset)) else repr(thing)
