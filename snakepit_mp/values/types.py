"""Which types can a variable have, and which values become which?

=========  ======================  =====================================================
type       normal form             what else is accepted, if nothing is lost
=========  ======================  =====================================================
boolean    ``bool``                ``np.bool_``
integer    ``int``                 NumPy integers; whole floats (``1.0``, not ``1.5``)
float      ``float``               NumPy floats and integers; ints a float can hold exactly
string     ``str``                 ``np.str_``
tensor     ``np.ndarray``          nothing; the dtype must be plain, and is kept, as is the shape
any        the value itself
=========  ======================  =====================================================

A ``bool`` is neither an integer nor a float. Instances of subclasses (an ``IntEnum`` member
for an integer, say) are refused: their type would be lost. Every path uses this one table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ..errors import VariableTypeError
from . import arrays, wire

__all__ = ["TYPES", "coerce", "infer_type", "shorten", "type_name"]

_INFERRED: dict[type, str] = {bool: "boolean", int: "integer", float: "float", str: "string"}
_SHOWN = 60


def type_name(kind: Any) -> str:
    """The variable type meant by its name or by a Python type (``float``, ``np.ndarray``...).

    ``object`` and ``typing.Any`` mean ``any``. Raises `VariableTypeError` if there is none.
    """
    if isinstance(kind, str):
        if kind in TYPES:
            return kind
    elif kind is object or kind is Any:
        return "any"
    elif _is_ndarray(kind):
        return "tensor"
    elif kind in (bool, int, float, str):
        return _INFERRED[kind]
    shown = wire.type_label(kind) if isinstance(kind, type) else shorten(kind)
    raise VariableTypeError(f"no variable type {shown}; there are {', '.join(TYPES)}")


def infer_type(value: Any) -> str:
    """The type that a variable gets when it is registered without one."""
    if _is_ndarray(type(value)):
        return "tensor" if arrays.is_plain(value.dtype) else "any"
    return _INFERRED.get(type(value), "any")


def coerce(kind: str, value: Any) -> Any:
    """``value`` in the normal form of ``kind``, a name in `TYPES`.

    Raises `VariableTypeError` if it is of another type, or if something would be lost.
    """
    return _COERCIONS[kind](value)


def shorten(value: Any) -> str:
    """The repr of ``value`` for a message, cut where it is long."""
    if _is_ndarray(type(value)):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    try:
        text = repr(value)
    except ValueError:  # Python spells no integer of more than 4300 digits
        text = f"<{type(value).__qualname__} with too many digits to be shown>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _is_ndarray(cls: Any) -> bool:
    numpy = sys.modules.get("numpy")  # without NumPy there is no array either
    return numpy is not None and cls is getattr(numpy, "ndarray", None)


def _is_scalar(value: Any, kind: str) -> bool:
    """Whether ``value`` is a NumPy scalar of that kind: ``bool_``, ``integer``..."""
    numpy = sys.modules.get("numpy")
    return (
        numpy is not None
        and isinstance(value, getattr(numpy, kind))
        and type(value) is value.dtype.type
        and value.dtype.kind != "m"  # NumPy counts a timedelta64 among its integers
    )


def _mismatch(expected: str, value: Any) -> VariableTypeError:
    label = wire.type_label(type(value))
    return VariableTypeError(f"{shorten(value)} (type {label}) is no {expected}")


def _as_boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    if _is_scalar(value, "bool_"):
        return bool(value)
    raise _mismatch("boolean", value)


def _as_integer(value: Any) -> int:
    if type(value) is int:
        return value
    if _is_scalar(value, "integer"):
        return int(value)
    if (type(value) is float or _is_scalar(value, "floating")) and value.is_integer():
        return int(value)
    raise _mismatch("integer", value)


def _as_float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int or _is_scalar(value, "integer"):
        number = _exact_float(int(value))
        if number is not None:
            return number
    elif _is_scalar(value, "floating"):
        number = float(value)
        if number == value or value != value:
            return number
    raise _mismatch("float", value)


def _exact_float(value: int) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if int(number) == value else None


def _as_string(value: Any) -> str:
    if type(value) is str:
        return value
    if _is_scalar(value, "str_"):
        return str.__str__(value)
    raise _mismatch("string", value)


def _as_tensor(value: Any) -> Any:
    if _is_ndarray(type(value)) and arrays.is_plain(value.dtype):
        return value
    raise _mismatch("tensor", value)


def _as_it_is(value: Any) -> Any:
    return value


_COERCIONS: dict[str, Callable[[Any], Any]] = {
    "any": _as_it_is,
    "boolean": _as_boolean,
    "float": _as_float,
    "integer": _as_integer,
    "string": _as_string,
    "tensor": _as_tensor,
}

#: The names of all types, sorted.
TYPES: tuple[str, ...] = tuple(_COERCIONS)
