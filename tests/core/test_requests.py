"""What a request is owed: places in line, deaths, deadlines, cancellation."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest
from pool_play import Play, without_timers

from snakepit_mp.core.events import (
    AttemptFailed,
    DeadlineExpired,
    ForkServerLost,
    ForkServerStarted,
    LaneBroke,
    Phase,
    QueueTimeExpired,
    RequestCancelled,
    RequestCompleted,
    RequestProgressed,
    RetryDue,
    StopRequested,
    ToolEnded,
    ToolOverdue,
    WorkerExited,
)
from snakepit_mp.core.instructions import (
    AdmitRequest,
    Death,
    Deaths,
    DeliverReply,
    FailRequest,
    GrantRequest,
    Instruction,
    InterruptWorker,
    KillWorker,
    StartTimer,
)
from snakepit_mp.errors import PoolSaturated, QueueTimeout, TaskTimeout

NOT_ENTERED = [None, Phase.IDLE, Phase.TAKEN]
ENTERED = [Phase.ENTERED, Phase.DONE]


def failure(instructions: list[Instruction], request_id: int = 1) -> object:
    """What the request failed with; it failed once."""
    (failed,) = [
        one.failure
        for one in instructions
        if isinstance(one, FailRequest) and one.request_id == request_id
    ]
    return failed


def busy(**settings: object) -> Play:
    """One worker, which has request 1 in hand."""
    play = Play(**settings).up()
    play.submit(1)
    return play


# --- the line ---


def test_idle_worker_gets_the_request_at_once() -> None:
    assert Play().up().submit(1) == [AdmitRequest(1), GrantRequest(1, 0, 1, attempt=1)]


def test_request_waits_for_a_busy_worker() -> None:
    play = busy()
    assert play.submit(2) == [AdmitRequest(2)]
    assert play(RequestCompleted(1, 0, 1)) == [GrantRequest(2, 0, 1, attempt=1)]


def test_submitter_is_held_back_until_there_is_room() -> None:
    play = busy(queue_size=1)
    assert play.submit(2) == [AdmitRequest(2)]
    assert play.submit(3) == []
    assert play(RequestCompleted(1, 0, 1)) == [GrantRequest(2, 0, 1, 1), AdmitRequest(3)]


def test_full_line_refuses_if_told_so() -> None:
    play = busy(queue_size=1, on_full="raise")
    play.submit(2)
    refused = failure(play.submit(3), 3)
    assert isinstance(refused, PoolSaturated)
    assert "1 calls wait" in str(refused)


def test_cancelling_a_waiting_request_admits_the_next() -> None:
    play = busy(queue_size=1)
    play.submit(2)
    play.submit(3)
    instructions = play(RequestCancelled(2))
    assert isinstance(failure(instructions, 2), CancelledError)
    assert instructions[1:] == [AdmitRequest(3)]


# --- deaths ---


@pytest.mark.parametrize("phase", NOT_ENTERED)
def test_request_that_was_not_entered_goes_round_silently(phase: Phase | None) -> None:
    play = busy()
    play.submit(2)
    assert all(not isinstance(one, FailRequest) for one in play(WorkerExited(0, 1, phase)))
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, attempt=1)]  # before 2


@pytest.mark.parametrize("phase", ENTERED)
def test_entered_request_fails(phase: Phase) -> None:
    death = Death(0, 1, request_id=1, entered=True, attempt=1)
    assert failure(busy()(WorkerExited(0, 1, phase))) == Deaths((death,), poison=False)


@pytest.mark.parametrize("phase", ENTERED)
def test_entered_request_runs_again_if_that_is_safe(phase: Phase) -> None:
    play = Play().up()
    play.submit(1, idempotent=True)
    play(WorkerExited(0, 1, phase))
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, attempt=2)]


def test_another_idle_worker_takes_over_at_once() -> None:
    play = Play(workers=2).up()
    play.submit(1)
    assert GrantRequest(1, 1, 1, attempt=1) in play(WorkerExited(0, 1, Phase.TAKEN))


def test_stream_that_has_delivered_does_not_run_again() -> None:
    play = Play().up()
    play.submit(1, idempotent=True, streaming=True)
    play(RequestProgressed(1))
    assert isinstance(failure(play(WorkerExited(0, 1, Phase.ENTERED))), Deaths)


def test_stream_that_has_delivered_was_entered_whatever_the_page_says() -> None:
    play = Play().up()
    play.submit(1, idempotent=True, streaming=True)
    play(RequestProgressed(1))
    deaths = failure(play(WorkerExited(0, 1, None)))
    assert deaths == Deaths((Death(0, 1, 1, entered=True, attempt=1),), poison=False)


def test_item_that_comes_after_the_death_ends_the_request() -> None:
    """It waits for its rerun, which would deliver that item again."""
    play = Play().up()
    play.submit(1, idempotent=True, streaming=True)
    play(WorkerExited(0, 1, Phase.ENTERED))
    assert isinstance(failure(play(RequestProgressed(1))), Deaths)
    assert play.ready(0, 2) == []


def test_reply_that_comes_after_the_death_spares_the_rerun() -> None:
    play = Play().up()
    play.submit(1, idempotent=True)
    play(WorkerExited(0, 1, Phase.DONE))
    play(RequestCompleted(1, 0, 1))
    assert play.state.counters().completed == 1
    assert play.ready(0, 2) == []


@pytest.mark.parametrize("phase", [*NOT_ENTERED, *ENTERED])
def test_request_that_kills_worker_after_worker_is_quarantined(phase: Phase | None) -> None:
    play = Play(poison_after=3).up()
    play.submit(1, idempotent=True)
    for incarnation in (1, 2):
        play(WorkerExited(0, incarnation, phase))
        play.ready(0, incarnation + 1)
    deaths = failure(play(WorkerExited(0, 3, phase)))
    assert isinstance(deaths, Deaths)
    assert deaths.poison
    assert [death.incarnation for death in deaths.deaths] == [1, 2, 3]
    entered = phase in ENTERED
    assert [death.attempt for death in deaths.deaths] == ([1, 2, 3] if entered else [1, 1, 1])


def test_workers_that_die_with_their_fork_server_are_not_blamed_on_the_request() -> None:
    play = Play(poison_after=1).up()
    play.submit(1, idempotent=True)
    for generation in (1, 2, 3):
        play(ForkServerLost(generation), WorkerExited(0, generation, Phase.ENTERED))
        play(ForkServerStarted(generation + 1))
        play.ready(0, generation + 1)
    assert play.row().request_id == 1
    deaths = failure(play(WorkerExited(0, 4, Phase.ENTERED)))
    assert deaths == Deaths((Death(0, 4, 1, entered=True, attempt=4),), poison=True)


def test_request_that_must_not_run_twice_fails_with_its_fork_server_too() -> None:
    deaths = failure(busy()(ForkServerLost(1), WorkerExited(0, 1, Phase.ENTERED)))
    death = Death(0, 1, 1, entered=True, attempt=1, blamed=False)
    assert deaths == Deaths((death,), poison=False)


# --- retries ---


def test_failed_attempt_waits_and_comes_back_to_the_front() -> None:
    play = Play().up()
    play.submit(1, retries=1)
    play.submit(2)
    wait, grant = play(AttemptFailed(1, 0, 1))
    assert wait == StartTimer(0.1, RetryDue(1, attempt=2))
    assert grant == GrantRequest(2, 0, 1, attempt=1)
    play.submit(3)
    play(RetryDue(1, attempt=2))
    assert play(RequestCompleted(2, 0, 1)) == [GrantRequest(1, 0, 1, attempt=2)]
    assert play.state.counters().retried == 1


def test_attempt_that_waits_counts_as_waiting() -> None:
    play = Play().up()
    play.submit(1, retries=1)
    play(AttemptFailed(1, 0, 1))
    counters = play.state.counters()
    assert (counters.waiting, counters.running) == (1, 0)


def test_last_failed_attempt_is_the_answer() -> None:
    play = Play().up()
    play.submit(1, retries=1)
    play(AttemptFailed(1, 0, 1), RetryDue(1, attempt=2))
    assert play(AttemptFailed(1, 0, 1)) == [DeliverReply(1)]
    assert play.state.counters().completed == 1


def test_waits_double() -> None:
    play = Play().up()
    play.submit(1, retries=9)
    waits = []
    for attempt in range(2, 11):
        (wait,) = play(AttemptFailed(1, 0, 1))
        assert isinstance(wait, StartTimer)
        waits.append(wait.delay)
        play(RetryDue(1, attempt))
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_no_attempt_that_would_begin_after_the_deadline() -> None:
    play = Play().up()
    play.submit(1, retries=9, deadline=play.now + 0.1)
    assert play(AttemptFailed(1, 0, 1)) == [DeliverReply(1)]


def test_stream_that_has_delivered_is_not_retried() -> None:
    play = Play().up()
    play.submit(1, retries=1, streaming=True)
    assert play(RequestProgressed(1), AttemptFailed(1, 0, 1)) == [DeliverReply(1)]


def test_death_in_the_tool_uses_up_a_retry() -> None:
    play = Play().up()
    play.submit(1, retries=1)
    assert StartTimer(0.1, RetryDue(1, attempt=2)) in play(WorkerExited(0, 1, Phase.ENTERED))
    play(RetryDue(1, attempt=2))
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, attempt=2)]
    deaths = failure(play(WorkerExited(0, 2, Phase.ENTERED)))
    assert isinstance(deaths, Deaths)
    assert not deaths.poison


def test_death_before_the_tool_uses_up_none() -> None:
    play = Play().up()
    play.submit(1, retries=1)
    play(WorkerExited(0, 1, Phase.TAKEN))
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, attempt=1)]


def test_quarantine_comes_before_retries() -> None:
    play = Play(poison_after=1).up()
    play.submit(1, retries=9)
    deaths = failure(play(WorkerExited(0, 1, Phase.ENTERED)))
    assert isinstance(deaths, Deaths)
    assert deaths.poison


def test_waiting_attempt_ends_by_cancellation_deadline_or_stop() -> None:
    for event in (RequestCancelled(1), DeadlineExpired(1), StopRequested(cancel_waiting=True)):
        play = Play().up()
        play.submit(1, retries=1)
        play(AttemptFailed(1, 0, 1))
        failure(play(event))
        assert play(RetryDue(1, attempt=2)) == []


def test_stop_waits_for_the_next_attempt() -> None:
    play = Play().up()
    play.submit(1, retries=1)
    play(AttemptFailed(1, 0, 1))
    assert play(StopRequested()) == []
    assert play(RetryDue(1, attempt=2)) == [GrantRequest(1, 0, 1, attempt=2)]


def test_reply_that_comes_after_the_death_spares_the_retry() -> None:
    play = Play().up()
    play.submit(1, retries=1)
    play(WorkerExited(0, 1, Phase.DONE))
    assert play(RequestCompleted(1, 0, 1)) == []
    assert play(RetryDue(1, attempt=2)) == []
    assert play.state.counters().completed == 1


# --- deadlines and cancellation ---


@pytest.mark.parametrize(
    ("event", "kind"), [(DeadlineExpired(1), TaskTimeout), (RequestCancelled(1), CancelledError)]
)
def test_running_request_is_answered_and_its_tool_interrupted(
    event: object, kind: type[Exception]
) -> None:
    play = busy()
    instructions = play(event)  # type: ignore[arg-type]
    assert instructions[:3] == [
        InterruptWorker(0, 1, 1),
        StartTimer(2.5, ToolOverdue(0, 1, 1, final=False)),
        StartTimer(5.0, ToolOverdue(0, 1, 1, final=True)),
    ]
    assert isinstance(failure(instructions), kind)
    assert play.worker().name == "INTERRUPTING"


def interrupted() -> Play:
    """Its request is over, its tool is not, and another request waits."""
    play = busy()
    play(DeadlineExpired(1))
    play.submit(2)
    return play


def test_worker_whose_tool_has_stopped_takes_the_next_request() -> None:
    play = interrupted()
    assert play(RequestCompleted(1, 0, 1)) == [GrantRequest(2, 0, 1, attempt=1)]
    assert play.state.counters().timed_out == 1
    assert play.state.counters().completed == 0
    assert play(RequestCompleted(1, 0, 1)) == []  # told twice
    assert play(ToolOverdue(0, 1, 1, final=False), ToolOverdue(0, 1, 1, final=True)) == []


@pytest.mark.parametrize("attempt", [None, 1])
def test_worker_tells_that_the_tool_has_ended(attempt: int | None) -> None:
    play = interrupted()
    assert play(ToolEnded(0, 1, 1, attempt)) == [GrantRequest(2, 0, 1, attempt=1)]
    assert play(ToolEnded(0, 1, 1, attempt), RequestCompleted(1, 0, 1)) == []


def test_end_of_a_tool_whose_caller_waits_says_nothing() -> None:
    """Its reply, which is under way, says more: whether it is to be run again."""
    play = Play().up()
    play.submit(1, retries=1, streaming=True)
    assert play(ToolEnded(0, 1, 1, attempt=1)) == []
    assert play.worker().name == "EXECUTING"
    play(AttemptFailed(1, 0, 1), RetryDue(1, attempt=2))
    play(RequestCancelled(1))
    assert play(ToolEnded(0, 1, 1, attempt=1)) == []  # of the attempt before
    assert play.worker().name == "INTERRUPTING"
    play(ToolEnded(0, 1, 1, attempt=2))
    assert play.worker().name == "READY"


def test_tool_that_does_not_stop_is_told_again_and_then_killed() -> None:
    play = interrupted()
    assert play(ToolOverdue(0, 1, 1, final=False)) == [InterruptWorker(0, 1, 1)]
    assert play(ToolOverdue(0, 1, 1, final=True)) == [KillWorker(0, 1, overdue=True)]
    assert play(RequestCompleted(1, 0, 1)) == []  # in the same instant: too late
    assert without_timers(play(WorkerExited(0, 1))) != []  # replaced at once: it had served
    assert play.state.counters().worker_deaths == 0
    assert play.ready(0, 2) == [GrantRequest(2, 0, 2, attempt=1)]


def test_worker_that_dies_while_its_tool_is_interrupted() -> None:
    play = interrupted()
    play(WorkerExited(0, 1, Phase.ENTERED))
    assert play.state.counters().worker_deaths == 1
    assert play.ready(0, 2) == [GrantRequest(2, 0, 2, attempt=1)]


def test_timers_of_an_earlier_interrupt_do_not_concern_the_next() -> None:
    play = interrupted()
    play(RequestCompleted(1, 0, 1), DeadlineExpired(2))
    assert play(ToolOverdue(0, 1, 1, final=True)) == []
    assert play(ToolOverdue(0, 1, 2, final=True)) == [KillWorker(0, 1, overdue=True)]


def test_without_grace_the_worker_is_killed_at_once() -> None:
    assert busy(grace=0.0)(DeadlineExpired(1))[0] == KillWorker(0, 1)


def test_worker_that_is_being_killed_is_not_interrupted() -> None:
    play = busy()
    play(LaneBroke(1, 0, 1))
    (failed,) = play(DeadlineExpired(1))
    assert isinstance(failed, FailRequest)
    assert play.worker().name == "STOPPING"


def test_deadline_of_a_request_that_was_never_admitted() -> None:
    play = busy(queue_size=1)
    play.submit(2)
    play.submit(3)
    instructions = play(DeadlineExpired(3))
    timeout = failure(instructions, 3)
    assert isinstance(timeout, TaskTimeout)
    assert not timeout.entered
    assert len(instructions) == 1


def test_deadline_says_whether_a_worker_had_it() -> None:
    timeout = failure(busy()(DeadlineExpired(1)))
    assert isinstance(timeout, TaskTimeout)
    assert timeout.entered
    assert "while a worker had it" in str(timeout)


def test_time_in_line() -> None:
    play = busy()
    play.submit(2)
    assert isinstance(failure(play(QueueTimeExpired(2)), 2), QueueTimeout)
    assert play(QueueTimeExpired(1)) == []  # it runs


def test_time_in_line_is_over_once_a_worker_had_it() -> None:
    play = busy()
    play(WorkerExited(0, 1, Phase.TAKEN))
    assert play(QueueTimeExpired(1)) == []
    assert play.ready(0, 2) == [GrantRequest(1, 0, 2, 1)]


def test_every_failure_is_an_instance_of_its_own() -> None:
    """Exceptions collect tracebacks: two callers must not share one."""
    play = busy()
    play.submit(2)
    assert failure(play(RequestCancelled(1)), 1) is not failure(play(RequestCancelled(2)), 2)
