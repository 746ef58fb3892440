"""Is a tool to be called at all? A circuit breaker for each.

Closed, it counts failures in a row; when there are enough of them within the window, it opens,
and calls are refused. After a while it lets one through, the probe, which decides: its success
closes the circuit, its failure opens it again. A success in between forgets the failures before
it, so a busy tool that fails now and then is not taken for a broken one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum, auto

from ..config import BreakerPolicy
from ..telemetry.events import Announcer, BreakerStateChanged

__all__ = ["BreakerState", "Breakers", "CircuitBreaker"]


class BreakerState(StrEnum):
    """Where a circuit is."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()  # a probe is under way


class CircuitBreaker:
    """The breaker of one tool."""

    __slots__ = ("_announcer", "_failures", "_opened_at", "_policy", "_probe", "_tool", "state")

    def __init__(
        self, policy: BreakerPolicy, tool: str = "", announcer: Announcer | None = None
    ) -> None:
        self._policy = policy
        self._tool = tool
        self._announcer = announcer or Announcer()
        self._failures: deque[float] = deque()
        self._opened_at = 0.0
        self._probe = 0
        self.state = BreakerState.CLOSED

    def admit(self, request_id: int, now: float, is_open: Callable[[int], bool]) -> float | None:
        """``None`` if the request may go on; else the seconds after which it is worth a try.

        ``is_open(request_id)`` tells whether a request still waits for its answer.
        """
        if self.state is BreakerState.CLOSED:
            return None
        if self.state is BreakerState.HALF_OPEN and is_open(self._probe):
            return self._policy.probe_after
        left = self._opened_at + self._policy.probe_after - now
        if self.state is BreakerState.OPEN and left > 0:
            return left
        # The time has come; or the probe before has ended without telling anything.
        self._become(BreakerState.HALF_OPEN)
        self._probe = request_id
        return None

    def record(self, request_id: int, now: float, *, failed: bool) -> None:
        """What became of a request that was let through."""
        if self.state is BreakerState.HALF_OPEN and request_id == self._probe:
            if failed:
                self._open(now)
            else:
                self._become(BreakerState.CLOSED)
                self._failures.clear()
        elif self.state is BreakerState.CLOSED:
            self._count(now, failed=failed)

    def _count(self, now: float, *, failed: bool) -> None:
        if not failed:
            self._failures.clear()
            return
        self._failures.append(now)
        while self._failures[0] < now - self._policy.window:
            self._failures.popleft()
        if len(self._failures) >= self._policy.failures:
            self._open(now)

    def _become(self, state: BreakerState) -> None:
        before, self.state = self.state, state
        if self._announcer.active:
            self._announcer.publish(BreakerStateChanged(self._tool, str(before), str(state)))

    def _open(self, now: float) -> None:
        self._become(BreakerState.OPEN)
        self._opened_at = now
        self._failures.clear()


class Breakers:
    """A breaker for each tool, where there is a policy."""

    def __init__(self, policy: BreakerPolicy | None, announcer: Announcer | None = None) -> None:
        self._policy = policy
        self._announcer = announcer
        self._by_tool: dict[str, CircuitBreaker] = {}

    @property
    def wanted(self) -> bool:
        """There is a policy, so that what becomes of a call matters to the next."""
        return self._policy is not None

    def of(self, tool: str | None) -> CircuitBreaker | None:
        if self._policy is None or tool is None:
            return None
        if tool not in self._by_tool:
            self._by_tool[tool] = CircuitBreaker(self._policy, tool, self._announcer)
        return self._by_tool[tool]

    def states(self) -> dict[str, BreakerState]:
        return {tool: breaker.state for tool, breaker in self._by_tool.items()}
