"""How does a value become bytes, and come back exactly as it was?

This is the specification, written for reading; `wire` describes the bytes. The compiled twin,
chosen at the end of the module where it is built, writes the same bytes and raises the same
errors. Built-in types are written here, everything else in `foreign`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from .. import _accel
from . import foreign, wire

__all__ = ["decode", "encode", "py_decode", "py_encode"]

_I64 = struct.Struct("<q")
_F64 = struct.Struct("<d")
_LARGEST_SHORT_INT = 0xFF - wire.SHORT_INT + wire.SMALLEST_SHORT_INT
_LONGEST_SHORT_STR = wire.SHORT_LIST - wire.SHORT_STR - 1
_LONGEST_SHORT = 15  # tuples, lists, dicts


class _Writer:
    """Appends tagged values to ``out``; raises `wire.Refusal`."""

    __slots__ = ("allow_pickle", "out")

    def __init__(self, allow_pickle: bool) -> None:
        self.out = bytearray((wire.VERSION,))
        self.allow_pickle = allow_pickle

    def write(self, value: Any, depth: int) -> None:
        _WRITERS.get(type(value), _Writer.write_foreign)(self, value, depth)

    def write_none(self, value: None, depth: int) -> None:
        self.out.append(wire.TAG_NONE)

    def write_bool(self, value: bool, depth: int) -> None:
        self.out.append(wire.TAG_TRUE if value else wire.TAG_FALSE)

    def write_int(self, value: int, depth: int) -> None:
        if wire.SMALLEST_SHORT_INT <= value <= _LARGEST_SHORT_INT:
            self.out.append(wire.SHORT_INT + value - wire.SMALLEST_SHORT_INT)
        elif -(1 << 63) <= value < 1 << 63:
            self.out.append(wire.TAG_INT)
            self.out += _I64.pack(value)
        else:
            size = value.bit_length() // 8 + 1  # one bit more than the magnitude, for the sign
            self.write_sized(wire.TAG_BIG_INT, value.to_bytes(size, "little", signed=True))

    def write_float(self, value: float, depth: int) -> None:
        self.out.append(wire.TAG_FLOAT)
        self.out += _F64.pack(value)

    def write_str(self, value: str, depth: int) -> None:
        if not value.isascii():
            self.write_sized(wire.TAG_UTF8, value.encode("utf-8", "surrogatepass"))
        elif len(value) <= _LONGEST_SHORT_STR:
            self.out.append(wire.SHORT_STR + len(value))
            self.out += value.encode("ascii")
        else:
            self.write_sized(wire.TAG_ASCII, value.encode("ascii"))

    def write_bytes(self, value: bytes, depth: int) -> None:
        self.write_sized(wire.TAG_BYTES, value)

    def write_sized(self, tag: int, payload: bytes) -> None:
        self.out.append(tag)
        self.out += wire.count(len(payload))
        self.out += payload

    def write_list(self, value: list[Any], depth: int) -> None:
        self.write_items(value, depth, wire.SHORT_LIST, wire.TAG_LIST)

    def write_tuple(self, value: tuple[Any, ...], depth: int) -> None:
        self.write_items(value, depth, wire.SHORT_TUPLE, wire.TAG_TUPLE)

    def write_items(
        self, value: list[Any] | tuple[Any, ...], depth: int, short: int, tag: int
    ) -> None:
        items = tuple(value)  # pickling an item may run code that changes the list
        self.write_size(len(items), depth, short, tag)
        index = 0
        try:
            for item in items:
                self.write(item, depth + 1)
                index += 1
        except wire.Refusal as refusal:
            refusal.steps.append(f"[{index}]")
            raise
        if len(value) != len(items):
            raise wire.changed()

    def write_dict(self, value: dict[Any, Any], depth: int) -> None:
        pairs = tuple(value.items())
        self.write_size(len(pairs), depth, wire.SHORT_DICT, wire.TAG_DICT)
        index, key_written = 0, False
        try:
            for key, item in pairs:
                key_written = False
                self.write(key, depth + 1)
                key_written = True
                self.write(item, depth + 1)
                index += 1
        except wire.Refusal as refusal:
            refusal.steps.append(wire.item_step(key) if key_written else wire.key_step(index))
            raise
        if len(value) != len(pairs):
            raise wire.changed()

    def write_size(self, size: int, depth: int, short: int, tag: int) -> None:
        if depth == wire.MAX_DEPTH:
            raise wire.too_deep()
        if size <= _LONGEST_SHORT:
            self.out.append(short + size)
        else:
            self.out.append(tag)
            self.out += wire.count(size)

    def write_foreign(self, value: Any, depth: int) -> None:
        head, payload = foreign.parts(value, self.allow_pickle, len(self.out))
        self.out += head
        self.out += payload


_WRITERS: dict[type, Callable[[_Writer, Any, int], None]] = {
    type(None): _Writer.write_none,
    bool: _Writer.write_bool,
    int: _Writer.write_int,
    float: _Writer.write_float,
    str: _Writer.write_str,
    bytes: _Writer.write_bytes,
    list: _Writer.write_list,
    tuple: _Writer.write_tuple,
    dict: _Writer.write_dict,
}


class _Reader:
    """Reads tagged values from ``data``, from ``position`` on; raises `CodecError`."""

    __slots__ = ("allow_pickle", "data", "position")

    def __init__(self, data: bytes, allow_pickle: bool) -> None:
        self.data = data
        self.position = 1
        self.allow_pickle = allow_pickle

    def read(self, depth: int) -> Any:
        start = self.position
        if start >= len(self.data):
            raise wire.truncated(start)
        tag = self.data[start]
        self.position = start + 1
        if tag >= wire.SHORT_INT:
            return tag - wire.SHORT_INT + wire.SMALLEST_SHORT_INT
        if tag >= wire.SHORT_TUPLE:
            return self.read_short(tag, start, depth)
        reader = _READERS.get(tag)
        if reader is None:
            raise wire.corrupt(f"tag {tag:#04x} is unknown", start)
        return reader(self, start, depth)

    def read_short(self, tag: int, start: int, depth: int) -> Any:
        if wire.SHORT_STR <= tag < wire.SHORT_LIST:
            return self.text(tag - wire.SHORT_STR, start)
        size = tag & 0x0F
        if tag >= wire.SHORT_DICT:
            return self.pairs(size, start, depth)
        items = self.items(size, start, depth)
        return items if tag >= wire.SHORT_LIST else tuple(items)

    def take(self, size: int, start: int) -> bytes:
        """The next ``size`` bytes."""
        end = self.position + size
        if end > len(self.data):
            raise wire.truncated(start)
        payload = self.data[self.position : end]
        self.position = end
        return payload

    def count(self, start: int, size: int = 1) -> int:
        number, self.position = wire.read_count(self.data, self.position, start, size)
        return number

    def read_none(self, start: int, depth: int) -> None:
        return None

    def read_false(self, start: int, depth: int) -> bool:
        return False

    def read_true(self, start: int, depth: int) -> bool:
        return True

    def read_int(self, start: int, depth: int) -> int:
        number: int = _I64.unpack(self.take(8, start))[0]
        return number

    def read_big_int(self, start: int, depth: int) -> int:
        return int.from_bytes(self.take(self.count(start), start), "little", signed=True)

    def read_float(self, start: int, depth: int) -> float:
        number: float = _F64.unpack(self.take(8, start))[0]
        return number

    def read_ascii(self, start: int, depth: int) -> str:
        return self.text(self.count(start), start)

    def text(self, size: int, start: int) -> str:
        try:
            return self.take(size, start).decode("ascii")
        except UnicodeDecodeError:
            raise wire.corrupt("a str is not ASCII", start) from None

    def read_utf8(self, start: int, depth: int) -> str:
        try:
            return self.take(self.count(start), start).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise wire.corrupt("a str is not UTF-8", start) from None

    def read_bytes(self, start: int, depth: int) -> bytes:
        return self.take(self.count(start), start)

    def read_list(self, start: int, depth: int) -> list[Any]:
        return self.items(self.count(start), start, depth)

    def read_tuple(self, start: int, depth: int) -> tuple[Any, ...]:
        return tuple(self.items(self.count(start), start, depth))

    def items(self, size: int, start: int, depth: int) -> list[Any]:
        self.check_depth(start, depth)
        return [self.read(depth + 1) for _ in range(size)]

    def read_dict(self, start: int, depth: int) -> dict[Any, Any]:
        return self.pairs(self.count(start, 2), start, depth)

    def pairs(self, size: int, start: int, depth: int) -> dict[Any, Any]:
        self.check_depth(start, depth)
        result: dict[Any, Any] = {}
        for _ in range(size):
            key_at = self.position
            key = self.read(depth + 1)
            value = self.read(depth + 1)
            try:
                result[key] = value
            except Exception as error:  # an unpickled key may raise anything
                raise wire.unhashable(key, key_at) from error
        if len(result) != size:
            raise wire.corrupt("a dict has a key twice", start)
        return result

    def check_depth(self, start: int, depth: int) -> None:
        if depth == wire.MAX_DEPTH:
            raise wire.corrupt(f"it is nested more than {wire.MAX_DEPTH} levels deep", start)

    def read_foreign(self, start: int, depth: int) -> Any:
        value, self.position = foreign.read(self.data, start, self.allow_pickle)
        return value


_READERS: dict[int, Callable[[_Reader, int, int], Any]] = {
    wire.TAG_NONE: _Reader.read_none,
    wire.TAG_FALSE: _Reader.read_false,
    wire.TAG_TRUE: _Reader.read_true,
    wire.TAG_INT: _Reader.read_int,
    wire.TAG_BIG_INT: _Reader.read_big_int,
    wire.TAG_FLOAT: _Reader.read_float,
    wire.TAG_ASCII: _Reader.read_ascii,
    wire.TAG_UTF8: _Reader.read_utf8,
    wire.TAG_BYTES: _Reader.read_bytes,
    wire.TAG_LIST: _Reader.read_list,
    wire.TAG_TUPLE: _Reader.read_tuple,
    wire.TAG_DICT: _Reader.read_dict,
    **dict.fromkeys(foreign.TAGS, _Reader.read_foreign),
}


def py_encode(value: Any, *, allow_pickle: bool = False, root: str = "value") -> bytes:
    """Encode ``value`` losslessly, in value and in type.

    ``None``, ``bool``, ``int`` of any size, ``float``, ``str`` of any code points, ``bytes``,
    ``list``, ``tuple``, ``dict`` and NumPy arrays and scalars of plain dtypes have encodings
    of their own. Anything else, subclasses of these included, is pickled (by cloudpickle where
    pickle cannot) if ``allow_pickle`` is true. Objects met twice are written twice.

    Raises `CodecError`, which names the type and, with ``root`` for the value itself, the path:
    ``args['rows'][3]``. Containers may be nested 64 levels deep.
    """
    writer = _Writer(allow_pickle)
    try:
        writer.write(value, 0)
    except wire.Refusal as refusal:
        raise refusal.as_error(root) from refusal.cause
    return bytes(writer.out)


def py_decode(data: bytes | bytearray | memoryview, *, allow_pickle: bool = False) -> Any:
    """Decode what `encode` wrote.

    Arrays are read-only views of ``data`` if that is ``bytes``, else of a private copy, so
    that a buffer may change or be released afterwards. Pickles are refused unless
    ``allow_pickle`` is true: loading one runs code of its author.

    Raises `CodecError` for anything that is not one whole encoded value.
    """
    data = _snapshot(data)
    if not data:
        raise wire.truncated(0)
    if data[0] != wire.VERSION:
        raise wire.corrupt(f"version {data[0]} is unknown", 0)
    reader = _Reader(data, allow_pickle)
    value = reader.read(0)
    if reader.position != len(data):
        raise wire.corrupt("the value has ended, but not the bytes", reader.position)
    return value


def _snapshot(data: Any) -> bytes:
    if type(data) is bytes:
        return data
    try:
        return bytes(memoryview(data))
    except TypeError:
        raise wire.not_bytes(data) from None


if _accel.speedups is None:
    encode, decode = py_encode, py_decode
else:
    encode, decode = _accel.speedups.encode, _accel.speedups.decode
