from __future__ import annotations

from snakepit_mp.core.dispatch import IdleWorkers, Line


def line_of(size: int, *request_ids: int) -> Line:
    line = Line(size)
    for request_id in request_ids:
        line.join(request_id)
    return line


def test_line_is_first_come_first_served() -> None:
    line = line_of(3, 1, 2, 3)
    assert line.first() == 1
    line.leave(1)
    assert (line.first(), len(line)) == (2, 2)


def test_line_admits_only_as_many_as_it_holds() -> None:
    line = Line(2)
    assert [line.join(n) for n in (1, 2, 3)] == [True, True, False]
    assert line.full
    assert (line.admitted, line.waiting(), len(line)) == ([1, 2], [1, 2, 3], 3)
    assert 3 in line
    assert 4 not in line


def test_leaving_admits_the_next() -> None:
    line = line_of(2, 1, 2, 3, 4)
    assert line.leave(2) == [3]
    assert line.admitted == [1, 3]


def test_one_who_was_never_admitted_leaves_without_a_trace() -> None:
    line = line_of(1, 1, 2, 3)
    assert line.leave(2) == []
    assert line.leave(1) == [3]


def test_returning_to_the_front_of_a_full_line_keeps_others_held_back() -> None:
    line = line_of(1, 1, 2)
    line.return_to_front(9)
    assert line.waiting() == [9, 1, 2]
    assert line.leave(9) == []
    assert line.leave(1) == [2]


def test_empty_line_has_no_first() -> None:
    assert Line(1).first() is None


def idle(*worker_ids: int, remembered: int = 10) -> IdleWorkers:
    workers = IdleWorkers(remembered)
    for worker_id in worker_ids:
        workers.add(worker_id)
    return workers


def test_those_that_have_not_worked_yet_come_in_their_order() -> None:
    workers = idle(2, 0, 1)
    assert [workers.take(None) for _ in range(4)] == [2, 0, 1, None]


def test_who_worked_last_comes_first() -> None:
    workers = idle()
    for worker_id in (2, 0, 1):
        workers.add(worker_id, warm=True)
    for _ in range(3):
        assert workers.take(None) == 1
        workers.add(1, warm=True)
    workers.add(7)
    assert [workers.take(None) for _ in range(5)] == [7, 1, 0, 2, None]


def test_session_goes_back_to_its_worker() -> None:
    workers = idle(0, 1)
    assert workers.take("a") == 0
    workers.add(0)
    assert workers.take("a") == 0
    assert 0 not in workers
    assert len(workers) == 1


def test_session_does_not_wait_for_its_worker() -> None:
    workers = idle(0, 1)
    assert workers.take("a") == 0
    assert workers.take("a") == 1
    workers.add(0)
    workers.add(1)
    assert workers.take("a") == 1  # where it was last


def test_busy_pool_has_nobody_for_a_session_either() -> None:
    assert idle().take("a") is None


def test_only_so_many_sessions_are_remembered() -> None:
    workers = idle(0, 1, remembered=1)
    workers.take("a")
    workers.take("b")
    workers.add(1)
    workers.add(0)
    assert workers.take("a") == 1  # forgotten: the one that is idle longest


def test_discarded_worker_gets_nothing() -> None:
    workers = idle(0, 1)
    workers.discard(0)
    workers.discard(5)
    assert [workers.take(None), workers.take(None)] == [1, None]
