"""The window of a map, without any process."""

from __future__ import annotations

import itertools
from concurrent.futures import Future
from typing import Any

import pytest

from snakepit_mp.runtime.mapped import mapped


class Submitted:
    """Keeps the futures; the test settles them."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def __call__(self, item: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


@pytest.fixture
def submit() -> Submitted:
    return Submitted()


def test_nothing_is_read_before_the_first_result_is_asked_for(submit: Submitted):
    items = itertools.count()

    mapped(submit, items, 3, True, "raise")

    assert next(items) == 0
    assert submit.futures == []


def test_never_more_in_flight_than_the_window(submit: Submitted):
    def settling(item: Any) -> Future[Any]:
        future = submit(item)
        future.set_result(item)
        return future

    results = mapped(settling, itertools.count(), 3, True, "raise")
    for position in range(10):
        assert next(results) == position
        assert len(submit.futures) == position + 3


def test_unordered_gives_what_is_done_first(submit: Submitted):
    def second_only(item: int) -> Future[Any]:
        future = submit(item)
        if item == 1:
            future.set_result("second")
        return future

    assert next(mapped(second_only, iter(range(2)), 2, False, "raise")) == "second"


def test_closing_cancels_what_is_in_flight(submit: Submitted):
    def first_only(item: int) -> Future[Any]:
        future = submit(item)
        if item == 0:
            future.set_result(item)
        return future

    results = mapped(first_only, itertools.count(), 4, True, "raise")
    next(results)
    results.close()

    assert [future.cancelled() for future in submit.futures] == [False, True, True, True]


def test_an_error_of_the_iterable_itself_is_the_callers(submit: Submitted):
    def items():
        yield 1
        raise KeyError("source")

    with pytest.raises(KeyError, match="source"):
        next(mapped(submit, items(), 4, True, "return"))

    assert submit.futures[0].cancelled()
