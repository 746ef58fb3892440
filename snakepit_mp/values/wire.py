"""Which byte stands for which kind of value, and what do the codec's errors say?

An encoded value is one version byte, then one tagged value; containers hold tagged values.
All numbers are little-endian. A *count* is four bytes, or, from ``LONG_COUNT`` on, four
bytes ``LONG_COUNT`` and eight bytes with the number.

=========  ==============================================================================
tag        what follows
=========  ==============================================================================
00 01 02   nothing: ``None``, ``False``, ``True``
03         int of 64 bits: 8 bytes, two's complement
04         longer int: count, bytes in two's complement
05         float: 8 bytes, IEEE 754
06 07      str: count, ASCII; count, UTF-8 in which lone surrogates are let through
08         bytes: count, bytes
09 0a      list, tuple: count, items
0b         dict: count, key and value in turns
0c 0d      NumPy array, NumPy scalar: see `arrays`
0e         pickle: count, bytes; read and written only where that was allowed
0f         bytearray: count, bytes
10         complex: 16 bytes, real part and imaginary part as in a float
11 12      list, tuple of numbers of one kind: format byte ``b h i q d`` as in `struct`
           (the narrowest that takes all), count, elements
13         dict with keys first: count of pairs, count of bytes, that many bytes of keys, each
           a tagged str, then the values
14 15      set, frozenset: count, items
16 to 1f   date, time, datetime, timedelta, fixed time zone, named time zone, Decimal,
           Fraction, UUID, path: a tuple of parts, see `standard`
20 21      range, slice: a tuple of parts, see `standard`
22 23 24   Enum member, dataclass, named tuple: a tuple of parts, see `named`
25         value of a registered type: a tuple of its name and what stands for it
30 to 3f   tuple of 0 to 15 items
40 to 5f   str of 0 to 31 ASCII characters
60 to 6f   list of 0 to 15 items
70 to 7f   dict of 0 to 15 pairs
80 to ff   int from -32 to 95
=========  ==============================================================================

A value has one encoding only where it matters to the twins, which write the same bytes:
lists and tuples of more than 15 items that are all exactly int (of 64 bits) or all exactly
float are packed; a dict of at least ``KEYED_FROM`` pairs whose keys are all exactly str has its
keys first. Tuples of parts are never packed.

The compiled twin repeats these numbers; the golden files of the tests hold both to them.
"""

from __future__ import annotations

import struct

from ..errors import CodecError

__all__ = [
    "KEYED_FROM",
    "LONGEST_SHORT",
    "LONG_COUNT",
    "MAX_DEPTH",
    "SHORT_DICT",
    "SHORT_INT",
    "SHORT_LIST",
    "SHORT_STR",
    "SHORT_TUPLE",
    "SMALLEST_SHORT_INT",
    "TAG_ARRAY",
    "TAG_ASCII",
    "TAG_BIG_INT",
    "TAG_BYTEARRAY",
    "TAG_BYTES",
    "TAG_COMPLEX",
    "TAG_DATACLASS",
    "TAG_DATE",
    "TAG_DATETIME",
    "TAG_DECIMAL",
    "TAG_DICT",
    "TAG_ENUM",
    "TAG_FALSE",
    "TAG_FIXED_ZONE",
    "TAG_FLOAT",
    "TAG_FRACTION",
    "TAG_FROZENSET",
    "TAG_INT",
    "TAG_KEYED_DICT",
    "TAG_LIST",
    "TAG_NAMED_TUPLE",
    "TAG_NAMED_ZONE",
    "TAG_NONE",
    "TAG_PACKED_LIST",
    "TAG_PACKED_TUPLE",
    "TAG_PATH",
    "TAG_PICKLE",
    "TAG_RANGE",
    "TAG_REGISTERED",
    "TAG_SCALAR",
    "TAG_SET",
    "TAG_SLICE",
    "TAG_TIME",
    "TAG_TIMEDELTA",
    "TAG_TRUE",
    "TAG_TUPLE",
    "TAG_UTF8",
    "TAG_UUID",
    "VERSION",
    "Refusal",
    "changed",
    "corrupt",
    "count",
    "damaged",
    "item_step",
    "key_step",
    "no_part",
    "no_room",
    "not_bytes",
    "not_writable",
    "read_count",
    "too_deep",
    "truncated",
    "type_label",
    "unhashable",
    "unregistered",
]

VERSION = 1
MAX_DEPTH = 64  # containers inside containers; also what stops a cycle
LONG_COUNT = 0xFFFF_FFFF
KEYED_FROM = 8

