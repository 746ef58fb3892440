"""How does an array travel to somebody who may not have NumPy? As JSON, or as raw bytes.

Raw bytes are little-endian, in C order; their header tells shape and dtype. NumPy is
imported only when there is an array.
"""

from __future__ import annotations

import math
import re
import sys
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..errors import CodecError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "elements",
    "flatten",
    "from_elements",
    "from_raw",
    "is_array",
    "is_raw",
    "raw",
    "shape_in",
]

_DTYPE = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")
_MAX_AXES = 32
#: The dtypes for elements of a type, in the order in which they are tried.
_DTYPES_OF: dict[type, tuple[str, ...]] = {
    bool: ("bool",),
    int: ("int64", "uint64"),
    float: ("float64",),
}


def is_array(value: Any) -> bool:
    """Whether it is a NumPy array."""
    numpy = sys.modules.get("numpy")  # without NumPy there is no array either
    return numpy is not None and isinstance(value, numpy.ndarray)


def is_raw(array: np.ndarray[Any, Any]) -> bool:
    """Whether its elements can travel as raw bytes: booleans and numbers can."""
    return _DTYPE.fullmatch(array.dtype.name) is not None


def raw(array: np.ndarray[Any, Any]) -> tuple[dict[str, Any], bytes]:
    """Header and bytes of an array that `is_raw`."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {"shape": list(array.shape), "dtype": array.dtype.name}, little.tobytes()


def elements(array: np.ndarray[Any, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Header and elements, in C order, for JSON."""
    flat: list[Any] = array.reshape(-1).tolist()
    return {"shape": list(array.shape)}, flat


# Reading. Everything here may be hostile: nothing is allocated that the message does not hold.


def shape_in(header: dict[str, Any], what: str) -> tuple[int, ...]:
    """The shape that a JSON object tells. `CodecError` if that is none."""
    shape = header.get("shape")
    if type(shape) is not list or any(type(axis) is not int or axis < 0 for axis in shape):
        raise CodecError(f"{what}.shape must be an array of integers of at least 0", path=what)
    if len(shape) > _MAX_AXES:
        raise CodecError(f"{what} has {len(shape)} axes; at most {_MAX_AXES} travel", path=what)
    return tuple(shape)


def flatten(data: list[Any], shape: tuple[int, ...], what: str) -> list[Any]:
    """The elements of ``data``, which is flat or nested as ``shape`` says."""
    flat = data
    axis = 0
    while flat and type(flat[0]) is list:
        axis += 1
        if axis >= len(shape):
            raise CodecError(f"{what}.data is nested deeper than its shape", path=what)
        if any(type(row) is not list or len(row) != shape[axis] for row in flat):
            raise CodecError(f"{what}.data does not have shape {list(shape)}", path=what)
        flat = list(chain.from_iterable(flat))
    if len(flat) != math.prod(shape):
        raise CodecError(
            f"{what}.data has {len(flat)} elements, but shape {list(shape)}", path=what
        )
    return flat


def from_elements(flat: list[Any], shape: tuple[int, ...], what: str) -> np.ndarray[Any, Any]:
    """An array of these booleans, integers or floats; integers stay integers."""
    import numpy as np

    dtypes = _DTYPES_OF[type(flat[0]) if flat else float]
    for dtype in dtypes:
        try:
            return np.array(flat, dtype).reshape(shape)
        except OverflowError:
            continue
        except ValueError as error:  # a shape without elements that is too large all the same
            raise CodecError(f"{what} is no array: {error}", path=what) from error
    raise CodecError(f"{what} has an integer of more than 64 bits", path=what)


def from_raw(header: dict[str, Any], data: bytes, what: str) -> np.ndarray[Any, Any]:
    """The array in ``data``, a read-only view of it."""
    import numpy as np

    shape, name = shape_in(header, what), header.get("dtype")
    if type(name) is not str or _DTYPE.fullmatch(name) is None:
        raise CodecError(f"{what}: there is no dtype {name!r} for raw elements", path=what)
    dtype = np.dtype(name).newbyteorder("<")
    size = math.prod(shape) * dtype.itemsize
    if len(data) != size:
        raise CodecError(
            f"{what} has {len(data)} bytes, but {size} belong to shape {list(shape)} of {name}",
            path=what,
        )
    if dtype.kind == "b" and data and max(data) > 1:
        raise CodecError(f"{what}: a boolean is neither 0 nor 1", path=what)
    try:
        return np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:
        raise CodecError(f"{what} is no array: {error}", path=what) from error
