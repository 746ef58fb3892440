from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
from pool_play import Play, pid_of

from snakepit_mp.config import RestartPolicy
from snakepit_mp.core.events import (
    AttemptFailed,
    DeadlineExpired,
    Event,
    LaneBroke,
    PoolStarted,
    RequestCompleted,
    SpawnFailed,
    SpawnLost,
    StartFailed,
    StartTimedOut,
    StopRequested,
    StopTimedOut,
    ToolEnded,
    ToolOverdue,
    WorkerExited,
    WorkerForked,
    WorkerHeard,
    WorkerReady,
    WorkerSilent,
)
from snakepit_mp.core.lifecycle import (
    DEAD_STATES,
    SERVING_STATES,
    TRANSITIONS,
    InvalidTransition,
    WorkerState,
    diagram,
    successor,
)

S = WorkerState


def _executing() -> Play:
    play = Play().up()
    play.submit(1)
    return play


def _after(play: Play, *events: Event) -> Play:
    play(*events)
    return play


def _connecting() -> Play:
    play = Play().start()
    play.fork()
    return play


# How a pool of one worker comes to each state. Two states come in two kinds: asked for or
# not, forked or not.
WAYS: dict[str, Callable[[], Play]] = {
    "STOPPED": Play,
    "SPAWNING": lambda: Play().start(),
    "SPAWNING, not asked": lambda: _after(Play(), PoolStarted()),
    "CONNECTING": _connecting,
    "READY": lambda: Play().up(),
    "RECONNECTING": lambda: _after(Play().up(), WorkerSilent(0, 1, stopped=False)),
    "EXECUTING": _executing,
    "INTERRUPTING": lambda: _after(_executing(), DeadlineExpired(1)),
    "STOPPING": lambda: _after(
        _executing(), DeadlineExpired(1), ToolOverdue(0, 1, request_id=1, final=True)
    ),
    "STOPPING, not forked": lambda: _after(Play().start(), StopRequested()),
    "BACKOFF": lambda: _after(Play().start(), SpawnFailed(0, 1, OSError())),
    "FAILED": lambda: _after(
        Play(restart=RestartPolicy(max_restarts=0)).start(), SpawnFailed(0, 1, OSError())
    ),
}

REPORTS: dict[type[Event], Callable[[int], Event]] = {
    WorkerForked: lambda n: WorkerForked(0, n, pid_of(0, n)),
    SpawnLost: lambda n: SpawnLost(0, n),
    SpawnFailed: lambda n: SpawnFailed(0, n, OSError()),
    WorkerReady: lambda n: WorkerReady(0, n),
    StartFailed: lambda n: StartFailed(0, n, ValueError()),
    StartTimedOut: lambda n: StartTimedOut(0, n),
    StopTimedOut: lambda n: StopTimedOut(0, n),
    WorkerSilent: lambda n: WorkerSilent(0, n, stopped=False),
    WorkerHeard: lambda n: WorkerHeard(0, n),
    ToolEnded: lambda n: ToolEnded(0, n, request_id=1, attempt=1),
    ToolOverdue: lambda n: ToolOverdue(0, n, request_id=1, final=False),
    WorkerExited: lambda n: WorkerExited(0, n),
    RequestCompleted: lambda n: RequestCompleted(1, 0, n),
    AttemptFailed: lambda n: AttemptFailed(1, 0, n),
    LaneBroke: lambda n: LaneBroke(1, 0, n),
}

#: The first answer to a fork is the only one.
ANSWERS = (WorkerForked, SpawnLost, SpawnFailed)
ABOUT_A_REQUEST = (RequestCompleted, AttemptFailed, LaneBroke, ToolEnded, ToolOverdue)


# The decision that follows in the same breath, where the table leads to STOPPED.
AFTER_THE_END = {
    "SPAWNING": S.BACKOFF,
    "CONNECTING": S.BACKOFF,
    "READY": S.BACKOFF,
    "RECONNECTING": S.BACKOFF,
    "EXECUTING": S.SPAWNING,  # it had served
    "INTERRUPTING": S.SPAWNING,
    "STOPPING": S.SPAWNING,  # as had this one
    "STOPPING, not forked": S.STOPPED,  # the pool stops
}


def _state_of(way: str) -> WorkerState:
    return WorkerState[way.partition(",")[0]]


def _expected(way: str, kind: type[Event]) -> WorkerState | None:
    """The state after such a report, ``None`` if it is illegal there."""
    if way == "SPAWNING, not asked" or (way == "STOPPING" and kind in ANSWERS):
        return None
    if way == "STOPPING, not forked" and kind in (StartTimedOut, StopTimedOut):
        return S.STOPPED  # waited for long enough
    if (way, kind) == ("SPAWNING", SpawnLost):
        return S.SPAWNING  # nobody's fault
    target = successor(_state_of(way), kind)
    return AFTER_THE_END[way] if target is S.STOPPED else target


