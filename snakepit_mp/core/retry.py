"""How long does a call wait before its next attempt, and is there time for one?"""

from __future__ import annotations

from collections.abc import Callable

from .events import Request

__all__ = ["RetryBackoff"]

#: Seconds before the first retry; each further one waits twice as long, up to the longest.
_FIRST = 0.1
_LONGEST = 5.0
#: The fraction by which a wait is longer or shorter, so that calls that failed together part.
_SPREAD = 0.25
_MAX_DOUBLINGS = 10


class RetryBackoff:
    """Waits between attempts; ``jitter()`` returns a number from -1 to 1."""

    __slots__ = ("_jitter",)

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter

    def delay(self, request: Request, used: int, now: float) -> float | None:
        """Seconds until the retry after ``used`` others; ``None`` if there must be none."""
        if used >= request.retries:
            return None
        wait = min(_FIRST * 2.0 ** min(used, _MAX_DOUBLINGS), _LONGEST)
        wait *= 1.0 + _SPREAD * self._jitter()
        if request.deadline is not None and now + wait >= request.deadline:
            return None
        return wait
