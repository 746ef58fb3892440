"""Which values become which, in a variable of some type?

The rules are few, never lose anything and are the same on every path; ``docs/variables.md``
has them in one table. Instances of subclasses (an ``IntEnum`` member for an integer, say)
are refused: their type would be lost.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import VariableTypeError
from . import arrays, wire
from .shown import shorten
from .types import is_ndarray

if TYPE_CHECKING:
    import numpy as np

__all__ = ["coerce"]


def coerce(kind: str, value: Any, *, dtype: str | None = None) -> Any:
    """``value`` in the normal form of ``kind``, a name in `types.TYPES`.

    ``dtype``, ``"float32"`` or ``"float64"``: what numbers that come without a dtype of an
    embedding become, if it holds each of them exactly; otherwise they become ``float64``.

    Raises `VariableTypeError` if it is of another type, or if something would be lost.
    """
    if kind == "embedding":
        return _as_embedding(value, dtype)
    return _COERCIONS[kind](value)


def _is_scalar(value: Any, kind: str) -> bool:
    """Whether ``value`` is a NumPy scalar of that kind: ``bool_``, ``integer``..."""
    numpy = sys.modules.get("numpy")
    return (
        numpy is not None
        and isinstance(value, getattr(numpy, kind))
        and type(value) is value.dtype.type
        and value.dtype.kind != "m"  # NumPy counts a timedelta64 among its integers
    )


def _mismatch(expected: str, value: Any, why: str = "") -> VariableTypeError:
    label = wire.type_label(type(value))
    return VariableTypeError(f"{shorten(value)} (type {label}) is no {expected}{why}", value=value)


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


def _text_as(kind: str) -> Callable[[Any], str]:
    def as_text(value: Any) -> str:
        if type(value) is str:
            return value
        if _is_scalar(value, "str_"):
            return str.__str__(value)
        raise _mismatch(kind, value)

    return as_text


def _as_bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if type(value) is bytearray or _is_scalar(value, "bytes_"):
        return bytes(value)
    raise _mismatch("bytes", value)


def _exactly(kind: str, cls: type) -> Callable[[Any], Any]:
    def as_it_is(value: Any) -> Any:
        if type(value) is cls:
            return value
        raise _mismatch(kind, value)

    return as_it_is


def _as_tensor(value: Any) -> Any:
    if is_ndarray(type(value)) and arrays.is_plain(value.dtype):
        return value
    raise _mismatch("tensor", value)


def _as_embedding(value: Any, dtype: str | None) -> np.ndarray[Any, Any]:
    numbers = value
    if is_ndarray(type(value)):
        if value.ndim != 1 or value.dtype.kind not in "iuf":
            raise _mismatch("embedding", value)
        if value.dtype.str[1:] in ("f4", "f8"):
            vector: np.ndarray[Any, Any] = value.astype(value.dtype.newbyteorder("="), copy=False)
            return vector
        numbers = list(value)  # of NumPy scalars: a longdouble has no Python twin
    elif type(value) not in (list, tuple):
        raise _mismatch("embedding", value)
    return _vector(_floats(value, numbers), dtype)


def _floats(value: Any, numbers: list[Any]) -> list[float]:
    if set(map(type, numbers)) <= {float}:
        return numbers
    floats = []
    for index, number in enumerate(numbers):
        try:
            floats.append(_as_float(number))
        except VariableTypeError as error:
            raise _mismatch("embedding", value, f": [{index}]: {error}") from None
    return floats


def _vector(numbers: list[float], dtype: str | None) -> np.ndarray[Any, Any]:
    import numpy as np

    wide = np.array(numbers, np.float64)
    if dtype != "float32":
        return wide
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return narrow if np.array_equal(narrow, wide, equal_nan=True) else wide


def _as_it_is(value: Any) -> Any:
    return value


_COERCIONS: dict[str, Callable[[Any], Any]] = {
    "any": _as_it_is,
    "boolean": _as_boolean,
    "bytes": _as_bytes,
    "choice": _text_as("choice"),
    "datetime": _exactly("datetime", dt.datetime),
    "float": _as_float,
    "integer": _as_integer,
    "list": _exactly("list", list),
    "map": _exactly("map", dict),
    "module": _text_as("module"),
    "string": _text_as("string"),
    "tensor": _as_tensor,
}
