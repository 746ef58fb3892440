"""Which classes say by themselves what their values consist of?

``Enum`` classes, whose values are members; dataclasses and named tuples, whose values are
fields. What they consist of can be written, and a value be made from it, without running code
of the class.
"""

from __future__ import annotations

import copyreg
import dataclasses
import enum
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from . import wire

__all__ = ["Shape", "has_own_pickling", "shape_of", "state_of"]


class Shape(NamedTuple):
    """What the values of a class consist of."""

    tag: int
    fields: tuple[str, ...] = ()
    #: Slots that are no fields; a value that has something there is more than its fields.
    hidden: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def shape_of(cls: type) -> Shape | None:
    """The shape of a class, ``None`` if it is neither of the three."""
    if issubclass(cls, enum.Enum):
        return Shape(wire.TAG_ENUM)
    if issubclass(cls, tuple):
        fields = getattr(cls, "_fields", None)
        if isinstance(fields, tuple) and all(isinstance(name, str) for name in fields):
            return Shape(wire.TAG_NAMED_TUPLE, fields)
        return None
    if not dataclasses.is_dataclass(cls) or not _is_plain_object(cls):
        return None
    fields = tuple(field.name for field in dataclasses.fields(cls))
    return Shape(wire.TAG_DATACLASS, fields, tuple(sorted(set(_slots(cls)) - set(fields))))


def _is_plain_object(cls: type) -> bool:
    """Whether ``object`` lays out the values of this class, not ``dict`` or ``Exception``."""
    try:
        object.__new__(cls)
    except TypeError:
        return False
    return True


def _slots(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name.startswith("__") and not name.endswith("__"):
                yield f"_{base.__name__.lstrip('_')}{name}"
            elif name not in ("__dict__", "__weakref__"):
                yield name


def state_of(value: object, shape: Shape) -> list[Any] | None:
    """The fields' values, ``None`` if the value is more, or less, than its fields."""
    attributes: dict[str, Any] = getattr(value, "__dict__", {})
    if isinstance(value, tuple):
        return list(value) if not attributes and len(value) == len(shape.fields) else None
    if not attributes.keys() <= set(shape.fields):
        return None
    if any(hasattr(value, name) for name in shape.hidden):
        return None
    try:
        return [object.__getattribute__(value, name) for name in shape.fields]
    except AttributeError:
        return None


@lru_cache(maxsize=256)
def has_own_pickling(cls: type) -> bool:
    """Whether the class says how its values are to be pickled, and means to be heard."""
    names = {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs_ex__"}
    if cls in copyreg.dispatch_table:
        return True
    for base in cls.__mro__[: -1 if cls.__mro__[-1] is object else None]:
        found = (base.__dict__[name] for name in names & base.__dict__.keys())
        # A frozen dataclass with slots gets methods from dataclasses that only set its fields.
        if any(getattr(method, "__module__", None) != "dataclasses" for method in found):
            return True
    return False
