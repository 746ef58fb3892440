"""Which constraints can a variable have, and are they consistent?

``docs/variables.md`` has the table of all constraints, and which types they suit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import ConstraintError, ConstraintViolation, VariableTypeError
from . import arrays, faults, patterns
from .coercion import coerce
from .shown import shorten
from .types import TYPES

__all__ = ["Check", "check", "checks_of", "suitable", "validate_constraints"]

_LONGEST_DTYPE = 40


class Check(NamedTuple):
    """One constraint, ready to be held against values."""

    constraint: str
    limit: Any
    fault: faults.Fault


def validate_constraints(kind: str, constraints: Mapping[str, Any] | None) -> dict[str, Any]:
    """The set in normal form, bounds and choices coerced to ``kind``, sequences as lists.

    ``kind`` is a name in `types.TYPES`. A constraint that is ``None``, or a switch that is
    off, counts as not given. Raises `ConstraintError` for a key that is unknown or does not
    suit the type, for a bad limit, and for a set that contradicts itself.
    """
    if constraints is None:
        return {}
    if not isinstance(constraints, Mapping):
        raise ConstraintError(f"constraints must be a mapping, not {shorten(constraints)}")
    given = {name: limit for name, limit in constraints.items() if limit is not None}
    for name in given:
        _check_name(kind, name)
    # In the order of the table, so that choices meet limits that are sound already.
    read = {name: _RULES[name].read(kind, name, given[name]) for name in _RULES if name in given}
    normal = {name: limit for name, limit in read.items() if limit is not False}
    _check_consistency(kind, normal)
    return normal


def checks_of(kind: str, constraints: Mapping[str, Any]) -> tuple[Check, ...]:
    """What values of ``kind`` are held against; ``constraints`` are in normal form."""
    return tuple(
        Check(name, limit, _RULES[name].fault(kind, limit)) for name, limit in constraints.items()
    )


def check(checks: Iterable[Check], value: Any) -> None:
    """Raise `ConstraintViolation` if ``value``, in normal form, fails one of ``checks``."""
    for constraint, limit, fault in checks:
        found = fault(value)
        if found is not None:
            raise ConstraintViolation(
                f"{shorten(value)} {found} (constraint {constraint})",
                constraint=constraint,
                limit=limit,
                value=value,
            )


def suitable(kind: str) -> tuple[str, ...]:
    """The names of the constraints that values of ``kind`` can have."""
    return tuple(name for name, rule in _RULES.items() if kind in rule.types)


def _check_name(kind: str, name: Any) -> None:
    if name in suitable(kind):
        return
    word = "does not suit" if name in _RULES else "is unknown for"
    known = ", ".join(suitable(kind)) or "no constraints"
    raise ConstraintError(f"constraint {shorten(name)} {word} type {kind}, which takes {known}")


# Do the constraints of a set contradict one another?


def _check_consistency(kind: str, normal: Mapping[str, Any]) -> None:
    _check_order(normal, "min", "max")
    _check_order(normal, "min_length", "max_length")
    if normal.keys() >= {"choices", "enum"}:
        raise ConstraintError("choices and enum are two names of one constraint: give one")
    if "pattern" in normal and normal.get("min_length", 0) > patterns.MAX_TEXT:
        raise ConstraintError(
            f"min_length {normal['min_length']} is above the {patterns.MAX_TEXT} characters "
            "that are matched with a pattern"
        )
    if normal.keys() >= {"min", "max", "multiple_of"}:
        _check_multiples(normal["min"], normal["max"], normal["multiple_of"])
    for name in ("choices", "enum"):
        others = {other: limit for other, limit in normal.items() if other != name}
        _check_choices(kind, name, normal.get(name, ()), others)


def _check_order(normal: Mapping[str, Any], low: str, high: str) -> None:
    if low in normal and high in normal and normal[low] > normal[high]:
        raise ConstraintError(
            f"{low} {shorten(normal[low])} is above {high} {shorten(normal[high])}"
        )


def _check_multiples(low: Any, high: Any, step: Any) -> None:
    if faults.is_infinite(low) or faults.is_infinite(high):
        return
    least = math.ceil(faults.exact(low) / faults.exact(step)) * faults.exact(step)
    if least > faults.exact(high):
        raise ConstraintError(
            f"there is no multiple of {shorten(step)} from min {shorten(low)} "
            f"to max {shorten(high)}"
        )


def _check_choices(kind: str, name: str, choices: Iterable[Any], others: Mapping[str, Any]) -> None:
    checks = checks_of(kind, others)
    for choice in choices:
        try:
            check(checks, choice)
        except ConstraintViolation as violation:
            raise ConstraintError(f"{name} contradict the other limits: {violation}") from None


# How is a limit read?


def _read_value(kind: str, name: str, limit: Any) -> Any:
    try:
        value = coerce(kind, limit)
    except VariableTypeError as error:
        raise ConstraintError(f"{name}: {error}") from None
    if value != value:
        raise ConstraintError(f"{name} must not be NaN")
    return value


def _read_step(kind: str, name: str, limit: Any) -> Any:
    step = _read_value(kind, name, limit)
    if step <= 0 or faults.is_infinite(step):
        raise ConstraintError(f"{name} must be finite and above 0, not {shorten(limit)}")
    return step


def _read_length(kind: str, name: str, limit: Any) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ConstraintError(f"{name} must be an int of at least 0, not {shorten(limit)}")
    return int(limit)


def _read_pattern(kind: str, name: str, limit: Any) -> str:
    if type(limit) is not str:
        raise ConstraintError(f"{name} must be a str, not {shorten(limit)}")
    try:
        patterns.matcher(limit)
    except patterns.PatternError as error:
        raise ConstraintError(f"{name} {shorten(limit)} is no pattern: {error}") from None
    return limit


def _read_choices(kind: str, name: str, limit: Any) -> list[Any]:
    if not isinstance(limit, (list, tuple)) or not limit:
        raise ConstraintError(f"{name} must be a list that is not empty, not {shorten(limit)}")
    return [_read_value(kind, f"{name}[{index}]", choice) for index, choice in enumerate(limit)]


def _read_shape(kind: str, name: str, limit: Any) -> list[int | None]:
    if not isinstance(limit, (list, tuple)):
        raise ConstraintError(f"{name} must be a list or tuple, not {shorten(limit)}")
    return [
        None if axis is None else _read_length(kind, f"{name}[{index}]", axis)
        for index, axis in enumerate(limit)
    ]


def _read_dtype(kind: str, name: str, limit: Any) -> str:
    known = _dtype_name(limit)
    if known is None or (kind == "embedding" and known not in ("float32", "float64")):
        wanted = "float32 or float64" if kind == "embedding" else "a plain NumPy dtype"
        raise ConstraintError(f"{name} must be {wanted}, not {shorten(limit)}")
    return known


def _dtype_name(limit: Any) -> str | None:
    """The shortest name that means exactly the dtype meant, if that is a plain one."""
    import numpy as np

    if not isinstance(limit, (str, type, np.dtype)) or len(str(limit)) > _LONGEST_DTYPE:
        return None
    try:
        dtype = np.dtype(limit)
    except (TypeError, ValueError, SyntaxError):  # NumPy parses what it does not know
        return None
    # Not by name where NumPy does not read that, as of fixed strings and of other byte orders.
    found = (
        dtype.name if dtype.name in np.sctypeDict and np.dtype(dtype.name) == dtype else dtype.str
    )
    return found if arrays.is_plain(dtype) and np.dtype(found) == dtype else None


def _read_switch(kind: str, name: str, limit: Any) -> bool:
    if type(limit) is not bool:
        raise ConstraintError(f"{name} must be a bool, not {shorten(limit)}")
    return limit


class _Rule(NamedTuple):
    """Which types a constraint suits, how its limit is read, and what breaks it."""

    types: tuple[str, ...]
    read: Callable[[str, str, Any], Any]
    fault: Callable[[str, Any], faults.Fault]


_NUMBERS = ("float", "integer")
_SIZED = tuple(faults.UNITS)
_CHOSEN = (*_NUMBERS, "boolean", "choice", "string")

_RULES: dict[str, _Rule] = {
    "nullable": _Rule(
        tuple(kind for kind in TYPES if kind != "any"), _read_switch, faults.no_fault
    ),
    "min": _Rule(_NUMBERS, _read_value, faults.below),
    "max": _Rule(_NUMBERS, _read_value, faults.above),
    "multiple_of": _Rule(_NUMBERS, _read_step, faults.no_multiple),
    "min_length": _Rule(_SIZED, _read_length, faults.too_short),
    "max_length": _Rule(_SIZED, _read_length, faults.too_long),
    "pattern": _Rule(("string",), _read_pattern, faults.no_match),
    "choices": _Rule(_CHOSEN, _read_choices, faults.no_choice),
    "enum": _Rule(_CHOSEN, _read_choices, faults.no_choice),
    "allowed_modules": _Rule(("module",), _read_choices, faults.no_choice),
    "dimensions": _Rule(("embedding",), _read_length, faults.wrong_dimensions),
    "dtype": _Rule(("embedding", "tensor"), _read_dtype, faults.wrong_dtype),
    "shape": _Rule(("tensor",), _read_shape, faults.misshapen),
    "unique": _Rule(("embedding", "list"), _read_switch, faults.not_unique),
}
