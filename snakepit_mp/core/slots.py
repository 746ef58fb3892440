"""What is known of a worker: its place in the pool, and the process that is in it now."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..telemetry.events import Announcer, WorkerStateChanged
from .events import (
    Event,
    RestartDue,
    SilenceOverdue,
    SpawnFailed,
    SpawnLost,
    ToolEnded,
    ToolOverdue,
    WorkerAged,
    WorkerEvent,
    WorkerForked,
    WorkerMeasured,
)
from .lifecycle import (
    DEAD_STATES,
    SERVING_STATES,
    InvalidTransition,
    Verdict,
    WorkerState,
    successor,
)
from .restart import RestartIntensity

__all__ = ["Incarnation", "Slot"]

_ANSWERS = (WorkerForked, SpawnFailed, SpawnLost)


@dataclass(slots=True)
class Incarnation:
    """One process in a slot, from before it is asked for until it has ended."""

    number: int = 0
    generation: int = 0  # of the fork server that was asked; 0: none yet
    pid: int | None = None  # once the fork has been answered
    asked_at: float = 0.0
    ready_at: float | None = None
    announced: bool = False  # it said it was ready before its fork was answered
    cause: BaseException | None = None  # what its start raised
    request_id: int | None = None  # in hand
    attempt: int = 0  # of the request in hand, or of the last one
    interrupted: int | None = None  # the request that is over, though its tool is not
    tasks: int = 0  # requests completed
    served: bool = False  # it was granted something
    silences: int = 0  # how often it fell silent
    silent: bool = False  # it was stopped, or is idle and does not answer
    due: bool = False  # to be replaced: it, or its code, is old, or it has grown
    due_after: int | None = None  # so many tasks
    retired: bool = False  # its successor is ready
    killed: bool = False  # no need to kill it again
    ordered: bool = False  # its end is our will, not its fault
    orphaned: bool = False  # its end is its fork server's


@dataclass(slots=True)
class Slot:
    """A worker's place in the pool."""

    worker_id: int
    intensity: RestartIntensity
    announcer: Announcer = field(default_factory=Announcer)
    state: WorkerState = WorkerState.STOPPED
    current: Incarnation = field(default_factory=Incarnation)
    # Incarnations that we stopped waiting for before their fork was answered. If they come
    # to be after all, they are killed.
    given_up: set[int] = field(default_factory=set)

    @property
    def unanswered(self) -> bool:
        """A fork was asked for, and whether there is a process is not known."""
        waits = self.state is WorkerState.SPAWNING or self.state is WorkerState.STOPPING
        return waits and self.current.generation > 0 and self.current.pid is None

    def step(self, event: Event) -> None:
        """Follow the table; every change of state goes through here."""
        target = successor(self.state, type(event))
        if target is None:
            raise InvalidTransition(self.worker_id, self.state, event)
        before, self.state = self.state, target
        if self.announcer.active and target is not before:
            current = self.current
            self.announcer.publish(
                WorkerStateChanged(
                    self.worker_id, current.number, current.pid, before.name, target.name
                )
            )

    def judge(self, event: WorkerEvent) -> Verdict:
        if isinstance(event, RestartDue):
            return self._judge_due(event)
        if event.incarnation in self.given_up:
            return Verdict.NEWS
        if event.incarnation > self.current.number:
            return Verdict.ILLEGAL
        if event.incarnation < self.current.number or self.state in DEAD_STATES:
            return Verdict.LATE
        if isinstance(event, (WorkerAged, WorkerMeasured)):
            return Verdict.NEWS if self.state in SERVING_STATES else Verdict.LATE
        if isinstance(event, SilenceOverdue):
            still = self.current.silent and self.current.silences == event.silence
            judged = successor(self.state, SilenceOverdue) is not None  # not once it has to end
            return Verdict.NEWS if still and judged else Verdict.LATE
        if isinstance(event, (ToolEnded, ToolOverdue)):
            return self._judge_tool(event)
        if successor(self.state, type(event)) is None or self.current.generation == 0:
            return Verdict.ILLEGAL
        if isinstance(event, _ANSWERS) and not self.unanswered:
            return Verdict.ILLEGAL
        return Verdict.NEWS

    def _judge_tool(self, event: ToolEnded | ToolOverdue) -> Verdict:
        """Only the tool of a request that is over is told of apart from its request."""
        this = self.current.interrupted == event.request_id
        if isinstance(event, ToolEnded) and event.attempt is not None:
            this = this and event.attempt == self.current.attempt
        return Verdict.NEWS if this else Verdict.LATE

    def _judge_due(self, event: RestartDue) -> Verdict:
        following = self.current.number + 1
        if event.incarnation > following:
            return Verdict.ILLEGAL
        due = self.state is WorkerState.BACKOFF and event.incarnation == following
        return Verdict.NEWS if due else Verdict.LATE
