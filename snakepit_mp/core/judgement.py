"""Is an event news, late, or impossible? Asked before anything is changed."""

from __future__ import annotations

from .events import (
    AttemptFailed,
    Event,
    ForkServerEvent,
    LaneBroke,
    QueueTimeExpired,
    RequestCompleted,
    RequestEvent,
    RequestProgressed,
    RequestSplit,
    RequestSubmitted,
    RetryDue,
    WorkerEvent,
)
from .lifecycle import DEAD_STATES, Verdict
from .requests import OpenRequest, Requests
from .slots import Slot
from .supervisor import Supervisor

__all__ = ["judge"]


def judge(event: Event, requests: Requests, supervisor: Supervisor) -> Verdict:
    """The verdict on anything about a worker, the fork server or a request."""
    if isinstance(event, (RequestCompleted, AttemptFailed, LaneBroke)):
        return _judge_report(event, requests, supervisor.slot(event.worker_id))
    if isinstance(event, RequestEvent):
        return _judge_request(event, requests)
    if isinstance(event, WorkerEvent):
        slot = supervisor.slot(event.worker_id)
        return Verdict.ILLEGAL if slot is None else slot.judge(event)
    if isinstance(event, ForkServerEvent):
        return supervisor.servers.judge(event)
    if isinstance(event, RequestSubmitted):
        return Verdict.ILLEGAL if event.request.request_id in requests.open else Verdict.NEWS
    return Verdict.ILLEGAL


def _judge_request(event: RequestEvent, requests: Requests) -> Verdict:
    """What a caller or a clock says of a request."""
    entry = requests.open.get(event.request_id)
    if isinstance(event, RequestSplit):
        known = any(rest.request_id in requests.open for rest in event.rest)
        return Verdict.ILLEGAL if known else _judge_split(event, entry)
    if entry is None or (isinstance(event, QueueTimeExpired) and entry.granted):
        return Verdict.LATE
    if isinstance(event, RetryDue):
        return Verdict.NEWS if entry.delayed and entry.attempt == event.attempt else Verdict.LATE
    if isinstance(event, RequestProgressed) and not entry.granted:
        return Verdict.ILLEGAL
    return Verdict.NEWS


def _judge_split(event: RequestSplit, entry: OpenRequest | None) -> Verdict:
    """Never late: the rest wants an answer, whatever became of the batch."""
    items = 1 + event.done + sum(request.items for request in event.rest)
    if entry is not None and (entry.worker_id is None or items > entry.request.items):
        return Verdict.ILLEGAL
    return Verdict.NEWS


def _judge_report(
    event: RequestCompleted | AttemptFailed | LaneBroke, requests: Requests, slot: Slot | None
) -> Verdict:
    """What comes from a worker about a request: has it this request in hand?"""
    if slot is None or event.incarnation > slot.current.number:
        return Verdict.ILLEGAL
    entry = requests.open.get(event.request_id)
    current = event.incarnation == slot.current.number
    if entry is None:
        ended = current and slot.current.interrupted == event.request_id
        return Verdict.LATE if isinstance(event, LaneBroke) or not ended else Verdict.NEWS
    if current and slot.state not in DEAD_STATES:
        if slot.current.request_id == event.request_id:
            return Verdict.NEWS
        return Verdict.LATE if entry.retried else Verdict.ILLEGAL  # of an earlier attempt
    if isinstance(event, RequestCompleted) and entry.waits_after(
        event.worker_id, event.incarnation
    ):
        # The reply came before the death, though not its notice. It spares the rerun.
        return Verdict.NEWS
    return Verdict.LATE
