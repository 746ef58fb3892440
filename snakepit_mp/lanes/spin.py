"""When is it worth while to look again rather than to sleep? For a moment, and beside the other.

A wake-up costs more than a short call. So who waits looks for the answer a few times before it
sleeps, but only while the other side runs on another CPU: else it would keep from running the
very process that it waits for. Each side tells on the status page where it runs.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["NOWHERE", "Meet", "current_cpu", "nobody", "spin"]

#: Where a CPU's number is not known: nobody spins for who is there.
NOWHERE = -1

#: Notes on which CPU one side is; on which the other was last seen.
Meet = Callable[[int], int]

_T = TypeVar("_T")


def _finder() -> Callable[[], int]:
    try:
        found: Callable[[], int] = ctypes.CDLL(None).sched_getcpu
    except AttributeError:  # macOS has none
        return lambda: NOWHERE
    return found


#: The CPU that the calling thread is on, which the next moment may change.
current_cpu = _finder()


def nobody(cpu: int) -> int:
    """A `Meet` where there is no other side to be met."""
    return NOWHERE


def spin(look: Callable[[], _T | None], meet: Meet, seconds: float) -> _T | None:
    """What ``look()`` finds within so many seconds; ``None`` at once if it is not worth while.

    ``meet`` tells the other side where this one is, and returns where that is.
    """
    here = current_cpu()
    if meet(here) in (NOWHERE, here):
        return None
    until = time.perf_counter() + seconds
    while (found := look()) is None and time.perf_counter() < until:
        pass
    return found
