"""What does a pool tell whoever wants to know? Facts, each published once and in order.

They are for looking on: dashboards, counters, tests. Nothing in the library depends on them; those
of `core.events`, which do decide, are another thing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "Announcer",
    "Announcers",
    "BreakerStateChanged",
    "ForkServerStateChanged",
    "PoolStopped",
    "RequestCompleted",
    "RequestEvent",
    "RequestFailed",
    "RequestRequeued",
    "RequestStarted",
    "RequestSubmitted",
    "RetryScheduled",
    "SessionCreated",
    "SessionDeleted",
    "SessionsExpired",
    "TelemetryEvent",
    "WorkerExited",
    "WorkerStateChanged",
]


@dataclass(frozen=True, slots=True)
class TelemetryEvent:
    """``at``: when it was published, in seconds since the epoch."""

    at: float = field(default=0.0, kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class WorkerStateChanged(TelemetryEvent):
    """A worker went from one state of its life to the next; `docs/design.md` has the diagram.

    ``incarnation`` counts the processes of a slot. The pid is known from CONNECTING on.
    """

    worker_id: int
    incarnation: int
    pid: int | None
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class WorkerExited(TelemetryEvent):
    """How a worker's process ended; ``peak_rss`` in bytes, ``oom`` as in `WorkerDied`."""

    worker_id: int
    incarnation: int
    pid: int
    exit_code: int | None
    signal: str | None
    oom: bool
    peak_rss: int | None


@dataclass(frozen=True, slots=True)
class ForkServerStateChanged(TelemetryEvent):
    """``generation`` counts the fork servers of a pool."""

    generation: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class RequestEvent(TelemetryEvent):
    """About one call; ``request_id`` is that of the log records. ``tool``: ``None`` for a function."""

    request_id: int
    tool: str | None
    session_id: str | None


@dataclass(frozen=True, slots=True)
class RequestSubmitted(RequestEvent):
    """It was taken in: there will be one `RequestCompleted` or `RequestFailed`."""


@dataclass(frozen=True, slots=True)
class RequestStarted(RequestEvent):
    """A worker has it; ``attempt`` counts from 1."""

    attempt: int
    worker_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class RequestCompleted(RequestEvent):
    """The tool has answered; with ``failed`` by an exception."""

    failed: bool


@dataclass(frozen=True, slots=True)
class RequestFailed(RequestEvent):
    """The pool answers instead of the tool: ``error`` is the name of the exception's class.

    ``RequestSubmitted`` has not been published for a call that was refused.
    """

    error: str


@dataclass(frozen=True, slots=True)
class RequestRequeued(RequestEvent):
    """Its worker died; it goes to another one, at once, as this attempt."""

    attempt: int


@dataclass(frozen=True, slots=True)
class RetryScheduled(RequestEvent):
    """It will be tried again, as this attempt, in ``delay`` seconds."""

    attempt: int
    delay: float


@dataclass(frozen=True, slots=True)
class BreakerStateChanged(TelemetryEvent):
    """A tool's circuit breaker: ``closed``, ``open``, ``half_open``."""

    tool: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class SessionCreated(TelemetryEvent):
    """By this process."""

    session_id: str


@dataclass(frozen=True, slots=True)
class SessionDeleted(TelemetryEvent):
    """By this process."""

    session_id: str


@dataclass(frozen=True, slots=True)
class SessionsExpired(TelemetryEvent):
    """This process has removed so many whose time was over."""

    count: int


@dataclass(frozen=True, slots=True)
class PoolStopped(TelemetryEvent):
    """Every worker has ended; the last event of a pool."""


class Announcer:
    """Where facts are published. This one has nobody who listens.

    ``active`` is asked first, so that a fact that nobody wants is not even made.
    """

    @property
    def active(self) -> bool:
        return False

    def publish(self, event: TelemetryEvent) -> None:
        """Tell it to whoever listens; never blocks, never raises."""


class Announcers(Announcer):
    """Several, as those of the pools that share a store."""

    def __init__(self) -> None:
        self._all: tuple[Announcer, ...] = ()

    def add(self, announcer: Announcer) -> None:
        self._all += (announcer,)

    def remove(self, announcer: Announcer) -> None:
        self._all = tuple(one for one in self._all if one is not announcer)

    @property
    def active(self) -> bool:
        return any(announcer.active for announcer in self._all)

    def publish(self, event: TelemetryEvent) -> None:
        for announcer in self._all:
            if announcer.active:
                announcer.publish(event)
