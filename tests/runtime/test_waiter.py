"""Places of requests: grants, failures, and the race with an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait

import pytest

from snakepit_mp.errors import PoolSaturated
from snakepit_mp.lanes import envelope
from snakepit_mp.lanes.lane import BegunStream, Lane, LaneBroken
from snakepit_mp.runtime.waiter import BlockingWaiter, FutureWaiter, Grant, PoolFuture, Ticket


class FakeLane(Lane):
    """Keeps what it was given; the test answers."""

    name = "fake"

    def __init__(self) -> None:
        self.begun: list[tuple[bytes, Callable[[bytes | LaneBroken], None]]] = []

    def call(self, frame: bytes, deadline: float | None = None) -> bytes:
        raise NotImplementedError

    def begin(self, frame: bytes, done: Callable[[bytes | LaneBroken], None]) -> None:
        self.begun.append((frame, done))

    def stream(self, frame: bytes) -> Iterator[bytes]:
        raise NotImplementedError

    def begin_stream(
        self, frame: bytes, arrived: Callable[[bytes | LaneBroken], None]
    ) -> BegunStream:
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def _ticket() -> Ticket:
    body = envelope.encode_call(envelope.Call("tool"))
    return Ticket(7, "tool", body, None, False, False, None, None, None)


def _grant(lane: Lane | None = None, attempt: int = 1) -> Grant:
    return Grant(0, 1, attempt, lane or FakeLane())


def test_blocking_waiter_takes_grants_in_order():
    waiter = BlockingWaiter(_ticket())
    first, second = _grant(attempt=1), _grant(attempt=2)

    assert waiter.granted(first)
    assert waiter.granted(second)

    assert waiter.take(None) is first
    assert waiter.take(None) is second


def test_blocking_waiter_raises_the_failure():
    waiter = BlockingWaiter(_ticket())
    waiter.failed(PoolSaturated("full"))

    with pytest.raises(PoolSaturated):
        waiter.take(None)


def test_blocking_waiter_gives_up_at_the_limit():
    assert BlockingWaiter(_ticket()).take(time.monotonic() - 1) is None


def test_closed_waiter_gives_unused_grants_back_and_refuses_later_ones():
    waiter = BlockingWaiter(_ticket())
    unused = _grant()
    waiter.granted(unused)

    assert waiter.close() == [unused]
    assert not waiter.granted(_grant())


class _Submitted:
    def __init__(self) -> None:
        self.withdrawn = 0
        self.dispatched: list[Callable[[], object]] = []
        self.replies: list[bytes | LaneBroken] = []
        self.lane = FakeLane()
        self.future = PoolFuture(self._withdraw, False, self.dispatched.append)
        self.waiter = FutureWaiter(_ticket(), self.future, self._on_reply)

    def _withdraw(self) -> None:
        self.withdrawn += 1

    def _on_reply(self, waiter: FutureWaiter, grant: Grant, reply: bytes | LaneBroken) -> None:
        self.replies.append(reply)


def test_future_waiter_sends_when_granted():
    submitted = _Submitted()

    assert submitted.waiter.granted(_grant(submitted.lane, attempt=2))

    (frame, done) = submitted.lane.begun[0]
    assert envelope.header_of(frame).request_id == 7
    assert envelope.header_of(frame).attempt == 2
    assert submitted.future.running()
    done(b"reply")
    assert submitted.replies == [b"reply"]


def test_future_decodes_when_asked():
    submitted = _Submitted()
    submitted.waiter.answered(envelope.encode_value(7, [1, 2]))

    assert submitted.future.result(0) == [1, 2]
    assert submitted.future.result(0) is submitted.future.result(0)
    assert submitted.future.exception(0) is None
    assert not submitted.future.running()


def test_future_raises_the_tools_exception():
    submitted = _Submitted()
    submitted.waiter.answered(envelope.encode_error(7, ZeroDivisionError("no")))

    assert isinstance(submitted.future.exception(0), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        submitted.future.result(0)


def test_cancel_withdraws_once_and_wakes_waiters():
    submitted = _Submitted()
    submitted.waiter.granted(_grant(submitted.lane))

    assert submitted.future.cancel()
    assert submitted.future.cancel()

    assert submitted.withdrawn == 1
    assert wait([submitted.future], 0).done
    with pytest.raises(CancelledError):
        submitted.future.result(0)


def test_answer_after_a_cancel_changes_nothing():
    submitted = _Submitted()
    submitted.future.cancel()

    submitted.waiter.answered(envelope.encode_value(7, 1))
    submitted.waiter.failed(PoolSaturated("full"))

    assert submitted.future.cancelled()
    assert not submitted.waiter.granted(_grant())


def test_second_answer_changes_nothing():
    submitted = _Submitted()
    submitted.waiter.answered(envelope.encode_value(7, "first"))

    submitted.waiter.answered(envelope.encode_value(7, "second"))
    submitted.waiter.failed(PoolSaturated("full"))

    assert submitted.future.result(0) == "first"


def test_failure_and_cancellation_by_the_pool():
    failed, cancelled = _Submitted(), _Submitted()

    failed.waiter.failed(PoolSaturated("full"))
    cancelled.waiter.failed(CancelledError())

    assert isinstance(failed.future.exception(0), PoolSaturated)
    assert cancelled.future.cancelled()
    failed.waiter.wait_admitted()


def test_callbacks_are_left_to_the_callback_thread():
    submitted = _Submitted()
    called: list[object] = []
    submitted.future.add_done_callback(called.append)

    submitted.waiter.answered(envelope.encode_value(7, 1))

    assert called == []
    (run,) = submitted.dispatched
    run()
    assert called == [submitted.future]


def test_callback_of_a_done_future_is_called_at_once():
    submitted = _Submitted()
    submitted.waiter.answered(envelope.encode_value(7, 1))
    called: list[object] = []

    submitted.future.add_done_callback(called.append)

    assert called == [submitted.future]


def test_answered_future_cannot_be_cancelled():
    submitted = _Submitted()
    submitted.waiter.answered(envelope.encode_value(7, 1))

    assert not submitted.future.cancel()
    assert submitted.withdrawn == 0
