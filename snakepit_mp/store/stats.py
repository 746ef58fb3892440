"""How full is the store? Counted words, so as cheap for many sessions as for one."""

from __future__ import annotations

from dataclasses import dataclass

from .layout import (
    FREE_PAGES,
    P_STATE,
    PAGE_BYTES,
    PAGES,
    PROCESS_COUNT,
    PROCESS_LIVE,
    PROCESS_WORDS,
    PROCESSES,
    PROCESSES_USED,
)
from .segment import Segment
from .sessions import session_count

__all__ = ["StoreStats", "stats_of"]


@dataclass(frozen=True, slots=True)
class StoreStats:
    """A store at one moment.

    ``sessions``: expired ones included until they are removed. ``pages``: of memory that was
    taken from the machine, which keeps it. ``bytes_used``: of them in use, ``bytes_free``: of
    them not; ``bytes_limit``: that may be in use. ``processes``: that hold views or arrays to
    fill; none with the pure twin.
    """

    sessions: int
    pages: int
    bytes_used: int
    bytes_free: int
    bytes_limit: int
    processes: int


def stats_of(segment: Segment, max_bytes: int) -> StoreStats:
    """Without a lock: each figure is true, perhaps not all of one moment."""
    words = segment.words
    pages, free = words[PAGES], words[FREE_PAGES]
    used = min(words[PROCESSES_USED], PROCESS_COUNT)
    states = (words[PROCESSES + number * PROCESS_WORDS + P_STATE] for number in range(used))
    return StoreStats(
        sessions=session_count(segment),
        pages=pages,
        bytes_used=(pages - free) * PAGE_BYTES,
        bytes_free=free * PAGE_BYTES,
        bytes_limit=max_bytes,
        processes=sum(state == PROCESS_LIVE for state in states),
    )
