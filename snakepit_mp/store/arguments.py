"""Is this argument of a call one? Names, times and counts, checked where they come in."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .layout import HISTORY_MOST

__all__ = [
    "glob",
    "history_count",
    "lifetime",
    "name_of",
    "new_values",
    "version_of",
    "wait_timeout",
    "worker_number",
]

_SECOND = 10**9
#: In seconds: longer than any machine runs, and still a time that can be reckoned with.
_LONGEST = 1 << 33
#: What a word of the store holds at most, where it must not be negative.
_MOST = (1 << 63) - 1


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
    return max(int(ttl * _SECOND), 1) if ttl < _LONGEST else _MOST


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
    return float(min(timeout, _LONGEST))


def version_of(what: str, number: Any) -> int:
    """A version; whether there is, was or will be such a one is for others to say."""
    return _integer(what, number)


def worker_number(number: Any) -> int:
    """The number of a worker."""
    found = _integer("a worker's number", number)
    if not 0 <= found < _MOST:  # it is stored plus one
        raise ConfigError(f"a worker's number must be at least 0 and below 2**63 - 1, not {found}")
    return found


def glob(pattern: Any) -> str:
    """What names are compared with."""
    if not isinstance(pattern, str):
        raise TypeError(f"a pattern must be a str, not {type(pattern).__name__}")
    return pattern


def new_values(values: Any) -> Mapping[str, Any]:
    """New values by name."""
    if not isinstance(values, Mapping):
        raise TypeError(f"values must be a mapping by name, not {type(values).__name__}")
    return values


def _integer(what: str, number: Any) -> int:
    if not isinstance(number, bool):
        try:
            return operator.index(number)  # NumPy's, too
        except TypeError:
            pass
    raise TypeError(f"{what} must be an int, not {type(number).__name__}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
