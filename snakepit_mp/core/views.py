"""What can be seen of a pool from outside: its workers and its counts."""

from __future__ import annotations

from dataclasses import dataclass

from .fork_server import ForkServerState
from .fork_servers import ForkServers
from .lifecycle import WorkerState
from .requests import Requests
from .slots import Slot
from .supervisor import Supervisor

__all__ = ["Counters", "ForkServerRow", "WorkerRow", "count", "row_of", "server_rows"]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker, for whoever wants to look. ``tasks``: completed by this incarnation.

    ``generation``: of its fork server; 0 as long as none was asked.
    """

    worker_id: int
    incarnation: int
    pid: int | None
    state: WorkerState
    request_id: int | None
    session_id: str | None
    tasks: int
    generation: int


@dataclass(frozen=True, slots=True)
class ForkServerRow:
    """One fork server. ``asked``: it is the one that is asked for workers."""

    generation: int
    state: ForkServerState
    asked: bool


@dataclass(frozen=True, slots=True)
class Counters:
    """True counts since the pool was made.

    ``submitted`` is the sum of ``completed`` (answered by a tool, be it with an exception),
    ``failed``, ``cancelled``, ``timed_out`` (deadline or time in line), ``waiting`` and
    ``running``. ``rerun``: returns to the line because a worker died. ``retried``: further
    attempts that ``retries`` allowed; who waits for one counts as waiting. ``worker_deaths``: ends
    of workers that the pool had not ordered. ``restarts``: workers started after the first of
    their slot. ``recycled``: workers that were well and have been replaced.
    """

    submitted: int
    completed: int
    failed: int
    cancelled: int
    timed_out: int
    rerun: int
    retried: int
    worker_deaths: int
    restarts: int
    recycled: int
    waiting: int
    running: int


def row_of(slot: Slot, requests: Requests) -> WorkerRow:
    request_id = slot.current.request_id
    entry = None if request_id is None else requests.open[request_id]
    return WorkerRow(
        worker_id=slot.worker_id,
        incarnation=slot.current.number,
        pid=slot.current.pid,
        state=slot.state,
        request_id=request_id,
        session_id=None if entry is None else entry.request.session_id,
        tasks=slot.current.tasks,
        generation=slot.current.generation,
    )


def server_rows(servers: ForkServers) -> list[ForkServerRow]:
    """The one that is asked comes first."""
    return [
        ForkServerRow(record.generation, record.state, record is servers.current)
        for record in (servers.current, servers.next, *servers.leaving.values())
        if record is not None
    ]


def count(requests: Requests, supervisor: Supervisor) -> Counters:
    return Counters(
        submitted=requests.submitted,
        completed=requests.completed,
        failed=requests.failed,
        cancelled=requests.cancelled,
        timed_out=requests.timed_out,
        rerun=requests.rerun,
        retried=requests.retried,
        worker_deaths=supervisor.deaths,
        restarts=supervisor.spawning.restarts,
        recycled=supervisor.recycling.recycled,
        waiting=len(requests.line),
        running=requests.running,
    )
