"""The window of a map, without any process."""

from __future__ import annotations

import itertools
from concurrent.futures import Future
from typing import Any

import pytest

from snakepit_mp.runtime.mapped import OneByOne
from snakepit_mp.runtime.mapped import mapped as mapped_by


def mapped(submit, items, size, ordered, on_error):  # type: ignore[no-untyped-def]
    return mapped_by(lambda: OneByOne(submit, size), items, ordered, on_error)


class Submitted:
    """Keeps the futures; the test settles them."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.settling = False

    def __call__(self, item: Any) -> Future[Any]:
        self.futures.append(Future())
        if self.settling:
            self.futures[-1].set_result(item)
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

    results = mapped(submit, items(), 4, True, "return")
    submit.settling = True

    assert next(results) == 1  # what came before it is not lost
    with pytest.raises(KeyError, match="source"):
        next(results)


def test_an_item_that_cannot_be_submitted_has_its_turn_as_well():
    def picky(item: int) -> Future[Any]:
        if item == 2:
            raise ValueError("two")
        future: Future[Any] = Future()
        future.set_result(item)
        return future

    results = mapped(picky, itertools.count(), 4, True, "skip")

    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
