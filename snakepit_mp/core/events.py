"""What can happen to a pool: every fact that `PoolState.handle` takes in.

Events are facts, in the past tense; whoever saw them need not know what follows. They may
arrive late, twice or in an unexpected order, since they come from different descriptors: the
fork server's channel, each worker's own channel, pidfds, timers and callers. Everything is
therefore numbered. A *worker id* names a slot, 0 to ``workers - 1``, for the life of the
pool; an *incarnation*, counted from 1, names one process in that slot; a *generation*,
counted from 1, names one fork server.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "AttemptFailed",
    "DeadlineExpired",
    "DrainRequested",
    "Event",
    "ForkServerDue",
    "ForkServerEvent",
    "ForkServerLost",
    "ForkServerStarted",
    "KillRequested",
    "LaneBroke",
    "Phase",
    "PoolStarted",
    "QueueTimeExpired",
    "ReloadRequested",
    "Request",
    "RequestCancelled",
    "RequestCompleted",
    "RequestEvent",
    "RequestProgressed",
    "RequestSplit",
    "RequestSubmitted",
    "RestartDue",
    "RestartRequested",
    "RetryDue",
    "SilenceOverdue",
    "SpawnFailed",
    "SpawnLost",
    "StartFailed",
    "StartTimedOut",
    "StopRequested",
    "StopTimedOut",
    "ToolEnded",
    "ToolOverdue",
    "WorkerAged",
    "WorkerEvent",
    "WorkerExited",
    "WorkerForked",
    "WorkerHeard",
    "WorkerMeasured",
    "WorkerReady",
    "WorkerSilent",
]


class Phase(IntEnum):
    """How far a worker has come with a request, as its status page shows it."""

    IDLE = 0
    TAKEN = 1  # received, not yet decoded
    ENTERED = 2  # the tool has been called: it may have had effects
    DONE = 3  # the tool has returned or raised


class Request(NamedTuple):
    """One call, as far as the pool's decisions need to know it.

    ``request_id`` is unique for the life of the pool. ``session_id`` is a hint for the choice
    of the worker. ``idempotent``: may run again after a death in the middle of it. ``retries``:
    further attempts after a death, or after an exception that the tool names. ``deadline``: no
    attempt begins after it. ``affinity``: whether it insists on the worker that served its
    session last, and waits for that (``strict_queue``) or fails (``strict_fail_fast``).
    ``tool``: its name, ``None`` for a function. ``items``: how many calls it stands for, which
    a worker runs one after the other (a batch); it is not to be retried then. ``kin``: those in
    which this is the same may be given to a worker together, if they come one after the other;
    ``weight``: bytes of the room that there is for them.
    """

    request_id: int
    session_id: str | None = None
    idempotent: bool = False
    streaming: bool = False
    retries: int = 0
    deadline: float | None = None
    affinity: str = "hint"
    tool: str | None = None
    items: int = 1
    kin: bytes | None = None
    weight: int = 0

    @property
    def in_a_hurry(self) -> bool:
        return self.affinity == "strict_fail_fast"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""


# --- the pool as a whole ---


@dataclass(frozen=True, slots=True)
class PoolStarted(Event):
    """The pool may start its processes."""


@dataclass(frozen=True, slots=True)
class DrainRequested(Event):
    """Somebody wants to know when nothing waits and nothing runs; the pool stays open."""


@dataclass(frozen=True, slots=True)
class StopRequested(Event):
    """No new requests; what waits is finished, or cancelled."""

    cancel_waiting: bool = False


@dataclass(frozen=True, slots=True)
class RestartRequested(Event):
    """What is FAILED, or waits for its next start, shall be tried again, with a clean record."""


@dataclass(frozen=True, slots=True)
class ReloadRequested(Event):
    """New code shall come in. Not again before `ReportReloaded`."""


@dataclass(frozen=True, slots=True)
class KillRequested(Event):
    """The grace period is over, or somebody pressed Ctrl-C twice: end everything now."""


# --- the fork server ---


@dataclass(frozen=True, slots=True)
class ForkServerEvent(Event):
    """Something about one fork server."""

    generation: int


@dataclass(frozen=True, slots=True)
class ForkServerStarted(ForkServerEvent):
    """The process exists and its channel takes requests; it may still be importing."""


@dataclass(frozen=True, slots=True)
class ForkServerLost(ForkServerEvent):
    """It ended, or could not import; its workers are being killed by the kernel.

    Where it is known together with the ends of its workers, deliver it first: they are then
    not taken for workers that cannot start, nor blamed on their requests. ``permanent``: a new one would fail as well.
    """

    cause: BaseException | None = None
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class ForkServerDue(ForkServerEvent):
    """The wait before the next fork server is over (a timer the machine asked for)."""


# --- one worker ---


@dataclass(frozen=True, slots=True)
class WorkerEvent(Event):
    """Something about one incarnation of one worker."""

    worker_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class WorkerForked(WorkerEvent):
    """The fork server's answer to `SpawnWorker`: the process exists."""

    pid: int