def _pairs(*, dead: bool) -> list[tuple[str, type[Event]]]:
    ways = [way for way in WAYS if (_state_of(way) in DEAD_STATES) == dead]
    return [
        (way, kind)
        for way in ways
        for kind in REPORTS
        if kind not in ABOUT_A_REQUEST or dead or successor(_state_of(way), kind) is not None
    ]


@pytest.mark.parametrize("way", WAYS)
def test_ways_lead_where_they_say(way: str) -> None:
    assert WAYS[way]().worker() is _state_of(way)


@pytest.mark.parametrize(("way", "kind"), _pairs(dead=False))
def test_reports_about_the_process_follow_the_table(way: str, kind: type[Event]) -> None:
    play = WAYS[way]()
    event = REPORTS[kind](play.row().incarnation)
    expected, before = _expected(way, kind), play.picture()
    if expected is None:
        with pytest.raises(InvalidTransition):
            play(event)
        assert play.picture() == before
    else:
        play(event)
        assert play.worker() is expected


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        (way, kind)
        for way in WAYS
        for kind in ABOUT_A_REQUEST
        if (way, kind) not in _pairs(dead=False)
    ],
)
def test_reports_about_a_request_that_is_over_are_late(way: str, kind: type[Event]) -> None:
    play = WAYS[way]()
    before = play.row()
    assert play(REPORTS[kind](before.incarnation)) == []
    assert play.row() == before


@pytest.mark.parametrize(("way", "kind"), _pairs(dead=True))
def test_reports_about_no_process_are_late(way: str, kind: type[Event]) -> None:
    play = WAYS[way]()
    before = play.row()
    assert play(REPORTS[kind](before.incarnation)) == []
    assert play.row() == before


@pytest.mark.parametrize("kind", REPORTS)
@pytest.mark.parametrize("way", WAYS)
def test_reports_from_the_future_are_illegal(way: str, kind: type[Event]) -> None:
    play = WAYS[way]()
    before = play.picture()
    with pytest.raises(InvalidTransition):
        play(REPORTS[kind](play.row().incarnation + 1))
    assert play.picture() == before


@pytest.mark.parametrize("kind", REPORTS)
def test_reports_of_an_old_incarnation_are_late(kind: type[Event]) -> None:
    play = Play().up()
    play.submit(1)
    play(WorkerExited(0, 1))
    play.ready(0, 2)
    before = play.row()
    assert before.state is S.EXECUTING
    assert play(REPORTS[kind](1)) == []
    assert play.row() == before


def test_every_state_has_its_row_and_can_be_reached() -> None:
    reached = {target for row in TRANSITIONS.values() for target in row.values()}
    assert set(TRANSITIONS) == set(WorkerState) == reached


def test_serving_states_are_those_in_which_it_has_or_may_get_a_request() -> None:
    assert {S.READY, S.EXECUTING, S.INTERRUPTING} == SERVING_STATES


def test_diagram_has_every_change_of_state_and_no_other() -> None:
    drawn = set()
    for line in diagram().splitlines()[2:]:
        arrow, _, kinds = line.strip().partition(": ")
        source, _, target = arrow.partition(" --> ")
        drawn |= {(source, kind, target) for kind in kinds.split(", ")}
    table = {
        (state.name, kind.__name__, target.name)
        for state, row in TRANSITIONS.items()
        for kind, target in row.items()
        if target is not state
    }
    assert drawn == table


def test_invalid_transition_tells_the_story_of_that_worker() -> None:
    play = Play(workers=2).up()
    with pytest.raises(InvalidTransition) as caught:
        play(WorkerReady(1, 1))
    error = caught.value
    assert (error.worker_id, error.state, error.event) == (1, S.READY, WorkerReady(1, 1))
    assert "in state READY of worker 1" in str(error)
    assert "WorkerForked(worker_id=1, incarnation=1, pid=2001)" in str(error)
    assert "worker_id=0" not in str(error)


def test_invalid_transition_can_be_pickled() -> None:
    error = InvalidTransition(3, S.READY, WorkerReady(3, 1), ("0.0 PoolStarted()",))
    again = pickle.loads(pickle.dumps(error))
    assert (again.worker_id, again.state, again.event, again.story) == (
        error.worker_id,
        error.state,
        error.event,
        error.story,
    )


def test_invalid_transition_without_a_worker_or_a_story() -> None:
    assert str(InvalidTransition(None, None, PoolStarted())).endswith("before it: nothing")
