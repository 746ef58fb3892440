"""The usual way of a call: an idle worker is there, and nobody waits. In fewer steps than an event.

What is done to requests and workers is what `PoolState.handle` would do for `RequestSubmitted` and
`RequestCompleted`, no more and no less; wherever anything else might come of it, nothing is done
and the event takes its own way. A test plays both against each other.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ..telemetry.events import Announcer
from .events import Request, RequestCompleted, RequestSubmitted
from .lifecycle import Verdict, WorkerState
from .requests import OpenRequest, Requests
from .supervisor import Supervisor

__all__ = ["Shortcut"]


#: What a slot's table asks of an event is its class.
_COMPLETED = RequestCompleted(0, 0, 0)


class Shortcut:
    """Takes the way while it is ``open``, which the pool's state says after each event."""

    __slots__ = ("_announcer", "_requests", "_story", "_supervisor", "open")

    def __init__(
        self,
        requests: Requests,
        supervisor: Supervisor,
        announcer: Announcer,
        story: deque[tuple[float, Any, Verdict]],
    ) -> None:
        self._requests = requests
        self._supervisor = supervisor
        self._announcer = announcer
        self._story = story
        self.open = False

    def check_out(self, request: Request, now: float) -> tuple[int, int] | None:
        """The worker that has the request now, and its incarnation; ``None`` if nothing is done."""
        requests, supervisor = self._requests, self._supervisor
        if (
            not self.open
            or not supervisor.idle
            or requests.line
            or self._announcer.active
            or request.affinity != "hint"
            or request.request_id in requests.open
        ):
            return None
        worker_id = supervisor.idle.take(request.session_id)
        assert worker_id is not None
        slot = supervisor.slots[worker_id]
        supervisor.grant(slot, request.request_id, 1)
        requests.submitted += request.items
        requests.open[request.request_id] = OpenRequest(request, worker_id, 1, True)
        self._story.append((now, request, Verdict.NEWS))
        return worker_id, slot.current.number

    def check_in(
        self, request_id: int, worker_id: int, incarnation: int, failed: bool, now: float
    ) -> bool:
        """The request is completed, and its worker idle; ``False`` if nothing is done."""
        requests, supervisor = self._requests, self._supervisor
        slot = supervisor.slots[worker_id]
        current = slot.current
        if (
            not self.open
            or requests.line
            or self._announcer.active
            or current.request_id != request_id
            or current.number != incarnation
            or slot.state is not WorkerState.EXECUTING
            or current.killed
            or supervisor.recycling.has_to_leave(slot)
            or request_id not in requests.open
        ):
            return False
        supervisor.release(_COMPLETED, slot, requests.open[request_id].request.items)
        requests.complete(request_id, failed=failed)
        done = request_id, worker_id, incarnation, failed
        self._story.append((now, done, Verdict.NEWS))
        return True

    @staticmethod
    def told(what: Any) -> Any:
        """What the story has of it, as an event."""
        if isinstance(what, Request):
            return RequestSubmitted(what)
        return RequestCompleted(*what) if isinstance(what, tuple) else what
