"""Which types can a variable have, and which one is meant by a name or has a value?

``docs/variables.md`` has the table of all types.
"""

from __future__ import annotations

import datetime as dt
import sys
from typing import Any

from ..errors import VariableTypeError
from . import arrays, wire
from .shown import shorten

__all__ = ["TYPES", "infer_type", "is_ndarray", "type_name"]

#: The names of all types, sorted.
TYPES: tuple[str, ...] = (
    "any",
    "boolean",
    "bytes",
    "choice",
    "datetime",
    "embedding",
    "float",
    "integer",
    "list",
    "map",
    "module",
    "string",
    "tensor",
)

#: The types that are meant by a Python type, and inferred from its instances.
_OF_PYTHON: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    bytes: "bytes",
    list: "list",
    dict: "map",
    dt.datetime: "datetime",
}


def type_name(kind: Any) -> str:
    """The variable type meant by its name or by a Python type (``float``, ``np.ndarray``...).

    ``object`` and ``typing.Any`` mean ``any``. Raises `VariableTypeError` if there is none.
    """
    if isinstance(kind, str):
        if kind in TYPES:
            return kind
    elif kind is object or kind is Any:
        return "any"
    elif is_ndarray(kind):
        return "tensor"
    elif isinstance(kind, type) and kind in _OF_PYTHON:
        return _OF_PYTHON[kind]
    shown = wire.type_label(kind) if isinstance(kind, type) else shorten(kind)
    raise VariableTypeError(f"no variable type {shown}; there are {', '.join(TYPES)}")


def infer_type(value: Any) -> str:
    """The type that a variable gets when it is registered without one.

    Always one that gives the value back as it is: an instance of a subclass, and whatever
    has no type of its own, is ``any``.
    """
    if is_ndarray(type(value)):
        return "tensor" if arrays.is_plain(value.dtype) else "any"
    return _OF_PYTHON.get(type(value), "any")


def is_ndarray(cls: Any) -> bool:
    """Whether this is NumPy's class of arrays, which is not imported to find out."""
    numpy = sys.modules.get("numpy")  # without NumPy there is no array either
    return numpy is not None and cls is getattr(numpy, "ndarray", None)
