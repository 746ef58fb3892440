"""How do NumPy arrays and scalars become bytes, and bytes arrays again?

An array is its tag, five fields (one byte each for the order, 0 for C, 1 for Fortran, the
number of axes, and the padding; two for the length of the dtype's name), the dtype's name
(see `dtypes`), eight bytes for each axis, padding, and the raw elements. The padding puts the
elements at a multiple of 64 bytes, counted from the start of the message, so that views of
them are aligned wherever the message is.

A scalar is its tag, the length of the dtype's name (two bytes), that name, a count and the raw
bytes. ``np.str_`` and ``np.bytes_``, whose length NumPy would guess, are named ``U`` (the
bytes are UTF-8, lone surrogates let through) and ``S``.

NumPy is imported only when there is an array.
"""

from __future__ import annotations

import math
import struct
import sys
from typing import TYPE_CHECKING, Any

from . import wire
from .dtypes import dtype_named, is_plain, name_of

if TYPE_CHECKING:
    import numpy as np

__all__ = ["array_head", "is_plain", "parts", "read_array", "read_scalar"]

_ALIGNMENT = 64
_HEAD = struct.Struct("<BBBBH")
_SCALAR_HEAD = struct.Struct("<BH")


def parts(value: Any, offset: int) -> tuple[bytes, bytes | memoryview] | None:
    """Head and payload of an array or scalar that starts at ``offset`` of the message.

    ``None`` if it is neither, belongs to a subclass, or has no plain dtype.
    """
    import numpy as np

    if type(value) is np.ndarray:
        return _array_parts(value, offset)
    if isinstance(value, np.generic) and type(value) is value.dtype.type:
        return _scalar_parts(value)
    return None


def array_head(
    dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, *, fortran: bool = False
) -> bytes | None:
    """What comes before the elements of an array that starts at ``offset`` of the message.

    ``None`` if the dtype is no plain one.
    """
    name = name_of(dtype)
    if name is None:
        return None
    lengths = struct.pack(f"<{len(shape)}Q", *shape)
    start = offset + _HEAD.size + len(name) + len(lengths)
    padding = -start % _ALIGNMENT if math.prod(shape) else 0
    head = _HEAD.pack(wire.TAG_ARRAY, fortran, len(shape), padding, len(name))
    return head + name + lengths + bytes(padding)


def _array_parts(value: np.ndarray[Any, Any], offset: int) -> tuple[bytes, memoryview] | None:
    import numpy as np

    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    head = array_head(value.dtype, value.shape, offset, fortran=fortran)
    if head is None:
        return None
    flat = value.ravel("F" if fortran else "C")  # a view, unless the array is in neither order
    return head, flat.view(np.uint8).data


def _scalar_parts(value: np.generic) -> tuple[bytes, bytes] | None:
    import numpy as np

    name: bytes | None
    if isinstance(value, np.str_):
        name, payload = b"U", value.encode("utf-8", "surrogatepass")
    elif isinstance(value, np.bytes_):
        name, payload = b"S", bytes(value)
    else:
        name, payload = name_of(value.dtype), value.tobytes()
    if name is None:
        return None
    return _SCALAR_HEAD.pack(wire.TAG_SCALAR, len(name)) + name + wire.count(len(payload)), payload


def _fault(array: np.ndarray[Any, Any]) -> str | None:
    """What is wrong with elements that NumPy would never write, and that would mislead it."""
    if array.dtype.names is not None:
        found = (_fault(array[name]) for name in array.dtype.names)
        return next((fault for fault in found if fault is not None), None)
    if not array.size:
        return None
    if array.dtype.kind == "b" and array.view("u1").max() > 1:
        return "a bool is neither 0 nor 1"
    if array.dtype.kind == "U":
        characters = (array.dtype.str[0] + "u4", (array.dtype.itemsize // 4,))
        if array.getfield(characters).max() > sys.maxunicode:
            return "a character is beyond Unicode"
    return None


def _view(
    data: bytes | memoryview,
    first: int,
    start: int,
    name: bytes,
    shape: tuple[int, ...],
    fortran: bool,
) -> tuple[np.ndarray[Any, Any], int]:
    import numpy as np

    dtype = dtype_named(name)
    if dtype is None:
        raise wire.corrupt("the dtype is not a plain one", start)
    end = first + math.prod(shape) * dtype.itemsize
    if end > len(data):
        raise wire.truncated(start)
    array: np.ndarray[Any, Any]
    # Of a memoryview an array would keep what is behind it, without keeping that from changing.
    memory = data if type(data) is bytes else np.frombuffer(data, np.uint8)
    try:
        array = np.ndarray(shape, dtype, memory, first, order="F" if fortran else "C")
    except ValueError as error:
        raise wire.corrupt(f"no array has this shape: {error}", start) from error
    if dtype.kind in "bUV":
        fault = _fault(array)
        if fault is not None:
            raise wire.corrupt(fault, start)
    if not array.flags.aligned:  # the message itself is at an odd address, or has no padding
        array = array.copy(order="K")
        array.flags.writeable = False
    return array, end


def read_array(data: bytes | memoryview, start: int) -> tuple[np.ndarray[Any, Any], int]:
    """The array whose tag is at ``start``, a read-only view of ``data``, and where it ends."""
    if start + _HEAD.size > len(data):
        raise wire.truncated(start)
    _, order, ndim, padding, name_size = _HEAD.unpack_from(data, start)
    if order > 1 or padding >= _ALIGNMENT:
        raise wire.corrupt("the head of an array is damaged", start)
    name_at = start + _HEAD.size
    shape_at = name_at + name_size
    first = shape_at + 8 * ndim + padding
    if first > len(data):
        raise wire.truncated(start)
    shape = struct.unpack_from(f"<{ndim}Q", data, shape_at)
    return _view(data, first, start, bytes(data[name_at:shape_at]), shape, order == 1)


def read_scalar(data: bytes | memoryview, start: int) -> tuple[Any, int]:
    """The NumPy scalar whose tag is at ``start``, and where it ends."""
    import numpy as np

    name_at = start + _SCALAR_HEAD.size
    if name_at > len(data):
        raise wire.truncated(start)
    size_at = name_at + _SCALAR_HEAD.unpack_from(data, start)[1]
    size, first = wire.read_count(data, size_at, start)
    end = first + size
    name = bytes(data[name_at:size_at])
    if name == b"S":
        return np.bytes_(bytes(data[first:end])), end
    if name == b"U":
        try:
            return np.str_(str(data[first:end], "utf-8", "surrogatepass")), end
        except UnicodeDecodeError:
            raise wire.corrupt("a str is not UTF-8", start) from None
    dtype = dtype_named(name)
    if dtype is None or dtype.kind in "SU" or dtype.itemsize != size:
        raise wire.corrupt("the scalar's dtype does not fit", start)
    array, end = _view(data, first, start, name, (), False)
    if dtype.kind == "V":  # this kind of scalar is a view, and may be changed
        array = np.ndarray((), dtype, bytearray(data[first:end]))
    return array[()], end
