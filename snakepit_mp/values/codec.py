"""How does a value become bytes, and come back exactly as it was?

`writer` and `reader` are the specification, written for reading; `wire` describes the bytes.
The compiled twin, chosen at the end of the module where it is built, writes the same bytes and raises the same
errors.
"""

from __future__ import annotations

from typing import Any

from .. import _accel
from . import wire
from .reader import Reader, readable
from .writer import Writer

__all__ = [
    "decode",
    "encode",
    "encode_into",
    "encode_size",
    "py_decode",
    "py_encode",
    "py_encode_into",
    "py_encode_size",
]

Buffer = bytes | bytearray | memoryview


def py_encode(value: Any, *, allow_pickle: bool = False, root: str = "value") -> bytes:
    """Encode ``value`` losslessly, in value and in type.

    What has an encoding: ``None``, ``bool``, ``int`` of any size, ``float``, ``complex``,
    ``str`` of any code points, ``bytes``, ``bytearray``, ``list``, ``tuple``, ``dict``,
    ``set``, ``frozenset``, ``range``, ``slice``; dates, times, timedeltas and their zones
    (fixed ones, or of `zoneinfo`), ``Decimal``, ``Fraction``, ``UUID``, paths; NumPy arrays and
    scalars of plain and structured dtypes; and registered types, see
    `snakepit_mp.register_type`. With ``allow_pickle`` also Enum members, dataclasses and named
    tuples whose class can be imported, and by pickle (by cloudpickle where that cannot) anything
    else. Instances of subclasses count as something else. Objects met twice are written twice.

    Raises `CodecError`, which names the type and, with ``root`` for the value itself, the path:
    ``args['rows'][3].model``. Containers may be nested 64 levels deep.
    """
    writer = Writer(allow_pickle)
    try:
        writer.write(value, 0)
    except wire.Refusal as refusal:
        raise refusal.as_error(root) from refusal.cause
    return bytes(writer.out)


def py_encode_size(value: Any, *, allow_pickle: bool = False, root: str = "value") -> int:
    """How many bytes `encode` would make of ``value``; the same errors."""
    return len(py_encode(value, allow_pickle=allow_pickle, root=root))


def py_encode_into(
    value: Any,
    buffer: bytearray | memoryview,
    offset: int = 0,
    *,
    allow_pickle: bool = False,
    root: str = "value",
) -> int:
    """Encode ``value`` into ``buffer`` from byte ``offset`` on; returns how many bytes it took.

    Arrays are aligned as seen from ``offset``. Raises, besides what `encode` raises,
    ``BufferError``, which says how many bytes are needed, if they do not fit, and ``TypeError``
    if the buffer is not writable or not contiguous. After an error what is in the buffer from
    ``offset`` on is undefined.
    """
    try:
        target = memoryview(buffer).cast("B")
    except TypeError:
        raise wire.not_writable(buffer) from None
    if target.readonly:
        raise wire.not_writable(buffer)
    data = py_encode(value, allow_pickle=allow_pickle, root=root)
    if not 0 <= offset <= len(target) - len(data):
        raise wire.no_room(len(data), offset, len(target))
    target[offset : offset + len(data)] = data
    return len(data)


def py_decode(
    data: Buffer,
    *,
    allow_pickle: bool = False,
    copy: bool = True,
    offset: int = 0,
    size: int | None = None,
) -> Any:
    """Decode what `encode` wrote: ``size`` bytes of ``data`` from ``offset`` on, or all of them.

    Arrays are read-only views of ``data`` if that is ``bytes``, or a memoryview of ``bytes``,
    and keep it alive; anything else is copied first, since it might change. With ``copy=False``
    it is not: the caller then promises that it stays as it is while an array made of it lives.
    Pickles, and classes that are only importable, are refused unless ``allow_pickle`` is true:
    loading one runs code of its author.

    Raises `CodecError` for anything that is not one whole encoded value, and ``ValueError`` if
    ``data`` has no such part.
    """
    data = readable(data, copy, offset, size)
    if not data:
        raise wire.truncated(0)
    if data[0] != wire.VERSION:
        raise wire.corrupt(f"version {data[0]} is unknown", 0)
    reader = Reader(data, allow_pickle)
    value = reader.read(0)
    if reader.position != len(data):
        raise wire.corrupt("the value has ended, but not the bytes", reader.position)
    return value


_twin = _accel.speedups
encode = py_encode if _twin is None else _twin.encode
encode_into = py_encode_into if _twin is None else _twin.encode_into
encode_size = py_encode_size if _twin is None else _twin.encode_size
decode = py_decode if _twin is None else _twin.decode
