"""How do Enum members, dataclasses and named tuples become parts, and parts values again?

An Enum member is the name of its class and its own name, or, for a combination of flags,
its value. The others are the name of the class with those of its fields,
``module:Point(x, y)``, and the fields' values: a class that has got other fields since cannot
be mistaken for the one that was written.

No code of the class runs: neither ``__init__`` nor ``__post_init__`` nor ``__new__``. The
exception is a combination of flags, which its class makes from the number.
"""

from __future__ import annotations

import enum
from typing import Any

from . import registry, wire
from .shapes import Shape, has_own_pickling, shape_of, state_of

__all__ = ["build", "parts", "parts_by_shape"]

Parts = tuple[int, tuple[Any, ...], tuple[str, ...]]


def parts(value: Any) -> Parts | None:
    """Tag, parts and their steps for a value of a class that can be imported by its name.

    ``None`` if there is no such class, or it insists on being pickled in its own way.
    """
    cls: type = type(value)
    shape = shape_of(cls)
    if shape is None or registry.class_named(registry.name_of(cls)) is not cls:
        return None
    if shape.tag != wire.TAG_ENUM and has_own_pickling(cls):
        return None
    return parts_by_shape(value, shape)


def parts_by_shape(value: Any, shape: Shape) -> Parts | None:
    """Tag, parts and their steps; ``None`` if the value is more than its shape says."""
    name = registry.name_of(type(value))
    if isinstance(value, enum.Enum):
        key = value._name_
        if type(value).__members__.get(key) is not value:
            key = value._value_
        return shape.tag, (name, key), ("", "")
    state = state_of(value, shape)
    if state is None:
        return None
    signature = f"{name}({', '.join(shape.fields)})"
    return shape.tag, (signature, *state), ("", *(f".{field}" for field in shape.fields))


def build(tag: int, items: tuple[Any, ...], may_import: bool, start: int) -> Any:
    """The value that has these parts; `CodecError` if there is none, or the class is strange."""
    signature = items[0] if items else None
    if type(signature) is not str:
        raise wire.damaged(start)
    name, _, fields = signature.partition("(")
    cls = _class(name, may_import, start)
    shape = shape_of(cls)
    if shape is None or shape.tag != tag:
        raise wire.corrupt(f"{name} has become another kind of class", start)
    if tag == wire.TAG_ENUM:
        return _member(cls, items, start)
    if fields != f"{', '.join(shape.fields)})" or len(items) != len(shape.fields) + 1:
        raise wire.corrupt(f"{name} has other fields", start)
    if tag == wire.TAG_NAMED_TUPLE:
        return tuple.__new__(cls, items[1:])
    value: Any = object.__new__(cls)
    try:
        for field, item in zip(shape.fields, items[1:], strict=True):
            object.__setattr__(value, field, item)
    except AttributeError as error:  # a field that the class covers with something else
        raise wire.corrupt(f"a field of {name} cannot be set: {error}", start) from error
    return value


def _class(name: str, may_import: bool, start: int) -> type:
    entry = registry.entry_named(name)
    if entry is not None and (entry.encode is None or may_import):
        return entry.cls
    cls = registry.class_named(name, may_import=True) if may_import else None
    if cls is None:
        raise wire.unregistered(name, start)
    return cls


def _member(cls: type, items: tuple[Any, ...], start: int) -> Any:
    if len(items) != 2 or not issubclass(cls, enum.Enum):
        raise wire.damaged(start)
    key = items[1]
    if type(key) is str and key in cls.__members__:
        return cls.__members__[key]
    if type(key) is int and issubclass(cls, enum.Flag):
        try:
            return cls(key)
        except ValueError:  # bits that no flag has
            pass
    raise wire.corrupt(f"{registry.name_of(cls)} has no such member", start)
