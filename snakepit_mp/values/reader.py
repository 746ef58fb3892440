"""How do bytes become the value that they were made of? The specification of every decoder.

Whatever the bytes are, the result is a value or a `CodecError`: every length is checked
against the bytes that are left before anything of that size is made.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from . import foreign, wire

__all__ = ["Reader", "readable"]

_I64 = struct.Struct("<q")
_F64 = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")
_FORMATS = {ord(code): (code, struct.calcsize(f"<{code}")) for code in "bhiqd"}
_STR_TAGS = (wire.TAG_ASCII, wire.TAG_UTF8)

#: What was read lately: short keys, and the keys of dicts that have them first.
_keys: dict[bytes, str] = {}
_blocks: dict[bytes, tuple[str, ...]] = {}
_MOST_KEYS, _MOST_BLOCKS, _LONGEST_BLOCK = 1024, 64, 4096


class Reader:
    """Reads tagged values from ``data``, from ``position`` on; raises `CodecError`."""

    __slots__ = ("allow_pickle", "data", "position")

    def __init__(self, data: bytes | memoryview, allow_pickle: bool) -> None:
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
        payload = bytes(self.data[self.position : end])
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

    def read_bytearray(self, start: int, depth: int) -> bytearray:
        return bytearray(self.take(self.count(start), start))

    def read_complex(self, start: int, depth: int) -> complex:
        return complex(*_COMPLEX.unpack(self.take(16, start)))

    def read_packed_list(self, start: int, depth: int) -> list[Any]:
        return list(self.read_packed_tuple(start, depth))

    def read_packed_tuple(self, start: int, depth: int) -> tuple[Any, ...]:
        self.check_depth(start, depth)
        code, width = _FORMATS.get(self.take(1, start)[0], ("", 0))
        if not code:
            raise wire.corrupt("numbers of an unknown format", start)
        size = self.count(start, width)
        return struct.unpack(f"<{size}{code}", self.take(size * width, start))

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
            key = self.read_key(depth + 1)
            value = self.read(depth + 1)
            try:
                result[key] = value
            except Exception as error:  # an unpickled key may raise anything
                raise wire.unhashable(key, key_at) from error
        if len(result) != size:
            raise wire.corrupt("a dict has a key twice", start)
        return result

    def read_key(self, depth: int) -> Any:
        start = self.position
        tag = self.data[start] if start < len(self.data) else wire.TAG_NONE
        if not wire.SHORT_STR <= tag < wire.SHORT_LIST:
            return self.read(depth)
        self.position = start + 1
        payload = self.take(tag - wire.SHORT_STR, start)
        key = _keys.get(payload)
        if key is None:
            self.position = start
            key = self.read(depth)
            if len(_keys) >= _MOST_KEYS:
                _keys.clear()
            _keys[payload] = key
        return key

    def read_keyed_dict(self, start: int, depth: int) -> dict[str, Any]:
        self.check_depth(start, depth)
        size = self.count(start)
        block_size = self.count(start)
        block_at = self.position
        block = self.take(block_size, start)
        if size > len(self.data) - self.position:
            raise wire.truncated(start)
        keys = _blocks.get(block)
        if keys is None or len(keys) != size:
            end, self.position = self.position, block_at
            keys = self.read_keys(size, end, start)
            if block_size <= _LONGEST_BLOCK:
                if len(_blocks) >= _MOST_BLOCKS:
                    _blocks.clear()
                _blocks[block] = keys
        return dict(zip(keys, [self.read(depth + 1) for _ in keys], strict=True))

    def read_keys(self, size: int, end: int, start: int) -> tuple[str, ...]:
        """``size`` different keys that fill the bytes until ``end``."""
        keys: list[str] = []
        while self.position < end and len(keys) < size:
            tag = self.data[self.position]
            if tag not in _STR_TAGS and not wire.SHORT_STR <= tag < wire.SHORT_LIST:
                raise wire.corrupt("a key is no str", start)
            keys.append(self.read_key(wire.MAX_DEPTH))
        if self.position != end or len(keys) != size:
            raise wire.corrupt("its keys are damaged", start)
        if len(set(keys)) != size:
            raise wire.corrupt("a dict has a key twice", start)
        return tuple(keys)

    def read_set(self, start: int, depth: int) -> set[Any]:
        size = self.count(start)
        self.check_depth(start, depth)
        result: set[Any] = set()
        for _ in range(size):
            item_at = self.position
            item = self.read(depth + 1)
            try:
                result.add(item)
            except Exception as error:  # an unpickled item may raise anything
                raise wire.unhashable(item, item_at) from error
        if len(result) != size:
            raise wire.corrupt("a set has an item twice", start)
        return result

    def read_frozenset(self, start: int, depth: int) -> frozenset[Any]:
        return frozenset(self.read_set(start, depth))

    def check_depth(self, start: int, depth: int) -> None:
        if depth == wire.MAX_DEPTH:
            raise wire.corrupt(f"it is nested more than {wire.MAX_DEPTH} levels deep", start)

    def read_foreign(self, start: int, depth: int) -> Any:
        value, self.position = foreign.read(self.data, start, self.allow_pickle)
        return value

    def read_parts(self, start: int, depth: int) -> Any:
        """A tuple of parts, in its ordinary form, and what they are parts of."""
        tag = self.data[start]
        next_tag = self.data[start + 1] if start + 1 < len(self.data) else wire.TAG_TUPLE
        if next_tag != wire.TAG_TUPLE and not wire.SHORT_TUPLE <= next_tag < wire.SHORT_STR:
            raise wire.damaged(start)
        return foreign.build(tag, self.read(depth), start, self.allow_pickle)


_READERS: dict[int, Callable[[Reader, int, int], Any]] = {
    wire.TAG_NONE: Reader.read_none,
    wire.TAG_FALSE: Reader.read_false,
    wire.TAG_TRUE: Reader.read_true,
    wire.TAG_INT: Reader.read_int,
    wire.TAG_BIG_INT: Reader.read_big_int,
    wire.TAG_FLOAT: Reader.read_float,
    wire.TAG_ASCII: Reader.read_ascii,
    wire.TAG_UTF8: Reader.read_utf8,
    wire.TAG_BYTES: Reader.read_bytes,
    wire.TAG_LIST: Reader.read_list,
    wire.TAG_TUPLE: Reader.read_tuple,
    wire.TAG_DICT: Reader.read_dict,
    wire.TAG_BYTEARRAY: Reader.read_bytearray,
    wire.TAG_COMPLEX: Reader.read_complex,
    wire.TAG_PACKED_LIST: Reader.read_packed_list,
    wire.TAG_PACKED_TUPLE: Reader.read_packed_tuple,
    wire.TAG_KEYED_DICT: Reader.read_keyed_dict,
    wire.TAG_SET: Reader.read_set,
    wire.TAG_FROZENSET: Reader.read_frozenset,
    **dict.fromkeys(foreign.READ_TAGS, Reader.read_foreign),
    **dict.fromkeys(foreign.BUILT_TAGS, Reader.read_parts),
}


def readable(data: Any, copy: bool, offset: int, size: int | None) -> bytes | memoryview:
    """That part of the buffer, itself where it may be kept, otherwise a copy."""
    if type(data) is bytes and offset == 0 and size is None:
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise wire.not_bytes(data) from None
    view = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(bytes(view))
    end = len(view) if size is None else offset + size
    if not 0 <= offset <= end <= len(view):
        raise wire.no_part(offset, size, len(view))
    view = view[offset:end]
    return view.toreadonly() if type(view.obj) is bytes or not copy else bytes(view)
