"""Which constraints can a variable have, are they consistent, and does a value obey them?

=================================  =================  ==================================
constraint                         types              the value must
=================================  =================  ==================================
``min``, ``max``                   float, integer     lie within, bounds included
``min_length``, ``max_length``     string             have so many code points
``choices``                        float, integer,    equal one of them
                                   string, boolean
``shape``                          tensor             have these axes; ``None`` is a free one
=================================  =================  ==================================

NaN satisfies no bound: it is refused where ``min`` or ``max`` is set. A constraint that is
``None`` counts as not given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConstraintError, ConstraintViolation, VariableTypeError
from .types import coerce, shorten

__all__ = ["check", "validate_constraints"]


def validate_constraints(kind: str, constraints: Mapping[str, Any] | None) -> dict[str, Any]:
    """The set in normal form, bounds and choices coerced to ``kind``, sequences as lists.

    ``kind`` is a name in `types.TYPES`. Raises `ConstraintError` for a key that is unknown or
    does not suit the type, for a bad limit, and for a set that contradicts itself.
    """
    if constraints is None:
        return {}
    if not isinstance(constraints, Mapping):
        raise ConstraintError(f"constraints must be a mapping, not {shorten(constraints)}")
    given = {name: limit for name, limit in constraints.items() if limit is not None}
    for name in given:
        _check_name(kind, name)
    # In the order of the table, so that choices meet limits that are sound already.
    normal = {name: _RULES[name].read(kind, name, given[name]) for name in _RULES if name in given}
    _check_order(normal, "min", "max")
    _check_order(normal, "min_length", "max_length")
    _check_choices(kind, normal)
    return normal


def check(kind: str, constraints: Mapping[str, Any] | None, value: Any) -> None:
    """Raise `ConstraintViolation` if ``value`` breaks one of ``constraints``.

    Both are in normal form: from `types.coerce` and from `validate_constraints`.
    """
    if not constraints:
        return
    for name, limit in constraints.items():
        fault = _RULES[name].fault(value, limit)
        if fault is not None:
            raise ConstraintViolation(
                f"{shorten(value)} {fault} (constraint {name})", constraint=name, value=value
            )


def _check_name(kind: str, name: Any) -> None:
    suitable = [known for known, rule in _RULES.items() if kind in rule.types]
    if name in suitable:
        return
    word = "does not suit" if name in _RULES else "is unknown for"
    known = ", ".join(suitable) or "no constraints"
    raise ConstraintError(f"constraint {shorten(name)} {word} type {kind}, which takes {known}")


def _check_order(normal: Mapping[str, Any], low: str, high: str) -> None:
    if low in normal and high in normal and normal[low] > normal[high]:
        raise ConstraintError(
            f"{low} {shorten(normal[low])} is above {high} {shorten(normal[high])}"
        )


def _check_choices(kind: str, normal: Mapping[str, Any]) -> None:
    others = {name: limit for name, limit in normal.items() if name != "choices"}
    for choice in normal.get("choices", ()):
        try:
            check(kind, others, choice)
        except ConstraintViolation as violation:
            raise ConstraintError(f"choices contradict the other limits: {violation}") from None


def _read_bound(kind: str, name: str, limit: Any) -> Any:
    try:
        bound = coerce(kind, limit)
    except VariableTypeError as error:
        raise ConstraintError(f"{name}: {error}") from None
    if bound != bound:
        raise ConstraintError(f"{name} must not be NaN")
    return bound


def _read_length(kind: str, name: str, limit: Any) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ConstraintError(f"{name} must be an int of at least 0, not {shorten(limit)}")
    return int(limit)


def _read_choices(kind: str, name: str, limit: Any) -> list[Any]:
    if not isinstance(limit, (list, tuple)) or not limit:
        raise ConstraintError(f"{name} must be a list that is not empty, not {shorten(limit)}")
    return [_read_bound(kind, f"{name}[{index}]", choice) for index, choice in enumerate(limit)]


def _read_shape(kind: str, name: str, limit: Any) -> list[int | None]:
    if not isinstance(limit, (list, tuple)):
        raise ConstraintError(f"{name} must be a list or tuple, not {shorten(limit)}")
    return [
        None if axis is None else _read_length(kind, f"{name}[{index}]", axis)
        for index, axis in enumerate(limit)
    ]


def _below(value: Any, limit: Any) -> str | None:
    return None if value >= limit else f"is not at least {shorten(limit)}"


def _above(value: Any, limit: Any) -> str | None:
    return None if value <= limit else f"is not at most {shorten(limit)}"


def _too_short(value: str, limit: int) -> str | None:
    return None if len(value) >= limit else f"has {len(value)} characters, at least {limit} needed"


def _too_long(value: str, limit: int) -> str | None:
    return None if len(value) <= limit else f"has {len(value)} characters, at most {limit} allowed"


def _no_choice(value: Any, limit: list[Any]) -> str | None:
    return None if value in limit else f"is not among {shorten(limit)}"


def _misshapen(value: Any, limit: list[int | None]) -> str | None:
    fits = len(limit) == value.ndim and all(
        axis is None or axis == size for axis, size in zip(limit, value.shape, strict=True)
    )
    return None if fits else f"does not have shape {tuple(limit)}"


class _Rule:
    """How one constraint is read, and what is wrong with a value that breaks it."""

    __slots__ = ("fault", "read", "types")

    def __init__(
        self,
        types: tuple[str, ...],
        read: Callable[[str, str, Any], Any],
        fault: Callable[[Any, Any], str | None],
    ) -> None:
        self.types = types
        self.read = read
        self.fault = fault


_NUMBERS = ("float", "integer")

_RULES: dict[str, _Rule] = {
    "min": _Rule(_NUMBERS, _read_bound, _below),
    "max": _Rule(_NUMBERS, _read_bound, _above),
    "min_length": _Rule(("string",), _read_length, _too_short),
    "max_length": _Rule(("string",), _read_length, _too_long),
    "choices": _Rule((*_NUMBERS, "string", "boolean"), _read_choices, _no_choice),
    "shape": _Rule(("tensor",), _read_shape, _misshapen),
}
