"""How does a map stay lazy and bounded? A window of futures over an iterator."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
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
) -> Iterator[Any]:
    flying: deque[Future[Any]] = deque()
    try:
        more = True
        while True:
            while more and len(flying) < size:
                try:
                    item = next(items)
                except StopIteration:
                    more = False
                else:
                    flying.append(submit(item))
            if not flying:
                return
            future = _next_done(flying, ordered)
            error = future.exception()
            if error is None:
                yield future.result()
            elif on_error == "raise":
                raise error
            elif on_error == "return":
                yield error
    finally:
        for future in flying:
            if not future.running():  # to stop one that runs would cost its worker
                future.cancel()


def _next_done(flying: deque[Future[Any]], ordered: bool) -> Future[Any]:
    if ordered:
        return flying.popleft()
    done, _ = wait(flying, return_when=FIRST_COMPLETED)
    future = next(future for future in flying if future in done)
    flying.remove(future)
    return future