@dataclass(frozen=True, slots=True)
class SpawnLost(WorkerEvent):
    """The fork server died before it answered; nobody's fault. `ForkServerLost` comes too."""


@dataclass(frozen=True, slots=True)
class SpawnFailed(WorkerEvent):
    """The fork server could not, or would not, fork."""

    cause: BaseException


@dataclass(frozen=True, slots=True)
class WorkerReady(WorkerEvent):
    """The worker says that it takes requests."""


@dataclass(frozen=True, slots=True)
class StartFailed(WorkerEvent):
    """The worker says that its start raised; its exit follows."""

    cause: BaseException


@dataclass(frozen=True, slots=True)
class StartTimedOut(WorkerEvent):
    """``start_timeout`` has passed since `SpawnWorker` (a timer the machine asked for)."""


@dataclass(frozen=True, slots=True)
class StopTimedOut(WorkerEvent):
    """``grace`` has passed since `StopWorker` (a timer the machine asked for)."""


@dataclass(frozen=True, slots=True)
class WorkerSilent(WorkerEvent):
    """It does not answer; with ``stopped`` because a signal has stopped it."""

    stopped: bool


@dataclass(frozen=True, slots=True)
class WorkerHeard(WorkerEvent):
    """It answers again, or was continued."""


@dataclass(frozen=True, slots=True)
class SilenceOverdue(WorkerEvent):
    """``grace`` has passed since it fell silent (a timer the machine asked for)."""

    silence: int


@dataclass(frozen=True, slots=True)
class WorkerAged(WorkerEvent):
    """It has lived for as long as workers shall (a timer the machine asked for)."""


@dataclass(frozen=True, slots=True)
class WorkerMeasured(WorkerEvent):
    """It holds so many bytes of memory."""

    rss: int


@dataclass(frozen=True, slots=True)
class ToolEnded(WorkerEvent):
    """The worker says that it is free of a request whose caller has gone, or may have gone.

    ``attempt``: which one has ended; ``None`` if it is running none at that request.
    """

    request_id: int
    attempt: int | None


@dataclass(frozen=True, slots=True)
class ToolOverdue(WorkerEvent):
    """Its caller has gone and the tool goes on (a timer the machine asked for).

    First half of ``grace`` has passed; with ``final`` all of it.
    """

    request_id: int
    final: bool


@dataclass(frozen=True, slots=True)
class WorkerExited(WorkerEvent):
    """The process has ended.

    ``phase``: that of the request it had in hand, as its status page shows it; ``None`` if
    it had none, or if the page shows another request, so that it never took this one.
    """

    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class RestartDue(WorkerEvent):
    """The wait before a restart is over (a timer the machine asked for)."""


# --- one request ---


@dataclass(frozen=True, slots=True)
class RequestSubmitted(Event):
    """A caller wants something done."""

    request: Request


@dataclass(frozen=True, slots=True)
class RequestEvent(Event):
    """Something about one request; ignored if the request is over."""

    request_id: int


@dataclass(frozen=True, slots=True)
class RequestProgressed(RequestEvent):
    """A stream has delivered an item, so the call cannot be repeated unnoticed any more."""


@dataclass(frozen=True, slots=True)
class RequestCancelled(RequestEvent):
    """The caller does not want it any more."""


@dataclass(frozen=True, slots=True)
class DeadlineExpired(RequestEvent):
    """Its time is up, wherever it is."""


@dataclass(frozen=True, slots=True)
class QueueTimeExpired(RequestEvent):
    """It has had its longest wait in line; ignored once a worker has had it."""


@dataclass(frozen=True, slots=True)
class RequestSplit(RequestEvent):
    """Of a batch in a worker's hand ``done`` items are completed, and but one remains this request.

    ``rest``: the others, taken back, as requests that go to the front of the line; of those that
    were fetched ahead each is what it was before. What is in none of the three is not wanted any
    more.
    """

    done: int
    rest: tuple[Request, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestCompleted(RequestEvent):
    """The worker's reply, a value or, with ``failed``, the tool's exception, is here.

    ``unwanted``: or its caller had gone before it was sent, and the worker never saw it.
    """

    worker_id: int
    incarnation: int
    failed: bool = False
    unwanted: bool = False


@dataclass(frozen=True, slots=True)
class AttemptFailed(RequestEvent):
    """As `RequestCompleted`, with an exception of those for which the tool asks to be retried."""

    worker_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class RetryDue(RequestEvent):
    """The wait before another attempt is over (a timer the machine asked for)."""

    attempt: int


@dataclass(frozen=True, slots=True)
class LaneBroke(RequestEvent):
    """The lane failed under this request, though no exit was seen."""

    worker_id: int
    incarnation: int
