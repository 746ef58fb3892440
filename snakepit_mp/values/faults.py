"""What is wrong with a value that breaks a constraint? One function for each constraint.

Each takes the type and the limit, both in normal form, and returns a function that says what
is wrong with a value of that type: ``None``, or the rest of a sentence about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from . import codec, patterns
from .shown import shorten

__all__ = [
    "UNITS",
    "Fault",
    "above",
    "below",
    "exact",
    "is_infinite",
    "misshapen",
    "no_choice",
    "no_fault",
    "no_match",
    "no_multiple",
    "not_unique",
    "too_long",
    "too_short",
    "wrong_dimensions",
    "wrong_dtype",
]

Fault = Callable[[Any], str | None]

#: What the length of a type counts.
UNITS = {"bytes": "bytes", "list": "items", "map": "keys", "string": "characters"}


def below(kind: str, limit: Any) -> Fault:
    return lambda value: None if value >= limit else f"is not at least {shorten(limit)}"


def above(kind: str, limit: Any) -> Fault:
    return lambda value: None if value <= limit else f"is not at most {shorten(limit)}"


def exact(number: float) -> Fraction:
    """A finite number as it is written: 0.1 is a tenth, not the nearest float to it."""
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


def is_infinite(number: float) -> bool:
    """Whether it is a float that is infinite, or NaN; an int may be too large to ask `math`."""
    return isinstance(number, float) and not math.isfinite(number)


def no_multiple(kind: str, limit: Any) -> Fault:
    step = exact(limit)

    def fault(value: Any) -> str | None:
        if not is_infinite(value) and (exact(value) / step).denominator == 1:
            return None
        return f"is not a multiple of {shorten(limit)}"

    return fault


def too_short(kind: str, limit: int) -> Fault:
    unit = UNITS[kind]

    def fault(value: Any) -> str | None:
        if len(value) >= limit:
            return None
        return f"has {len(value)} {unit}, at least {shorten(limit)} needed"

    return fault


def too_long(kind: str, limit: int) -> Fault:
    unit = UNITS[kind]

    def fault(value: Any) -> str | None:
        if len(value) <= limit:
            return None
        return f"has {len(value)} {unit}, at most {shorten(limit)} allowed"

    return fault


def no_match(kind: str, limit: str) -> Fault:
    matches = patterns.matcher(limit)

    def fault(value: str) -> str | None:
        if len(value) > patterns.MAX_TEXT:
            return f"has {len(value)} characters, and no more than {patterns.MAX_TEXT} are matched"
        return None if matches(value) else f"does not match {shorten(limit)} as a whole"

    return fault


def no_choice(kind: str, limit: list[Any]) -> Fault:
    choices = frozenset(limit)
    return lambda value: None if value in choices else f"is not among {shorten(limit)}"


def wrong_dimensions(kind: str, limit: int) -> Fault:
    def fault(value: Any) -> str | None:
        return None if value.size == limit else f"does not have {shorten(limit)} dimensions"

    return fault


def misshapen(kind: str, limit: list[int | None]) -> Fault:
    def fault(value: Any) -> str | None:
        fits = len(limit) == value.ndim and all(
            axis is None or axis == size for axis, size in zip(limit, value.shape, strict=True)
        )
        return None if fits else f"does not have shape {shorten(tuple(limit))}"

    return fault


def wrong_dtype(kind: str, limit: str) -> Fault:
    import numpy as np

    dtype = np.dtype(limit)
    return lambda value: None if value.dtype == dtype else f"does not have dtype {limit}"


def not_unique(kind: str, limit: bool) -> Fault:
    return _same_items if kind == "list" else _same_numbers


def _same_items(value: list[Any]) -> str | None:
    # By what is stored of an item: the same for every path, also for NaN and for what has no
    # hash, and True is not 1.
    seen: dict[bytes, int] = {}
    for index, item in enumerate(value):
        first = seen.setdefault(codec.encode(item, root=f"value[{index}]"), index)
        if first != index:
            return f"has the same item at [{first}] and [{index}]"
    return None


def _same_numbers(value: Any) -> str | None:
    import numpy as np

    bits = value.view(f"u{value.dtype.itemsize}")
    return None if np.unique(bits).size == value.size else "has the same number twice"


def no_fault(kind: str, limit: Any) -> Fault:
    return lambda value: None
