"""Is this argument of a call one? Names, times and counts, checked where they come in."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ConfigError
from .layout import HISTORY_MOST

__all__ = ["history_count", "lifetime", "name_of", "wait_timeout"]

_SECOND = 10**9


def name_of(what: str, name: Any) -> str:
    """A name that is not empty."""
    if not isinstance(name, str):
        raise TypeError(f"a {what} must be a str, not {type(name).__name__}")
    if not name:
        raise ConfigError(f"a {what} must not be empty")
    return name


def lifetime(ttl: float | None) -> int:
    """A TTL in nanoseconds, 0 for ever."""
    if ttl is None or ttl == math.inf:
        return 0
    if not _is_number(ttl) or not ttl > 0:
        raise ConfigError(f"ttl must be a number of seconds above 0, not {ttl!r}")
    return min(max(int(ttl * _SECOND), 1), (1 << 63) - 1)


def history_count(count: Any) -> int:
    """How many old values are to be kept."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= HISTORY_MOST:
        raise ConfigError(
            f"history must be a number of old values from 0 to {HISTORY_MOST:,}, not {count!r}"
        )
    return count


def wait_timeout(timeout: float | None) -> float:
    """Seconds to wait, infinity where nothing is said."""
    if timeout is None:
        return math.inf
    if not _is_number(timeout) or not timeout >= 0:
        raise ConfigError(f"timeout must be a number of seconds of at least 0, not {timeout!r}")
    return timeout


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
