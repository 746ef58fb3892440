"""How does a map stay lazy and bounded? A window of futures over an iterator."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, NamedTuple, Protocol

from .batching import BatchFuture, Landing, Outcome

__all__ = [
    "GATHERING",
    "ON_ERROR",
    "Launched",
    "Launcher",
    "OneByOne",
    "given",
    "mapped",
    "outcomes",
    "withdraw",
]

#: What may be done about an item that failed.
ON_ERROR = ("raise", "return", "skip")

#: Seconds that items are gathered: whoever makes them slowly shall not hold up those he has made.
GATHERING = 0.002


class Launched(NamedTuple):
    """The futures of some items and, where one could not be submitted, why: no more follow."""

    futures: list[Future[Any]]
    failure: BaseException | None = None


class Launcher(Protocol):
    """Submits the items of one map."""

    def room(self, flying: Iterable[Future[Any]]) -> int:
        """How many more items may be under way; 0 for none."""

    def launch(self, items: list[Any]) -> Launched:
        """Submit these; raises nothing, but for what interrupts it."""

    def landed(self, future: BatchFuture) -> Landing:
        """What came of a batch, from which it learns."""


class OneByOne:
    """Each item as a call of its own, ``window`` of them under way."""

    def __init__(self, submit: Callable[[Any], Future[Any]], window: int) -> None:
        self._submit = submit
        self._window = window

    def room(self, flying: Iterable[Future[Any]]) -> int:
        return self._window - len(tuple(flying))

    def launch(self, items: list[Any]) -> Launched:
        futures: list[Future[Any]] = []
        try:
            futures.extend(map(self._submit, items))
        except Exception as error:  # noqa: BLE001 - it is raised when its turn comes
            return Launched(futures, error)
        return Launched(futures)

    def landed(self, future: BatchFuture) -> Landing:
        raise NotImplementedError  # it makes none


def mapped(
    launch: Callable[[], Launcher], items: Iterator[Any], ordered: bool, on_error: str
) -> Generator[Any, None, None]:
    """The result of each item; ``launch()`` makes the launcher, once one is asked for. What goes wrong with the items themselves, or with submitting
    one, is raised when all before it have had their turn."""
    flying: deque[Future[Any]] = deque()
    failure: BaseException | None = None
    launcher = launch()
    try:
        failure = _fill(flying, launcher, items)
        while flying:
            future = _next_done(flying, ordered)
            values, found = outcomes(future, flying, launcher)
            yield from values
            yield from given(found, on_error)
            if failure is None:
                failure = _fill(flying, launcher, items)
        if failure is not None:
            raise failure
    finally:
        del failure  # its traceback keeps this frame
        withdraw(flying)


def given(found: Iterable[Outcome], on_error: str) -> Iterator[Any]:
    """What the map gives for outcomes; raises the first error where that ends the map."""
    for value, error in found:
        if error is None:
            yield value
        elif on_error == "raise":
            raise error
        elif on_error == "return":
            yield error


def outcomes(
    future: Future[Any], flying: deque[Future[Any]], launcher: Launcher
) -> tuple[list[Any], Iterable[Outcome]]:
    """What came of it: values first, then the rest; what was split off takes its place in line."""
    if not isinstance(future, BatchFuture):
        error = future.exception()
        return ([future.result()], ()) if error is None else ([], ((None, error),))
    error = future.failure()
    if error is not None:
        return [], ((None, error),) * future.items
    landing = launcher.landed(future)
    flying.extendleft(reversed(landing.then))
    return landing.results(allow_pickle=future.allow_pickle)


def withdraw(flying: Iterable[Future[Any]]) -> None:
    """Nobody wants these any more; what runs goes on, since to stop it would cost its worker."""
    for future in flying:
        if isinstance(future, BatchFuture) and (future.running() or future.done()):
            future.abandon()
        elif not future.running():
            future.cancel()


def _fill(
    flying: deque[Future[Any]], launcher: Launcher, items: Iterator[Any]
) -> BaseException | None:
    while (room := launcher.room(flying)) > 0:
        gathered, failure = _gather(items, room)
        if not gathered:
            return failure
        launched = launcher.launch(gathered)
        flying.extend(launched.futures)
        if launched.failure is not None or failure is not None:
            return launched.failure or failure
    return None


def _gather(items: Iterator[Any], most: int) -> tuple[list[Any], BaseException | None]:
    """The next items, and what the iterator raised, if it did."""
    gathered: list[Any] = []
    until = time.monotonic() + GATHERING
    try:
        # In growing steps: to look at the clock costs as much as an item.
        step = 1
        while step > 0 and time.monotonic() <= until:
            before = len(gathered)
            gathered.extend(itertools.islice(items, step))
            if len(gathered) - before < step:
                break
            step = min(2 * step, most - len(gathered))
    except Exception as error:  # noqa: BLE001 - it is raised when its turn comes
        return gathered, error
    return gathered, None


def _next_done(flying: deque[Future[Any]], ordered: bool) -> Future[Any]:
    if ordered:
        return flying.popleft()
    done, _ = wait(flying, return_when=FIRST_COMPLETED)
    future = next(future for future in flying if future in done)
    flying.remove(future)
    return future
