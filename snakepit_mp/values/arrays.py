"""How do NumPy arrays and scalars become bytes, and bytes arrays again?

An array is its tag, four one-byte fields (order: 0 for C, 1 for Fortran; number of axes;
length of the dtype's name; padding), the dtype's name as ``dtype.str`` gives it, eight bytes
for each axis, padding, and the raw elements. The padding puts the elements at a multiple of
64 bytes, counted from the start of the message, so that views of them are aligned.

A scalar is its tag, the length of the dtype's name (one byte), that name, a count and the raw
bytes. ``np.str_`` and ``np.bytes_``, whose length NumPy would guess, are named ``U`` (the
bytes are UTF-8, lone surrogates let through) and ``S``.

Plain dtypes are bool, ints, floats and complex numbers of a size that all machines share,
``datetime64``, ``timedelta64`` and fixed strings, in both byte orders. NumPy is imported only
when there is an array.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from . import wire

if TYPE_CHECKING:
    import numpy as np

__all__ = ["is_plain", "parts", "read_array", "read_scalar"]

_ALIGNMENT = 64
_HEAD = struct.Struct("<BBBBB")
_UNIT = r"(?:\[(?:[1-9][0-9]{0,8})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
_LENGTH = r"[1-9][0-9]{0,8}"
_PLAIN = re.compile(
    rf"\|(?:b1|[iu]1|S{_LENGTH})|[<>](?:[iu][248]|f[248]|c8|c16|U{_LENGTH}|[Mm]8{_UNIT})",
    re.ASCII,
)


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether the raw elements of this dtype say everything about it."""
    return dtype.metadata is None and _PLAIN.fullmatch(dtype.str) is not None


def parts(value: Any, offset: int) -> tuple[bytes, bytes | memoryview] | None:
    """Head and payload of an array or scalar that starts at ``offset`` of the message.

    ``None`` if it is neither, belongs to a subclass, or has no plain dtype.
    """
    import numpy as np

    if type(value) is np.ndarray:
        return _array_parts(value, offset) if is_plain(value.dtype) else None
    if isinstance(value, np.generic) and type(value) is value.dtype.type:
        return _scalar_parts(value)
    return None


def _array_parts(value: np.ndarray[Any, Any], offset: int) -> tuple[bytes, memoryview]:
    import numpy as np

    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    name = value.dtype.str.encode("ascii")
    shape = struct.pack(f"<{value.ndim}Q", *value.shape)
    start = offset + _HEAD.size + len(name) + len(shape)
    padding = -start % _ALIGNMENT if value.size else 0
    head = _HEAD.pack(wire.TAG_ARRAY, fortran, value.ndim, len(name), padding)
    flat = value.ravel("F" if fortran else "C")  # a view, unless the array is in neither order
    return head + name + shape + bytes(padding), flat.view(np.uint8).data


def _scalar_parts(value: np.generic) -> tuple[bytes, bytes] | None:
    import numpy as np

    if isinstance(value, np.str_):
        name, payload = b"U", value.encode("utf-8", "surrogatepass")
    elif isinstance(value, np.bytes_):
        name, payload = b"S", bytes(value)
    elif is_plain(value.dtype):
        name, payload = value.dtype.str.encode("ascii"), value.tobytes()
    else:
        return None
    head = bytes((wire.TAG_SCALAR, len(name))) + name + wire.count(len(payload))
    return head, payload


@lru_cache(maxsize=256)
def _dtype(name: bytes) -> np.dtype[Any] | None:
    """The plain dtype of that name, ``None`` if there is none."""
    import numpy as np

    text = name.decode("latin-1")
    if _PLAIN.fullmatch(text) is None:
        return None
    try:
        return np.dtype(text)
    except TypeError:  # a string longer than NumPy can have
        return None


def _fault(array: np.ndarray[Any, Any], raw: np.ndarray[Any, Any]) -> str | None:
    """What is wrong with elements that NumPy would never write, and that would mislead it."""
    if not raw.size:
        return None
    if array.dtype.kind == "b" and raw.max() > 1:
        return "a bool is neither 0 nor 1"
    if array.dtype.kind == "U" and raw.view(array.dtype.str[0] + "u4").max() > sys.maxunicode:
        return "a character is beyond Unicode"
    return None


def _view(
    data: bytes, first: int, start: int, name: bytes, shape: tuple[int, ...], fortran: bool
) -> tuple[np.ndarray[Any, Any], int]:
    import numpy as np

    dtype = _dtype(name)
    if dtype is None:
        raise wire.corrupt("the dtype is not a plain one", start)
    end = first + math.prod(shape) * dtype.itemsize
    if end > len(data):
        raise wire.truncated(start)
    array: np.ndarray[Any, Any]
    try:
        array = np.ndarray(shape, dtype, data, first, order="F" if fortran else "C")
    except ValueError as error:
        raise wire.corrupt(f"no array has this shape: {error}", start) from error
    if dtype.kind in "bU":
        fault = _fault(array, np.frombuffer(data, np.uint8, end - first, first))
        if fault is not None:
            raise wire.corrupt(fault, start)
    if not array.flags.aligned:  # the message itself is at an odd address, or has no padding
        array = array.copy(order="K")
        array.flags.writeable = False
    return array, end


def read_array(data: bytes, start: int) -> tuple[np.ndarray[Any, Any], int]:
    """The array whose tag is at ``start``, a read-only view of ``data``, and where it ends."""
    if start + _HEAD.size > len(data):
        raise wire.truncated(start)
    _, order, ndim, name_size, padding = _HEAD.unpack_from(data, start)
    if order > 1 or padding >= _ALIGNMENT:
        raise wire.corrupt("the head of an array is damaged", start)
    name_at = start + _HEAD.size
    shape_at = name_at + name_size
    first = shape_at + 8 * ndim + padding
    if first > len(data):
        raise wire.truncated(start)
    shape = struct.unpack_from(f"<{ndim}Q", data, shape_at)
    return _view(data, first, start, data[name_at:shape_at], shape, order == 1)


def read_scalar(data: bytes, start: int) -> tuple[Any, int]:
    """The NumPy scalar whose tag is at ``start``, and where it ends."""
    import numpy as np

    name_at = start + 2
    size_at = name_at + (data[start + 1] if name_at <= len(data) else 0)
    size, first = wire.read_count(data, size_at, start)
    end = first + size
    name = data[name_at:size_at]
    if name == b"S":
        return np.bytes_(data[first:end]), end
    if name == b"U":
        try:
            return np.str_(data[first:end].decode("utf-8", "surrogatepass")), end
        except UnicodeDecodeError:
            raise wire.corrupt("a str is not UTF-8", start) from None
    dtype = _dtype(name)
    if dtype is None or dtype.kind in "SU" or dtype.itemsize != size:
        raise wire.corrupt("the scalar's dtype does not fit", start)
    array, end = _view(data, first, start, name, (), False)
    return array[()], end
