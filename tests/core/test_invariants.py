"""`validate` must see what is wrong; else the tests that lean on it prove nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pool_play import Play

from snakepit_mp.core.lifecycle import WorkerState
from snakepit_mp.core.requests import Requests
from snakepit_mp.core.supervisor import Supervisor

Damage = Callable[[Requests, Supervisor], object]


def _set(thing: object, **values: object) -> None:
    for name, value in values.items():
        setattr(thing, name, value)


def _free_worker_1(requests: Requests, supervisor: Supervisor) -> None:
    del requests.open[2]
    requests.completed = 1
    _set(supervisor.slots[1], state=WorkerState.READY)
    _set(supervisor.slots[1].current, request_id=None)
    supervisor.idle.add(1)


def _answer_3_twice(requests: Requests, supervisor: Supervisor) -> None:
    del requests.open[3]
    requests.failed = 1


def _put_1_off(requests: Requests, supervisor: Supervisor) -> None:
    supervisor.idle.discard(1)
    supervisor.slots[1].state = WorkerState.BACKOFF


# Worker 0 executes request 1, worker 1 is ready, or executes 2 while 3 waits and 4 is held back.
DAMAGES: list[tuple[str, int, Damage]] = [
    ("idle set disagree", 1, lambda r, s: s.idle.discard(1)),
    ("idle set disagree", 1, lambda r, s: s.idle.add(0)),
    ("someone waits while a worker is idle", 4, _free_worker_1),
    ("astray", 1, lambda r, s: r.line.join(1)),
    ("astray", 4, lambda r, s: r.line.leave(3)),
    ("an answered request waits", 4, _answer_3_twice),
    ("do not add up", 1, lambda r, s: _set(r, completed=1)),
    ("held back though there is room", 4, lambda r, s: _set(r.line, size=2)),
    ("hands", 1, lambda r, s: _set(r.open[1], worker_id=1)),
    ("state and hand disagree", 1, lambda r, s: _set(s.slots[0], state=WorkerState.STOPPING)),
    ("has no pid", 1, lambda r, s: _set(s.slots[1].current, pid=None)),
    (
        "has a pid",
        1,
        _put_1_off,
    ),
    ("killed and ready", 1, lambda r, s: _set(s.slots[1].current, killed=True)),
    ("wait in a line of", 4, lambda r, s: _set(r.line, size=-9)),
]


@pytest.mark.parametrize(("message", "requests", "damage"), DAMAGES)
def test_damage_is_seen(message: str, requests: int, damage: Damage) -> None:
    play = Play(workers=2, queue_size=1).up()
    for request_id in range(1, requests + 1):
        play.submit(request_id)
    play.state.validate()
    damage(play.state._requests, play.state._supervisor)
    with pytest.raises(AssertionError, match=message):
        play.state.validate()


def test_early_report_of_the_end_is_seen() -> None:
    play = Play().up()
    play.state._reported = True
    with pytest.raises(AssertionError, match="reported as stopped"):
        play.state.validate()
