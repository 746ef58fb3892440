"""How does a map stay lazy and bounded? A window of futures over an iterator."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

__all__ = ["ON_ERROR", "mapped"]

#: What may be done about an item that failed.
ON_ERROR = ("raise", "return", "skip")


def mapped(
    submit: Callable[[Any], Future[Any]],
    items: Iterator[Any],
    size: int,
    ordered: bool,
    on_error: str,
) -> Generator[Any, None, None]:
    """The results of ``submit(item)`` for each item, at most ``size`` of them in flight."""
    flying: deque[Future[Any]] = deque()
    try:
        _fill(flying, submit, items, size)
        while flying:
            future = _next_done(flying, ordered)
            error = future.exception()
            if error is not None and on_error == "raise":
                raise error
            if error is None or on_error == "return":
                yield future.result() if error is None else error
            _fill(flying, submit, items, size)
    finally:
        for future in flying:
            if not future.running():  # to stop one that runs would cost its worker
                future.cancel()


def _fill(
    flying: deque[Future[Any]],
    submit: Callable[[Any], Future[Any]],
    items: Iterator[Any],
    size: int,
) -> None:
    for item in itertools.islice(items, size - len(flying)):
        flying.append(submit(item))


def _next_done(flying: deque[Future[Any]], ordered: bool) -> Future[Any]:
    if ordered:
        return flying.popleft()
    done, _ = wait(flying, return_when=FIRST_COMPLETED)
    future = next(future for future in flying if future in done)
    flying.remove(future)
    return future
