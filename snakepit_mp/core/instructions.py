"""What the machine wants done: every order that `PoolState.handle` hands out.

Whoever performs them decides nothing. Orders are to be performed in the order given; what
comes of them returns as an event.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass

from ..errors import PoolError, SnakepitError
from .events import Event

__all__ = [
    "AdmitRequest",
    "Death",
    "Deaths",
    "DeliverReply",
    "FailRequest",
    "Failure",
    "GrantRequest",
    "Instruction",
    "InterruptWorker",
    "KillWorker",
    "ReportIdle",
    "ReportReloaded",
    "ReportStopped",
    "SpawnWorker",
    "StartForkServer",
    "StartTimer",
    "StopForkServer",
    "StopWorker",
]


@dataclass(frozen=True, slots=True)
class Death:
    """One worker that died with a request in hand.

    ``entered``: its tool had been called. ``blamed``: the request may have caused it; not if the
    worker died with its fork server.
    """

    worker_id: int
    incarnation: int
    request_id: int
    entered: bool
    attempt: int
    blamed: bool = True


@dataclass(frozen=True, slots=True)
class Deaths:
    """A request failed because workers died under it; whoever performs adds how they died.

    ``deaths``: the last one last, at least one. ``poison``: there were so many to be blamed on
    the request, which are these, that it is in quarantine; otherwise they are all, and the
    request had been entered and must not run twice.
    """

    deaths: tuple[Death, ...]
    poison: bool


#: Why a request failed: an exception ready to be raised, or deaths yet to be described.
Failure = SnakepitError | CancelledError | Deaths


@dataclass(frozen=True, slots=True)
class Instruction:
    """Something to be done."""


# --- the fork server ---


@dataclass(frozen=True, slots=True)
class StartForkServer(Instruction):
    """Start one; report `ForkServerStarted`, or `ForkServerLost`."""

    generation: int


@dataclass(frozen=True, slots=True)
class StopForkServer(Instruction):
    """End it. After `KillRequested`, or if it does not obey, by force."""

    generation: int


# --- one worker ---


@dataclass(frozen=True, slots=True)
class SpawnWorker(Instruction):
    """Ask the fork server of that generation for a process.

    Its answer is `WorkerForked` or `SpawnFailed`; if it dies first, `SpawnLost`.
    """

    worker_id: int
    incarnation: int
    generation: int


@dataclass(frozen=True, slots=True)
class StopWorker(Instruction):
    """Ask the worker to stop its adapter and leave. It has no request in hand."""

    worker_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class InterruptWorker(Instruction):
    """Raise an exception in the worker's tool, if it still has this request in hand.

    The request is over. `ToolEnded` tells that the worker is free of it.
    """

    worker_id: int
    incarnation: int
    request_id: int


@dataclass(frozen=True, slots=True)
class KillWorker(Instruction):
    """Kill the worker's process group.

    ``overdue``: it does not stop; tell where it hangs, if that can be found out at once.
    Only ordered when `WorkerForked` has come for it, but not necessarily for the slot's
    current incarnation: it may have been given up before its fork was answered.
    """

    worker_id: int
    incarnation: int
    overdue: bool = False


# --- time ---


@dataclass(frozen=True, slots=True)
class StartTimer(Instruction):
    """Deliver ``event`` in ``delay`` seconds. Timers need not be stopped: late ones are ignored."""

    delay: float
    event: Event


# --- one request ---


@dataclass(frozen=True, slots=True)
class AdmitRequest(Instruction):
    """It has a place in line: a submitter that was held back may go on.

    Comes once for every request that is not refused, always before its first `GrantRequest`.
    """

    request_id: int


@dataclass(frozen=True, slots=True)
class GrantRequest(Instruction):
    """Send it to this worker. ``attempt`` counts from 1; runs that never began do not count.

    ``ahead``: those behind it that go with it. They are no requests any more, but items of this
    one, until it is split.
    """

    request_id: int
    worker_id: int
    incarnation: int
    attempt: int
    ahead: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DeliverReply(Instruction):
    """There is no further attempt: the reply of the last one is the caller's answer."""

    request_id: int


@dataclass(frozen=True, slots=True)
class FailRequest(Instruction):
    """Tell the caller; the request is over, whatever may still be heard of it."""

    request_id: int
    failure: Failure


# --- answers ---


@dataclass(frozen=True, slots=True)
class ReportIdle(Instruction):
    """To everyone who asked for a drain: nothing waits and nothing runs."""


@dataclass(frozen=True, slots=True)
class ReportReloaded(Instruction):
    """To who asked for a reload: every worker runs the new code; or why not."""

    failure: PoolError | None


@dataclass(frozen=True, slots=True)
class ReportStopped(Instruction):
    """Every worker has ended and the fork server was told to end. Comes once, last."""
