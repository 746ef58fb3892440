"""How does a value become bytes? The specification of every encoder.

Built-in types are written here, everything else in `foreign`; `wire` describes the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from . import foreign, wire

__all__ = ["Writer"]

_INT = struct.Struct("<Bq")
_FLOAT = struct.Struct("<Bd")
_COMPLEX = struct.Struct("<Bdd")
# By names of their own, which are found faster.
_TAG_INT, _TAG_FLOAT, _LONGEST_SHORT = wire.TAG_INT, wire.TAG_FLOAT, wire.LONGEST_SHORT
_SMALLEST_SHORT_INT, _ZERO = wire.SMALLEST_SHORT_INT, wire.SHORT_INT - wire.SMALLEST_SHORT_INT
_LARGEST_SHORT_INT = 0xFF - wire.SHORT_INT + wire.SMALLEST_SHORT_INT
_LONGEST_SHORT_STR = wire.SHORT_LIST - wire.SHORT_STR - 1
_SHORT_STR_TAGS = [bytes((wire.SHORT_STR + size,)) for size in range(_LONGEST_SHORT_STR + 1)]
_MOST_BLOCKS, _LONGEST_BLOCK = 64, 4096
_INT_FORMATS = (("b", 1 << 7), ("h", 1 << 15), ("i", 1 << 31), ("q", 1 << 63))


class Writer:
    """Appends tagged values to ``out``; raises `wire.Refusal`."""

    __slots__ = ("allow_pickle", "out", "within_object")

    def __init__(self, allow_pickle: bool) -> None:
        self.out = bytearray((wire.VERSION,))
        self.allow_pickle = allow_pickle
        self.within_object = False

    def write(self, value: Any, depth: int) -> None:
        _WRITERS.get(type(value), _write_foreign)(self, value, depth)

    def write_none(self, value: None, depth: int) -> None:
        self.out.append(wire.TAG_NONE)

    def write_bool(self, value: bool, depth: int) -> None:
        self.out.append(wire.TAG_TRUE if value else wire.TAG_FALSE)

    def write_int(self, value: int, depth: int) -> None:
        if _SMALLEST_SHORT_INT <= value <= _LARGEST_SHORT_INT:
            self.out.append(_ZERO + value)
        elif -(1 << 63) <= value < 1 << 63:
            self.out += _INT.pack(_TAG_INT, value)
        else:
            size = value.bit_length() // 8 + 1  # one bit more than the magnitude, for the sign
            self.write_sized(wire.TAG_BIG_INT, value.to_bytes(size, "little", signed=True))

    def write_float(self, value: float, depth: int) -> None:
        self.out += _FLOAT.pack(_TAG_FLOAT, value)

    def write_str(self, value: str, depth: int) -> None:
        if len(value) <= _LONGEST_SHORT_STR and value.isascii():
            self.out += _SHORT_STR_TAGS[len(value)] + value.encode()
        else:
            self.out += _str_bytes(value)

    def write_bytes(self, value: bytes, depth: int) -> None:
        self.write_sized(wire.TAG_BYTES, value)

    def write_bytearray(self, value: bytearray, depth: int) -> None:
        self.write_sized(wire.TAG_BYTEARRAY, value)

    def write_complex(self, value: complex, depth: int) -> None:
        self.out += _COMPLEX.pack(wire.TAG_COMPLEX, value.real, value.imag)

    def write_sized(self, tag: int, payload: bytes | bytearray) -> None:
        self.out.append(tag)
        self.out += wire.count(len(payload))
        self.out += payload

    def write_list(self, value: list[Any], depth: int) -> None:
        if len(value) <= _LONGEST_SHORT or not self.write_packed(
            wire.TAG_PACKED_LIST, value, depth
        ):
            self.write_items(value, depth, wire.SHORT_LIST, wire.TAG_LIST)

    def write_tuple(self, value: tuple[Any, ...], depth: int) -> None:
        if len(value) <= _LONGEST_SHORT or not self.write_packed(
            wire.TAG_PACKED_TUPLE, value, depth
        ):
            self.write_items(value, depth, wire.SHORT_TUPLE, wire.TAG_TUPLE)

    def write_set(self, value: set[Any], depth: int) -> None:
        self.write_items(value, depth, None, wire.TAG_SET)

    def write_frozenset(self, value: frozenset[Any], depth: int) -> None:
        self.write_items(value, depth, None, wire.TAG_FROZENSET)

    def write_packed(self, tag: int, value: list[Any] | tuple[Any, ...], depth: int) -> bool:
        code = None if depth == wire.MAX_DEPTH else _format_of(value)
        if code is None:
            return False
        self.out += bytes((tag, ord(code)))
        self.out += wire.count(len(value))
        self.out += struct.pack(f"<{len(value)}{code}", *value)
        return True

    def write_items(
        self,
        value: list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any],
        depth: int,
        short: int | None,
        tag: int,
    ) -> None:
        items = tuple(value)  # pickling an item may run code that changes the list
        self.write_size(len(items), depth, short, tag)
        index, below = 0, depth + 1
        try:
            for index, item in enumerate(items):  # noqa: B007  the refusal names it
                _WRITERS.get(type(item), _write_foreign)(self, item, below)
        except wire.Refusal as refusal:
            refusal.steps.append(f"[{index}]")
            raise
        if len(value) != len(items):
            raise wire.changed()

    def write_dict(self, value: dict[Any, Any], depth: int) -> None:
        pairs = tuple(value.items())
        if len(pairs) >= wire.KEYED_FROM and set(map(type, value)) == {str}:
            self.write_keyed(tuple(value), pairs, depth)
        else:
            self.write_pairs(pairs, depth)
        if len(value) != len(pairs):
            raise wire.changed()

    def write_pairs(self, pairs: tuple[tuple[Any, Any], ...], depth: int) -> None:
        self.write_size(len(pairs), depth, wire.SHORT_DICT, wire.TAG_DICT)
        index, below, key_written, out = 0, depth + 1, False, self.out
        try:
            for index, (key, item) in enumerate(pairs):  # noqa: B007
                if type(key) is str and len(key) <= _LONGEST_SHORT_STR:
                    out += _short_key(key)
                else:
                    key_written = False
                    self.write(key, below)
                key_written = True
                _WRITERS.get(type(item), _write_foreign)(self, item, below)
        except wire.Refusal as refusal:
            refusal.steps.append(wire.item_step(key) if key_written else wire.key_step(index))
            raise

    def write_keyed(
        self, keys: tuple[str, ...], pairs: tuple[tuple[str, Any], ...], depth: int
    ) -> None:
        self.write_size(len(keys), depth, None, wire.TAG_KEYED_DICT)
        block = _blocks.get(keys)
        if block is None:
            block = b"".join(map(_str_bytes, keys))
            if len(block) <= _LONGEST_BLOCK:
                if len(_blocks) >= _MOST_BLOCKS:
                    _blocks.clear()
                _blocks[keys] = block
        self.out += wire.count(len(block))
        self.out += block
        below = depth + 1
        try:
            for key, item in pairs:  # noqa: B007
                _WRITERS.get(type(item), _write_foreign)(self, item, below)
        except wire.Refusal as refusal:
            refusal.steps.append(wire.item_step(key))
            raise

    def write_size(self, size: int, depth: int, short: int | None, tag: int) -> None:
        if depth == wire.MAX_DEPTH:
            raise wire.too_deep()
        if short is not None and size <= _LONGEST_SHORT:
            self.out.append(short + size)
        else:
            self.out.append(tag)
            self.out += wire.count(size)

    def write_foreign(self, value: Any, depth: int) -> None:
        offset = len(self.out)
        parts = foreign.parts(value, self.allow_pickle, offset)
        if parts.steps is None:
            self.out += parts.head
            self.out += parts.payload
        elif not parts.or_pickled or self.within_object:
            self.write_parts(parts, parts.steps, depth)
        else:
            self.within_object = True
            try:
                self.write_parts(parts, parts.steps, depth)
            except wire.Refusal:
                del self.out[offset:]
                head, payload, *_ = foreign.pickled(value)
                self.out += head
                self.out += payload
            finally:
                self.within_object = False

    def write_parts(self, parts: foreign.Parts, steps: tuple[str, ...], depth: int) -> None:
        self.out += parts.head
        self.write_size(len(parts.payload), depth, wire.SHORT_TUPLE, wire.TAG_TUPLE)
        index = 0
        try:
            for index, item in enumerate(parts.payload):  # noqa: B007
                self.write(item, depth + 1)
        except wire.Refusal as refusal:
            refusal.steps.append(steps[index])
            raise


def _str_bytes(value: str) -> bytes:
    if not value.isascii():
        payload = value.encode("utf-8", "surrogatepass")
        return bytes((wire.TAG_UTF8,)) + wire.count(len(payload)) + payload
    if len(value) <= _LONGEST_SHORT_STR:
        return _SHORT_STR_TAGS[len(value)] + value.encode("ascii")
    return bytes((wire.TAG_ASCII,)) + wire.count(len(value)) + value.encode("ascii")


#: What was written lately: short keys, and the keys of dicts that have them first.
_short_key = lru_cache(maxsize=1024)(_str_bytes)
_blocks: dict[tuple[str, ...], bytes] = {}


def _format_of(numbers: Iterable[Any]) -> str | None:
    """The narrowest format for numbers of one kind, ``None`` if they are not."""
    kinds = set(map(type, numbers))
    if kinds == {float}:
        return "d"
    if kinds != {int}:
        return None
    least, most = min(numbers), max(numbers)
    return next((code for code, end in _INT_FORMATS if -end <= least and most < end), None)


_write_foreign = Writer.write_foreign
_WRITERS: dict[type, Callable[[Writer, Any, int], None]] = {
    type(None): Writer.write_none,
    bool: Writer.write_bool,
    int: Writer.write_int,
    float: Writer.write_float,
    str: Writer.write_str,
    bytes: Writer.write_bytes,
    list: Writer.write_list,
    tuple: Writer.write_tuple,
    dict: Writer.write_dict,
    bytearray: Writer.write_bytearray,
    complex: Writer.write_complex,
    set: Writer.write_set,
    frozenset: Writer.write_frozenset,
}