TAG_NONE = 0x00
TAG_FALSE = 0x01
TAG_TRUE = 0x02
TAG_INT = 0x03
TAG_BIG_INT = 0x04
TAG_FLOAT = 0x05
TAG_ASCII = 0x06
TAG_UTF8 = 0x07
TAG_BYTES = 0x08
TAG_LIST = 0x09
TAG_TUPLE = 0x0A
TAG_DICT = 0x0B
TAG_ARRAY = 0x0C
TAG_SCALAR = 0x0D
TAG_PICKLE = 0x0E
TAG_BYTEARRAY = 0x0F
TAG_COMPLEX = 0x10
TAG_PACKED_LIST = 0x11
TAG_PACKED_TUPLE = 0x12
TAG_KEYED_DICT = 0x13
TAG_SET = 0x14
TAG_FROZENSET = 0x15
TAG_DATE = 0x16
TAG_TIME = 0x17
TAG_DATETIME = 0x18
TAG_TIMEDELTA = 0x19
TAG_FIXED_ZONE = 0x1A
TAG_NAMED_ZONE = 0x1B
TAG_DECIMAL = 0x1C
TAG_FRACTION = 0x1D
TAG_UUID = 0x1E
TAG_PATH = 0x1F
TAG_RANGE = 0x20
TAG_SLICE = 0x21
TAG_ENUM = 0x22
TAG_DATACLASS = 0x23
TAG_NAMED_TUPLE = 0x24
TAG_REGISTERED = 0x25

SHORT_TUPLE = 0x30
SHORT_STR = 0x40
SHORT_LIST = 0x60
SHORT_DICT = 0x70
SHORT_INT = 0x80
SMALLEST_SHORT_INT = -32
LONGEST_SHORT = 15  # tuples, lists, dicts

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_KEY_LENGTH = 40


class Refusal(Exception):
    """A value was refused on the way down; every container adds its step on the way up."""

    def __init__(self, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cause = cause
        self.steps: list[str] = []

    def as_error(self, root: str) -> CodecError:
        """The error for the caller, whose value is called ``root``."""
        path = root + "".join(reversed(self.steps))
        return CodecError(f"cannot encode {path}: {self.reason}", path=path)


def type_label(cls: type) -> str:
    """The name of a class as its user would write it."""
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


def item_step(key: object) -> str:
    """The step from a dict to the value of ``key``."""
    if type(key) not in (str, bytes, int, float, bool, type(None)):
        return f"[<{type_label(type(key))}>]"  # its repr may run the user's code
    text = repr(key)
    return f"[{text}]" if len(text) <= _KEY_LENGTH else f"[{text[:_KEY_LENGTH]}...]"


def key_step(index: int) -> str:
    """The step from a dict to its ``index``-th key itself."""
    return f".keys()[{index}]"


def too_deep() -> Refusal:
    """For a value that has too many levels, or an endless number."""
    return Refusal(f"it is nested more than {MAX_DEPTH} levels deep, or contains itself")


def changed() -> Refusal:
    """For a container whose size is not what was announced."""
    return Refusal("it changed while it was being encoded")


def corrupt(reason: str, offset: int) -> CodecError:
    """The error for bytes that are no value; ``offset`` is where the bad part starts."""
    return CodecError(f"cannot decode byte {offset}: {reason}")


def unhashable(key: object, offset: int) -> CodecError:
    """The error for a value at ``offset`` that cannot be the key of a dict, or in a set."""
    return corrupt(f"type {type_label(type(key))} cannot be hashed as a key", offset)


def damaged(offset: int) -> CodecError:
    """The error for a tuple of parts that do not belong to its tag."""
    return corrupt("its parts are damaged", offset)


def unregistered(name: str, offset: int) -> CodecError:
    """The error for a value of a class that the reader does not know, and must not look for."""
    return corrupt(f"type {name} is not registered here", offset)


def not_bytes(data: object) -> TypeError:
    """The error for an argument of `decode` that is no buffer."""
    return TypeError(f"decode() takes a bytes-like object, not {type_label(type(data))}")


def not_writable(buffer: object) -> TypeError:
    """The error for a buffer that `encode_into` cannot fill."""
    label = type_label(type(buffer))
    return TypeError(f"encode_into() takes a writable, contiguous buffer, not this {label}")


def no_room(size: int, offset: int, length: int) -> BufferError:
    """The error for ``size`` bytes that do not fit into ``length`` from ``offset`` on."""
    return BufferError(f"{size} bytes do not fit from byte {offset} of a buffer of {length}")


def no_part(offset: int, size: int | None, length: int) -> ValueError:
    """The error for a part that does not lie within the ``length`` bytes given to `decode`."""
    part = f"byte {offset} on" if size is None else f"byte {offset} to {offset + size}"
    return ValueError(f"decode() was given {length} bytes, which have no part from {part}")


def truncated(offset: int) -> CodecError:
    """The error for a part at ``offset`` that announces more than there is."""
    return corrupt("it needs more bytes than there are", offset)


def count(number: int) -> bytes:
    """``number`` written as a count."""
    if number < LONG_COUNT:
        return _U32.pack(number)
    return _U32.pack(LONG_COUNT) + _U64.pack(number)


def read_count(
    data: bytes | memoryview, position: int, start: int, size: int = 1
) -> tuple[int, int]:
    """The count at ``position`` and where it ends, sure to fit with ``size`` bytes for each.

    ``start`` is the offset that errors name.
    """
    end = position + 4
    if end > len(data):
        raise truncated(start)
    number: int = _U32.unpack_from(data, position)[0]
    if number == LONG_COUNT:
        position, end = end, end + 8
        if end > len(data):
            raise truncated(start)
        number = _U64.unpack_from(data, position)[0]
    if number * size > len(data) - end:
        raise truncated(start)
    return number, end
