"""What happens to values of no built-in type: NumPy's own tags, pickle, or a refusal?

Both twins of the codec come here with everything that is not exactly a built-in type. An
instance of a subclass, ``IntEnum`` or ``OrderedDict`` say, is never written as its base: what
was put in would not come out.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from typing import Any

from . import arrays, wire

__all__ = ["TAGS", "parts", "read"]

_BASES = (bool, int, float, str, bytes, list, tuple, dict)

#: The tags that `read` takes.
TAGS = (wire.TAG_ARRAY, wire.TAG_SCALAR, wire.TAG_PICKLE)


def parts(value: Any, allow_pickle: bool, offset: int) -> tuple[bytes, bytes | memoryview]:
    """Head and payload of a value whose tag will be at ``offset``; `wire.Refusal` if none."""
    if "numpy" in sys.modules:
        found = arrays.parts(value, offset)
        if found is not None:
            return found
    if not allow_pickle:
        raise wire.Refusal(_why_not(value))
    payload = _pickled(value)
    return bytes((wire.TAG_PICKLE,)) + wire.count(len(payload)), payload


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


def _pickled(value: object) -> bytes:
    fault: Exception | None = None
    for module in ("pickle", "cloudpickle"):
        try:
            payload: bytes = importlib.import_module(module).dumps(value, protocol=5)
        except Exception as error:  # noqa: BLE001  the value's own methods may raise anything
            fault = error
        else:
            return payload
    label = wire.type_label(type(value))
    raise wire.Refusal(f"type {label} cannot be pickled: {fault}", fault)


def read(data: bytes, start: int, allow_pickle: bool) -> tuple[Any, int]:
    """The value whose tag, one of `TAGS`, is at ``start``, and where it ends."""
    tag = data[start]
    if tag == wire.TAG_PICKLE:
        return _unpickled(data, start, allow_pickle)
    return (
        arrays.read_array(data, start) if tag == wire.TAG_ARRAY else arrays.read_scalar(data, start)
    )


def _unpickled(data: bytes, start: int, allow_pickle: bool) -> tuple[Any, int]:
    if not allow_pickle:
        raise wire.corrupt("a pickle is not allowed here", start)
    size, first = wire.read_count(data, start + 1, start)
    end = first + size
    try:
        return pickle.loads(memoryview(data)[first:end]), end
    except (Exception, SystemExit) as error:  # a value must not end the process that reads it
        label = wire.type_label(type(error))
        raise wire.corrupt(f"the pickle cannot be loaded: {label}: {error}", start) from error
