"""What happens to values of no built-in type: a tag of their own, pickle, or a refusal?

Both twins of the codec come here with everything that is not exactly a built-in type. An
instance of a subclass, ``OrderedDict`` say, is never written as its base: what was put in would
not come out. Registered types come first, then those of the standard library and NumPy. A class
that is only importable is named where pickle is allowed; that a reader then imports the class
is no more than unpickling would do. What remains is pickled, or refused.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from typing import Any, NamedTuple

from . import arrays, named, registry, standard, wire
from .shapes import shape_of

__all__ = ["BUILT_TAGS", "READ_TAGS", "Parts", "build", "parts", "pickled", "read"]

_BASES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)

#: The tags that `read` takes: bytes follow.
READ_TAGS = (wire.TAG_ARRAY, wire.TAG_SCALAR, wire.TAG_PICKLE)
_NAMED_TAGS = (wire.TAG_ENUM, wire.TAG_DATACLASS, wire.TAG_NAMED_TUPLE)
#: The tags that `build` takes: a tuple of parts follows.
BUILT_TAGS = (*standard.TAGS, *_NAMED_TAGS, wire.TAG_REGISTERED)


class Parts(NamedTuple):
    """What to write for a value: the head, and what follows it."""

    head: bytes
    payload: Any
    #: ``None`` if ``payload`` is bytes; if it is a tuple of parts, the path's step to each.
    steps: tuple[str, ...] | None = None
    #: Whether the value is to be pickled if one of its parts is refused: it may contain itself.
    or_pickled: bool = False


def parts(value: Any, allow_pickle: bool, offset: int) -> Parts:
    """What to write for a value whose tag will be at ``offset``; `wire.Refusal` if nothing."""
    entry = registry.entry_of(type(value))
    found = standard.parts(value) if entry is None else _registered(value, entry)
    if found is not None:
        tag, items, steps = found
        return Parts(bytes((tag,)), items, steps)
    if "numpy" in sys.modules:
        raw = arrays.parts(value, offset)
        if raw is not None:
            return Parts(*raw)
    if not allow_pickle:
        raise wire.Refusal(_why_not(value))
    found = named.parts(value)
    if found is not None:
        tag, items, steps = found
        return Parts(bytes((tag,)), items, steps, or_pickled=True)
    return pickled(value)


def _registered(value: Any, entry: registry.Entry) -> named.Parts:
    if entry.encode is None:
        shape = shape_of(entry.cls)
        found = None if shape is None else named.parts_by_shape(value, shape)
        if found is None:
            raise wire.Refusal(f"this {entry.name} has more, or less, than its fields")
        return found
    try:
        stands_for = entry.encode(value)
    except Exception as error:  # the user's function may raise anything
        label = wire.type_label(type(error))
        reason = f"the function registered for {entry.name} failed: {label}: {error}"
        raise wire.Refusal(reason, error) from error
    return wire.TAG_REGISTERED, (entry.name, stands_for), ("", "")


def _why_not(value: object) -> str:
    cls = type(value)
    label = wire.type_label(cls)
    if label in ("numpy.ndarray", "numpy.void"):
        label = f"{label} of dtype {getattr(value, 'dtype', None)}"
    base = next((base for base in _BASES if issubclass(cls, base)), None)
    if base is None:
        return f"there is no encoding for type {label}, and pickle is not allowed here"
    return (
        f"type {label} is a subclass of {base.__name__} and would come back as one, and pickle "
        "is not allowed here"
    )


def pickled(value: object) -> Parts:
    """The value by pickle, or by cloudpickle where that cannot; `wire.Refusal` if neither can."""
    fault: Exception | None = None
    for module in ("pickle", "cloudpickle"):
        try:
            payload: bytes = importlib.import_module(module).dumps(value, protocol=5)
        except Exception as error:  # noqa: BLE001  the value's own methods may raise anything
            fault = error
        else:
            return Parts(bytes((wire.TAG_PICKLE,)) + wire.count(len(payload)), payload)
    label = wire.type_label(type(value))
    raise wire.Refusal(f"type {label} cannot be pickled: {fault}", fault)


def read(data: bytes | memoryview, start: int, allow_pickle: bool) -> tuple[Any, int]:
    """The value whose tag, one of `READ_TAGS`, is at ``start``, and where it ends."""
    tag = data[start]
    if tag == wire.TAG_PICKLE:
        return _unpickled(data, start, allow_pickle)
    return (
        arrays.read_array(data, start) if tag == wire.TAG_ARRAY else arrays.read_scalar(data, start)
    )


def _unpickled(data: bytes | memoryview, start: int, allow_pickle: bool) -> tuple[Any, int]:
    if not allow_pickle:
        raise wire.corrupt("a pickle is not allowed here", start)
    size, first = wire.read_count(data, start + 1, start)
    end = first + size
    try:
        return pickle.loads(memoryview(data)[first:end]), end
    except (Exception, SystemExit) as error:  # a value must not end the process that reads it
        label = wire.type_label(type(error))
        raise wire.corrupt(f"the pickle cannot be loaded: {label}: {error}", start) from error


def build(tag: int, items: tuple[Any, ...], start: int, allow_pickle: bool) -> Any:
    """The value that has these parts; ``tag``, one of `BUILT_TAGS`, was at ``start``."""
    if tag == wire.TAG_REGISTERED:
        return _rebuilt(items, start)
    if tag in _NAMED_TAGS:
        return named.build(tag, items, allow_pickle, start)
    return standard.build(tag, items, start)


def _rebuilt(items: tuple[Any, ...], start: int) -> Any:
    if len(items) != 2 or type(items[0]) is not str:
        raise wire.damaged(start)
    entry = registry.entry_named(items[0])
    if entry is None or entry.decode is None:
        raise wire.unregistered(items[0], start)
    try:
        value = entry.decode(items[1])
    except Exception as error:  # the user's function may raise anything
        label = wire.type_label(type(error))
        reason = f"the function registered for {entry.name} failed: {label}: {error}"
        raise wire.corrupt(reason, start) from error
    if type(value) is not entry.cls:
        raise wire.corrupt(f"the function registered for {entry.name} made another type", start)
    return value
