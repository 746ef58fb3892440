from __future__ import annotations

from pool_play import Play

from snakepit_mp.core.events import (
    DeadlineExpired,
    Phase,
    RequestCancelled,
    RequestCompleted,
    WorkerExited,
)
from snakepit_mp.core.lifecycle import WorkerState

S = WorkerState


def test_rows_tell_what_is_going_on() -> None:
    play = Play(workers=2).up()
    play.submit(7, session_id="s")
    row = play.row(0)
    assert (row.worker_id, row.incarnation, row.pid, row.state) == (0, 1, 1001, S.EXECUTING)
    assert (row.request_id, row.session_id, row.tasks) == (7, "s", 0)
    play(RequestCompleted(7, 0, 1))
    row = play.row(0)
    assert (row.state, row.request_id, row.session_id, row.tasks) == (S.READY, None, None, 1)


def test_dead_worker_has_no_pid() -> None:
    play = Play().up()
    play(WorkerExited(0, 1))
    assert play.row().pid is None


def test_counts_add_up() -> None:
    play = Play(workers=2, queue_size=1, on_full="raise").up()
    for request_id in (1, 2, 3):
        play.submit(request_id, idempotent=True)
    play.submit(4)  # refused
    play(RequestCompleted(1, 0, 1), DeadlineExpired(3))
    play.submit(5)
    play(RequestCancelled(5), WorkerExited(1, 1, Phase.ENTERED))
    counters = play.state.counters()
    assert (counters.submitted, counters.completed, counters.failed) == (5, 1, 1)
    assert (counters.timed_out, counters.cancelled, counters.rerun) == (1, 1, 1)
    assert (counters.waiting, counters.running) == (1, 0)
    assert (counters.worker_deaths, counters.restarts) == (1, 1)
