"""When may it be started again, and when is enough enough? OTP's restart intensity.

Only failed starts are reported here; whoever has proved that it can work is replaced at once.
The window of ``max_seconds`` runs on a clock of its own, which stands still while a start is
under way and during the waits ordered here. On a plain clock a start that takes long to fail,
or a long backoff, would carry each death out of the window of the one before, and the pool
would try for ever while its callers wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..config import RestartPolicy

__all__ = ["RestartIntensity"]

_MAX_DOUBLINGS = 60  # beyond any backoff anybody sets, and far from an overflow


class RestartIntensity:
    """Counts the failed starts of one slot, or of the fork server.

    ``jitter()`` returns a number from -1 to 1; ``policy.jitter`` scales it.
    """

    __slots__ = ("_deaths", "_jitter", "_policy", "_standing")

    def __init__(self, policy: RestartPolicy, jitter: Callable[[], float]) -> None:
        self._policy = policy
        self._jitter = jitter
        self._deaths: deque[float] = deque()
        self._standing = 0.0  # seconds for which our clock has stood still

    def record_death(self, now: float, spent: float = 0.0) -> float | None:
        """Seconds to wait before the next start; ``None`` if there were too many.

        ``spent``: seconds, up to ``now``, that the failed start took.
        """
        policy = self._policy
        self._standing += spent
        clock = now - self._standing
        while self._deaths and self._deaths[0] < clock - policy.max_seconds:
            self._deaths.popleft()
        self._deaths.append(clock)
        count = len(self._deaths)
        if count > policy.max_restarts:
            return None
        delay = policy.backoff * 2.0 ** min(count - 1, _MAX_DOUBLINGS)
        delay = min(delay, policy.max_backoff) * (1.0 + policy.jitter * self._jitter())
        self._standing += delay
        return delay

    @property
    def longest(self) -> float:
        """The wait after the last failed start that is permitted, without jitter."""
        policy = self._policy
        doublings = min(max(policy.max_restarts - 1, 0), _MAX_DOUBLINGS)
        return min(policy.backoff * 2.0**doublings, policy.max_backoff)

    def reset(self) -> None:
        """It has proved that it can work: forget what was."""
        self._deaths.clear()
