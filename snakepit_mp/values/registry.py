"""Which classes may be named in encoded values, and what makes their values of them?

A class is named ``module:qualname``; ``__mp_main__``, as worker processes call the user's
script, is the same as ``__main__``.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple, TypeVar

from .shapes import shape_of

__all__ = ["Entry", "class_named", "entry_named", "entry_of", "name_of", "register_type"]

T = TypeVar("T")


class Entry(NamedTuple):
    """A registered class; without functions its values are written as `shapes` says."""

    cls: type
    name: str
    encode: Callable[[Any], Any] | None
    decode: Callable[[Any], Any] | None


_MAIN = ("__main__", "__mp_main__")
#: Only replaced, never changed, so that readers need no lock.
_by_class: dict[type, Entry] = {}
_by_name: dict[str, Entry] = {}
_lock = threading.Lock()
_BUILT_IN = frozenset(
    (
        *(type(None), bool, int, float, complex, str, bytes, bytearray),
        *(list, tuple, dict, set, frozenset, range, slice),
    )
)
_KNOWN_MODULES = ("datetime", "decimal", "fractions", "numpy", "pathlib", "uuid", "zoneinfo")


def register_type(
    cls: type[T],
    encode: Callable[[T], Any] | None = None,
    decode: Callable[[Any], T] | None = None,
) -> type[T]:
    """Give the values of exactly this class, not of its subclasses, an encoding of their own.

    ``encode`` takes such a value and returns something that can be encoded; ``decode`` takes
    that and returns a value of the class. Without both, ``cls`` is an ``Enum``, a dataclass or
    a named tuple, which is written by its fields, and made from them without running
    ``__init__``. Returns ``cls``, so that it can decorate a class of this kind. Whoever reads
    such a value must have registered the class, too. Thread-safe; may be repeated with the
    same functions.

    Raises ``TypeError`` for a class that has an encoding already, or needs functions, and
    ``ValueError`` if the class, or another of its name, is registered in another way.
    """
    global _by_class, _by_name
    if not isinstance(cls, type):
        raise TypeError(f"register_type() takes a class, not {cls!r}")
    entry = Entry(cls, name_of(cls), encode, decode)
    if cls in _BUILT_IN or cls.__module__.partition(".")[0] in _KNOWN_MODULES:
        raise TypeError(f"{entry.name} has an encoding already, or is none of yours")
    if (encode is None) is not (decode is None):
        raise TypeError("register_type() takes both functions, or none of them")
    if encode is None and shape_of(entry.cls) is None:
        raise TypeError(
            f"{entry.name} is no Enum, dataclass or named tuple: say how to encode and decode it"
        )
    with _lock:
        known = _by_name.get(entry.name, entry)
        if known != entry:
            raise ValueError(f"{entry.name} is registered already, in another way")
        _by_class = {**_by_class, cls: entry}
        _by_name = {**_by_name, entry.name: entry}
    return cls


def entry_of(cls: type) -> Entry | None:
    """How exactly this class is registered."""
    return _by_class.get(cls)


def entry_named(name: str) -> Entry | None:
    """How the class of that name is registered."""
    return _by_name.get(name)


def name_of(cls: type) -> str:
    """The name by which a class is known wherever it is imported."""
    module = _MAIN[0] if cls.__module__ in _MAIN else cls.__module__
    return f"{module}:{cls.__qualname__}"


def class_named(name: str, *, may_import: bool = False) -> type | None:
    """The class that a module has under that name, ``None`` if there is none."""
    module_name, _, qualname = name.partition(":")
    for candidate in _MAIN if module_name in _MAIN else (module_name,):
        try:
            module = sys.modules.get(candidate)
            if module is None:
                if not may_import:
                    continue
                module = importlib.import_module(candidate)
            found = reduce(getattr, qualname.split("."), module)
        except (ImportError, AttributeError, ValueError):  # ValueError: the name is empty
            continue
        if isinstance(found, type):
            return found
    return None
