"""Which JSON stands for a value, and which value for JSON that somebody else wrote?

The published protocol carries values as JSON with the type beside it. What JSON cannot say
(``bytes``, complex numbers, keys that are no strings) has no form here; callers then fall
back to the lossless encoding. Tuples become lists, NumPy scalars numbers, arrays
``{"shape": [...], "data": [...]}``, and the floats that JSON lacks the strings ``"NaN"``,
``"Infinity"`` and ``"-Infinity"``. A moment is its ISO 8601 text, where that says all of it.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import CodecError
from . import tensors

__all__ = ["SPECIAL", "TYPES", "NotJsonError", "dumps", "form", "loads", "type_of", "typed"]

_MAX_DEPTH = 64
#: What JSON has no numbers for, by the strings that stand for it.
SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class NotJsonError(Exception):
    """The value has no JSON form."""


# Writing.


def form(value: Any, type_: str | None = None) -> tuple[str, bytes]:
    """Wire type and JSON of a value. `NotJsonError` if it has none.

    ``type_``: the type of the variable that it is the value of.
    """
    if type(value) is dt.datetime:
        return "datetime", dumps(_moment(value))
    if type_ == "embedding" and tensors.is_array(value):
        return type_, dumps(value.tolist())
    if type_ in ("choice", "module") and isinstance(value, str):
        return type_, dumps(value)
    return type_of(value), dumps(value)


def _moment(value: dt.datetime) -> str:
    if value.tzinfo is None or type(value.tzinfo) is dt.timezone:
        text = value.isoformat()
        # By repr: == does not ask for fold and the name of a zone.
        if repr(dt.datetime.fromisoformat(text)) == repr(value):
            return text
    raise NotJsonError("ISO 8601 has no fold and no names of zones")


def type_of(value: Any) -> str:
    """The wire type of a value: what follows ``snakepit.`` in its type URL."""
    for kinds, name in _WIRE_TYPES:
        if isinstance(value, kinds):
            return name
    if tensors.is_array(value):
        return "tensor"
    return type_of(_scalar(value))


def _scalar(value: Any) -> Any:
    """The Python number of a NumPy scalar that is a boolean, an integer or a float."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        item = value.item() if value.dtype.kind in "biuf" else value
        if isinstance(item, (bool, int, float)):
            return item
    raise NotJsonError(f"{type(value).__qualname__} has no JSON form")


_WIRE_TYPES: tuple[tuple[Any, str], ...] = (
    (type(None), "any"),
    (bool, "boolean"),
    (int, "integer"),
    (float, "float"),
    (str, "string"),
    (Mapping, "map"),
    ((list, tuple), "list"),
)


def dumps(value: Any) -> bytes:
    """The JSON of a value, in UTF-8. `NotJsonError` if it has none."""
    try:
        text = json.dumps(_plain(value, 0), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except ValueError as error:  # lone surrogates; integers too long to be written down
        raise NotJsonError(str(error)) from error


def _plain(value: Any, depth: int) -> Any:
    """The same of dicts, lists, strings, numbers, booleans and ``None`` only."""
    if depth > _MAX_DEPTH:
        raise NotJsonError(f"nested more than {_MAX_DEPTH} deep")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _spelled(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
    if tensors.is_array(value):
        if value.dtype.kind not in "biuf":
            raise NotJsonError(f"an array of {value.dtype} has no JSON form")
        header, elements = tensors.elements(value)
        return {**header, "data": [_plain(item, depth + 2) for item in elements]}
    return _plain(_scalar(value), depth)


def _spelled(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    raise NotJsonError(f"JSON has no key {key!r}")


# Reading. Everything here may be hostile.


def loads(data: bytes, what: str) -> Any:
    """The JSON value in ``data``; `CodecError`, which names ``what``, if there is none.

    A bare ``NaN`` or ``Infinity`` is let through: older clients write it.
    """
    try:
        return json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise CodecError(f"{what} is not JSON in UTF-8: {error}", path=what) from error
    except RecursionError:
        raise CodecError(f"{what} is nested too deeply", path=what) from None


def typed(type_: str, value: Any, what: str) -> Any:
    """A value read from JSON as the wire type it was labelled with. `CodecError` if it is not."""
    return TYPES[type_](value, what)


def _wrong(expected: str, value: Any, what: str) -> CodecError:
    return CodecError(f"{what} must be {expected}, not JSON {_json_type(value)}", path=what)


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")


def _float(value: Any, what: str) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise CodecError(f"{what} is too large for a float", path=what) from None
    if type(value) is str and value in SPECIAL:
        return SPECIAL[value]
    raise _wrong("a number", value, what)


def _integer(value: Any, what: str) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    raise _wrong("an integer", value, what)


def _string(value: Any, what: str) -> str:
    if type(value) is str:
        return value
    raise _wrong("a string", value, what)


def _boolean(value: Any, what: str) -> bool:
    if type(value) is bool:
        return value
    raise _wrong("a boolean", value, what)


def _map(value: Any, what: str) -> dict[str, Any]:
    if type(value) is dict:
        return value
    raise _wrong("an object", value, what)


def _list(value: Any, what: str) -> list[Any]:
    if type(value) is list:
        return value
    raise _wrong("an array", value, what)


def _floats(items: list[Any], what: str) -> list[float]:
    if set(map(type, items)) <= {float}:
        return items
    return [_float(item, f"{what}[{index}]") for index, item in enumerate(items)]


def _datetime(value: Any, what: str) -> dt.datetime:
    text = _string(value, what)
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise CodecError(f"{what} is no date and time of ISO 8601", path=what) from error


def _embedding(value: Any, what: str) -> list[float]:
    return _floats(_list(value, what), what)


def _tensor(value: Any, what: str) -> Any:
    if type(value) is not dict or not {"shape", "data"} <= value.keys():
        raise CodecError(f'{what} must be an object with "shape" and "data"', path=what)
    shape = tensors.shape_in(value, what)
    flat = tensors.flatten(_list(value["data"], f"{what}.data"), shape, what)
    kinds = set(map(type, flat))
    if bool in kinds and kinds != {bool}:
        raise CodecError(f"{what}.data mixes booleans with something else", path=what)
    if not (kinds <= {bool} or kinds <= {int}):
        flat = _floats(flat, f"{what}.data")
    return tensors.from_elements(flat, shape, what)


def _any(value: Any, what: str) -> Any:
    return value


#: What reads each wire type.
TYPES: dict[str, Callable[[Any, str], Any]] = {
    "any": _any,
    "boolean": _boolean,
    "choice": _string,
    "datetime": _datetime,
    "embedding": _embedding,
    "float": _float,
    "integer": _integer,
    "list": _list,
    "map": _map,
    "module": _string,
    "string": _string,
    "tensor": _tensor,
}
