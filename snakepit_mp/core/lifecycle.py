"""What may happen to a worker in which state, and what becomes of it? One table.

Theory of operation
-------------------
A *slot* is a worker's place in the pool: it keeps its id for the life of the pool and gets
one process after the other, its *incarnations*. This module is the life of a slot and knows
nothing else: not why a decision was taken, nor what is to be done about it.

What moves a slot is either an event from outside (`events`) or a *decision* of the machine
itself (below). Whatever is not in the table is illegal: it raises `InvalidTransition` and
changes nothing. The diagram in the documentation is printed from the table.

Five rules explain its shape.

1. *No process, no news.* In STOPPED, BACKOFF and FAILED there is no process, so every report
   about one is late. It is ignored, not illegal: an exit is seen through a pidfd, by the fork
   server and by a broken lane, and one of them is the first.
2. *Every end leads to STOPPED*, whatever the state; a decision follows in the same breath:
   start again at once (`RestartDue`), start again later (`RestartDelayed`), never again
   (`RestartDenied`), or nothing, because the pool is stopping. So the question whether a death
   counts is asked in one place.
3. *STOPPING has no way back.* A worker that was ordered to end, politely or by force, takes
   no request any more, even if it comes to be ready, or turns out to be well, in that moment.
   Only its end matters. It has no request in hand.
4. *INTERRUPTING has a request that nobody waits for.* It was answered already, by a time-out or
   a cancellation; the worker takes the next one when its tool has stopped.
5. *Only an idle worker is judged by its silence.* It is RECONNECTING, and takes nothing, until
   it answers; a long call in C does not answer either. A worker that was stopped by a signal is
   judged in any state.

SPAWNING begins before the fork server is asked and waits there for a server. It ends with the
answer to the fork, so that no request is ever granted to a process that could not be killed,
for want of its pid: `WorkerReady` and `StartFailed`, which come over another descriptor, may
overtake that answer and are kept until it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from .events import (
    AttemptFailed,
    Event,
    LaneBroke,
    PoolStarted,
    RequestCompleted,
    RestartDue,
    RestartRequested,
    SilenceOverdue,
    SpawnFailed,
    SpawnLost,
    StartFailed,
    StartTimedOut,
    StopTimedOut,
    ToolEnded,
    ToolOverdue,
    WorkerExited,
    WorkerForked,
    WorkerHeard,
    WorkerReady,
    WorkerSilent,
)

__all__ = [
    "DEAD_STATES",
    "SERVING_STATES",
    "TRANSITIONS",
    "InvalidTransition",
    "RequestAbandoned",
    "RequestGranted",
    "RestartDelayed",
    "RestartDenied",
    "SlotRetired",
    "Verdict",
    "WorkerCondemned",
    "WorkerState",
    "diagram",
    "successor",
]


class WorkerState(StrEnum):
    """Where a slot is in its life; a state exists only if it changes what is legal."""

    STOPPED = auto()
    SPAWNING = auto()
    CONNECTING = auto()
    READY = auto()
    RECONNECTING = auto()
    EXECUTING = auto()
    INTERRUPTING = auto()
    STOPPING = auto()
    BACKOFF = auto()
    FAILED = auto()


class Verdict(Enum):
    """What the machine thinks of an event before it changes anything."""

    NEWS = auto()
    LATE = auto()  # about something that is over: to be ignored
    ILLEGAL = auto()


# --- decisions: taken by the machine itself, never delivered to it ---


@dataclass(frozen=True, slots=True)
class RequestGranted(Event):
    """The worker gets a request."""


@dataclass(frozen=True, slots=True)
class RequestAbandoned(Event):
    """Its request is over, though its tool may go on: it is told to stop."""


@dataclass(frozen=True, slots=True)
class WorkerCondemned(Event):
    """It has to end: the pool stops, or its tool does not, or its parent is dead."""


@dataclass(frozen=True, slots=True)
class RestartDelayed(Event):
    """It could not start; the next try comes later."""


@dataclass(frozen=True, slots=True)
class RestartDenied(Event):
    """It could not start too often, or there is no fork server to be had."""


@dataclass(frozen=True, slots=True)
class SlotRetired(Event):
    """Nobody wants a process in it, and there is none to wait for."""


_S = WorkerState

TRANSITIONS: Mapping[WorkerState, Mapping[type[Event], WorkerState]] = {
    _S.STOPPED: {
        PoolStarted: _S.SPAWNING,
        RestartDue: _S.SPAWNING,
        RestartDelayed: _S.BACKOFF,
        RestartDenied: _S.FAILED,
    },
    _S.SPAWNING: {
        WorkerForked: _S.CONNECTING,
        WorkerReady: _S.SPAWNING,
        StartFailed: _S.SPAWNING,
        SpawnFailed: _S.STOPPED,
        SpawnLost: _S.STOPPED,
        StartTimedOut: _S.STOPPED,
        WorkerExited: _S.STOPPED,
        WorkerCondemned: _S.STOPPING,
        RestartDenied: _S.FAILED,
        SlotRetired: _S.STOPPED,
    },
    _S.CONNECTING: {
        WorkerReady: _S.READY,
        StartFailed: _S.CONNECTING,
        WorkerSilent: _S.CONNECTING,
        WorkerHeard: _S.CONNECTING,
        StartTimedOut: _S.STOPPING,
        WorkerExited: _S.STOPPED,
        WorkerCondemned: _S.STOPPING,
    },
    _S.READY: {
        RequestGranted: _S.EXECUTING,
        WorkerSilent: _S.RECONNECTING,
        WorkerHeard: _S.READY,
        StartTimedOut: _S.READY,
        WorkerExited: _S.STOPPED,
        WorkerCondemned: _S.STOPPING,
    },
    _S.RECONNECTING: {
        WorkerHeard: _S.READY,
        WorkerSilent: _S.RECONNECTING,
        SilenceOverdue: _S.RECONNECTING,
        StartTimedOut: _S.RECONNECTING,
        WorkerExited: _S.STOPPED,
        WorkerCondemned: _S.STOPPING,
    },
    _S.EXECUTING: {
        RequestCompleted: _S.READY,
        AttemptFailed: _S.READY,
        RequestAbandoned: _S.INTERRUPTING,
        LaneBroke: _S.EXECUTING,
        WorkerSilent: _S.EXECUTING,
        WorkerHeard: _S.EXECUTING,
        SilenceOverdue: _S.EXECUTING,
        StartTimedOut: _S.EXECUTING,
        WorkerExited: _S.STOPPED,
        WorkerCondemned: _S.STOPPING,
    },
    _S.INTERRUPTING: {
        RequestCompleted: _S.READY,
        AttemptFailed: _S.READY,
        ToolEnded: _S.READY,
        ToolOverdue: _S.INTERRUPTING,
        WorkerSilent: _S.INTERRUPTING,
        WorkerHeard: _S.INTERRUPTING,
        StartTimedOut: _S.INTERRUPTING,
        WorkerExited: _S.STOPPED,
        WorkerCondemned: _S.STOPPING,
    },
    _S.STOPPING: {
        WorkerForked: _S.STOPPING,
        WorkerReady: _S.STOPPING,
        StartFailed: _S.STOPPING,
        WorkerSilent: _S.STOPPING,
        WorkerHeard: _S.STOPPING,
        StartTimedOut: _S.STOPPING,
        StopTimedOut: _S.STOPPING,
        SpawnFailed: _S.STOPPED,
        SpawnLost: _S.STOPPED,
        WorkerExited: _S.STOPPED,
        SlotRetired: _S.STOPPED,
    },
    _S.BACKOFF: {
        RestartDue: _S.SPAWNING,
        RestartRequested: _S.SPAWNING,
        RestartDenied: _S.FAILED,
        SlotRetired: _S.STOPPED,
    },
    _S.FAILED: {
        RestartRequested: _S.SPAWNING,
        SlotRetired: _S.STOPPED,
    },
}

#: There is no process: every report about one is late.
DEAD_STATES = frozenset({_S.STOPPED, _S.BACKOFF, _S.FAILED})

#: The worker takes requests, now or when it has finished the one in hand.
SERVING_STATES = frozenset({_S.READY, _S.EXECUTING, _S.INTERRUPTING})


class InvalidTransition(RuntimeError):
    """An event that cannot happen: an error of the library, not of its user.

    Attributes: ``worker_id`` (``None`` if it is not about one worker), ``state`` (``None`` if
    it is not about a state), ``event``, ``story`` (the latest events before it, as text).
    """

    def __init__(
        self, worker_id: int | None, state: Enum | None, event: Event, story: tuple[str, ...] = ()
    ) -> None:
        super().__init__(worker_id, state, event, story)
        self.worker_id = worker_id
        self.state = state
        self.event = event
        self.story = story

    def __str__(self) -> str:
        whose = "" if self.worker_id is None else f" of worker {self.worker_id}"
        where = "" if self.state is None else f" in state {self.state.name}{whose}"
        before = "".join(f"\n  {line}" for line in self.story)
        return f"{self.event!r} cannot happen{where}; before it:{before or ' nothing'}"


def successor(state: WorkerState, kind: type[Event]) -> WorkerState | None:
    """The state after an event of that kind; ``None`` if it is illegal."""
    return TRANSITIONS[state].get(kind)


def diagram() -> str:
    """The table as a Mermaid state diagram; events that change no state are left out."""
    lines = ["stateDiagram-v2", "    [*] --> STOPPED"]
    for state, row in TRANSITIONS.items():
        arrows: dict[WorkerState, list[str]] = {}
        for kind, target in row.items():
            if target is not state:
                arrows.setdefault(target, []).append(kind.__name__)
        lines += [
            f"    {state.name} --> {target.name}: {', '.join(sorted(kinds))}"
            for target, kinds in arrows.items()
        ]
    return "\n".join(lines) + "\n"
