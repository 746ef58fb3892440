"""How does a large value reach its block without a copy on the way? It is encoded right there.

An array may even be made there: `allocate_array` gives one whose elements lie behind the head
that its encoding begins with, so that storing it moves nothing. Only the compiled twin has
such blocks; without them values are encoded into bytes first.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .. import _accel
from ..errors import CodecError
from ..values import wire
from ..values.arrays import array_head
from ..values.codec import encode, encode_into, encode_size
from . import faults
from .layout import SMALL_MOST
from .places import Allocation

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Allocate", "allocate_array", "encoded", "settle"]

#: A block of so many bytes, or ``None`` where there is none to be had.
Allocate = Callable[[int], "Allocation | None"]

_VERSION_BYTE = bytes((wire.VERSION,))
_allocation_type: type[Any] | None = getattr(_accel.speedups, "Allocation", None)


def encoded(value: Any, allocate: Allocate, root: str = "value") -> bytes | Allocation:
    """The encoded value: as bytes, or where it is long in a block of its own."""
    if _size_of(value) <= SMALL_MOST:
        return encode(value, root=root)
    allocation = _made_there(value)
    if allocation is not None:
        return allocation
    allocation = allocate(encode_size(value, root=root))
    if allocation is None:
        return encode(value, root=root)
    encode_into(value, memoryview(allocation), root=root)
    return allocation


def allocate_array(
    allocate: Allocate, shape: int | tuple[int, ...], dtype: Any, limit: int
) -> np.ndarray[Any, Any]:
    """An array to be filled and stored; in its block from the start if it is large.

    ``limit``: bytes that a store may hold. Raises `CodecError` for a dtype that cannot be
    stored, `StoreFull`, and ``TypeError`` or ``ValueError`` for what is no shape.
    """
    import numpy as np

    kind: np.dtype[Any] = np.dtype(dtype)
    shape = _checked_shape(shape)
    nbytes = math.prod(shape) * kind.itemsize
    if nbytes > limit:
        raise faults.store_full(nbytes, limit, 0)
    head = array_head(kind, shape, len(_VERSION_BYTE))
    if head is None:
        raise CodecError(f"an array of dtype {kind} cannot be stored")
    first = len(_VERSION_BYTE) + len(head)
    allocation = allocate(first + nbytes) if nbytes > SMALL_MOST else None
    if allocation is None:
        return np.zeros(shape, kind)
    memory = memoryview(allocation)
    memory[:first] = _VERSION_BYTE + head
    # Not the memoryview: the array's base has to be the allocation itself.
    made: np.ndarray[Any, Any] = np.ndarray(shape, kind, cast("memoryview", allocation), first)
    if kind.kind in "bUV":  # not every byte is such an element
        made.view(np.uint8).fill(0)
    return made


def _checked_shape(shape: object) -> tuple[int, ...]:
    lengths = shape if isinstance(shape, (tuple, list)) else (shape,)
    try:
        checked = tuple(map(operator.index, lengths))
    except TypeError:
        raise TypeError(f"shape must be an int or a tuple of ints, not {shape!r}") from None
    if min(checked, default=0) < 0:
        raise ValueError(f"shape must not be negative: {shape!r}")
    return checked


def settle(value: Any) -> None:
    """Make an array that has become a value read-only, if it lies where that value does."""
    base = cast("Allocation", getattr(value, "base", None))
    if _allocation_type is not None and type(base) is _allocation_type and base.stored:
        value.flags.writeable = False


def _size_of(value: Any) -> int:
    """About how many bytes a value takes, if it is one that may be long."""
    if isinstance(value, (bytes, bytearray, str)):
        return len(value)
    return getattr(value, "nbytes", 0) if type(value).__module__ == "numpy" else 0


def _made_there(value: Any) -> Allocation | None:
    """The block that an array of `allocate_array` lies in, unless it was stored already."""
    base = cast("Allocation", getattr(value, "base", None))
    if _allocation_type is None or type(base) is not _allocation_type or base.stored:
        return None
    memory = memoryview(base)
    head = array_head(value.dtype, value.shape, len(_VERSION_BYTE))
    if head is None or not value.flags.c_contiguous:
        return None
    begins_right = memory[: len(head) + 1] == _VERSION_BYTE + head
    ends_right = value.nbytes + len(head) + 1 == len(memory)
    return base if begins_right and ends_right else None
