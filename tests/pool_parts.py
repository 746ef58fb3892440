"""What there is around a pool's brain, as `pool_world` knows it: the truth."""

from __future__ import annotations

from dataclasses import dataclass, field

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import Phase, Request
from snakepit_mp.core.pool_state import PoolState
from snakepit_mp.core.recycling import WorkerLimits
from snakepit_mp.core.requests import Prefetch

Key = tuple[int, int]

QUEUE_SIZE = 3
#: How many go together of each kin, whose weight is 10 or 40, and the room for them.
AHEAD, ROOM = {b"a": 4, b"b": 2}, 60
POISON_AFTER = 3


def brain(
    workers: int, on_full: str, restart: RestartPolicy, limits: WorkerLimits | None
) -> PoolState:
    """A pool's state machine, as the plays have it."""
    return PoolState(
        workers=workers,
        queue_size=QUEUE_SIZE,
        on_full=on_full,
        restart=restart,
        poison_after=POISON_AFTER,
        start_timeout=60.0,
        grace=5.0,
        jitter=lambda: 0.5,
        limits=limits,
        prefetch=Prefetch(AHEAD.__getitem__, ROOM),
    )


@dataclass
class Process:
    key: Key
    generation: int
    alive: bool = True
    starting: bool = True
    told_to_stop: bool = False
    mute: bool = False
    inbox: tuple[int, int] | None = None  # a request sent, not yet taken, and the attempt
    page: tuple[int, int, Phase] = (0, 0, Phase.IDLE)

    @property
    def has_work(self) -> bool:
        return self.inbox is not None or self.page[2] in (Phase.TAKEN, Phase.ENTERED)


@dataclass
class Server:
    generation: int
    alive: bool = True
    asked: list[Key] = field(default_factory=list)


@dataclass
class Call:
    """A caller's side of a request, and what really became of it."""

    request: Request
    answers: list[object] = field(default_factory=list)
    admitted: bool = False
    entered: int = 0  # how often its tool was really called
    deaths: int = 0  # those that may have been its fault
    other_deaths: int = 0
    progressed: bool = False

    @property
    def open(self) -> bool:
        return not self.answers


def looks_of(state: PoolState) -> tuple[object, ...]:
    """All that a machine knows, to be compared."""
    requests, supervisor = state._requests, state._supervisor
    line, idle, recycling = requests.line, supervisor.idle, supervisor.recycling
    return (
        state.counters(),
        state._story[-1][0],
        state.shortcut.open,
        list(requests.open.items()),
        [
            list(part.items())
            for part in (line._admitted, line._aside, line._parked, line._held_back)
        ],
        list(idle._fresh),
        list(idle._warm),
        list(idle._last_worker.items()),
        # By its text: causes are equal to themselves only.
        [(slot.state, repr(slot.current), slot.given_up) for slot in supervisor.slots],
        (recycling.leaving, recycling.wanted, recycling.recycled, recycling.spare.worker_id),
        state.fork_servers(),
    )
