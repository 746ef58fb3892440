"""What must hold after every event, whatever came before?"""

from __future__ import annotations

from .lifecycle import WorkerState
from .requests import Requests
from .slots import Slot
from .supervisor import Supervisor

__all__ = ["check"]

_S = WorkerState
_WITH_PID = frozenset({_S.CONNECTING, _S.READY, _S.RECONNECTING, _S.EXECUTING, _S.INTERRUPTING})


def check(requests: Requests, supervisor: Supervisor) -> None:
    """Raise `AssertionError` with the first thing that is wrong."""
    _check_requests(requests)
    _check_hands(requests, supervisor)
    for slot in supervisor.slots:
        _check_slot(slot)
        ready = slot.state is _S.READY
        assert ready == (slot.worker_id in supervisor.idle), f"{slot} and the idle set disagree"
    someone_waits = requests.line.first() is not None
    assert not (someone_waits and supervisor.idle), "someone waits while a worker is idle"
    for request_id, worker_id in requests.line.parked():
        assert worker_id not in supervisor.idle, (
            f"{request_id} waits for {worker_id}, which is idle"
        )
    # Of each worker there may come back the item that it had, and the rest of its batch; what
    # was fetched ahead comes back one by one, and is not told from others then.
    alone = sum(requests.open[each].request.kin is None for each in requests.line.admitted)
    most = requests.line.size + 2 * len(supervisor.slots)
    assert alone <= most, f"{alone} wait in a line of {requests.line.size}"


def _check_requests(requests: Requests) -> None:
    for request_id, entry in requests.open.items():
        waits = entry.worker_id is None
        assert waits == (request_id in requests.line), f"request {request_id} is astray"
        assert waits or not entry.delayed, f"request {request_id} is in two places"
        assert entry.retried <= entry.request.retries, f"{request_id} is tried too often"
    assert set(requests.line.waiting()) <= requests.open.keys(), "an answered request waits"
    over = requests.completed + requests.failed + requests.cancelled + requests.timed_out
    still = sum(entry.request.items for entry in requests.open.values())
    assert requests.submitted == over + still, "the counts do not add up"
    held_back = len(requests.line) - len(requests.line.admitted)
    assert not held_back or requests.line.full, "someone is held back though there is room"


def _check_hands(requests: Requests, supervisor: Supervisor) -> None:
    """Requests in hand and workers that execute are the same pairs."""
    by_worker = {
        (slot.worker_id, slot.current.request_id)
        for slot in supervisor.slots
        if slot.current.request_id is not None
    }
    by_request = {
        (entry.worker_id, request_id)
        for request_id, entry in requests.open.items()
        if entry.worker_id is not None
    }
    assert by_worker == by_request, f"hands {by_worker} and requests {by_request} differ"
    assert requests.running <= len(supervisor.slots), "more run than there are workers"


def _check_slot(slot: Slot) -> None:
    current = slot.current
    executing = slot.state is _S.EXECUTING
    assert executing == (current.request_id is not None), f"{slot}: state and hand disagree"
    interrupting = slot.state is _S.INTERRUPTING
    assert interrupting == (current.interrupted is not None), f"{slot}: state and tool disagree"
    reconnecting = slot.state is _S.RECONNECTING
    assert not reconnecting or current.silent, f"{slot} waits for nothing"
    assert not (current.silent and slot.state is _S.READY), f"{slot} is silent and ready"
    assert current.pid is not None or slot.state not in _WITH_PID, f"{slot} has no pid"
    may_have_pid = slot.state in _WITH_PID or slot.state is _S.STOPPING
    assert current.pid is None or may_have_pid, f"{slot} has a pid"
    assert not (current.killed and slot.state is _S.READY), f"{slot} is killed and ready"
