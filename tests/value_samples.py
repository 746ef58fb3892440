"""Values for every tag, and what it means that two values are exactly the same."""

from __future__ import annotations

import datetime as dt
import enum
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from snakepit_mp import register_type

NAN_WITH_PAYLOAD = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_DEAD_BEEF))[0]

BERLIN = ZoneInfo("Europe/Berlin")
NEPAL = dt.timezone(dt.timedelta(hours=5, minutes=45), "Kathmandu")


@register_type
class Color(enum.IntEnum):
    """Registered, as the next three are, so that it needs no pickle."""

    RED = 1


@register_type
class Access(enum.Flag):
    READ = 1
    WRITE = 2


@register_type
@dataclass(frozen=True)
class Model:
    name: str
    weights: Any = None


@register_type
class Point(NamedTuple):
    x: Any
    y: Any


class Celsius(float):
    """A subclass of a built-in type, with an encoding of its own."""


register_type(Celsius, float, Celsius)

#: The name of a golden file, and its value.
SAMPLES: dict[str, Any] = {
    "none": None,
    "false": False,
    "true": True,
    "int_short_least": -32,
    "int_short_zero": 0,
    "int_short_most": 95,
    "int_64_minus_33": -33,
    "int_64_96": 96,
    "int_64_least": -(1 << 63),
    "int_64_most": (1 << 63) - 1,
    "int_big_above": 1 << 63,
    "int_big_below": -(1 << 63) - 1,
    "int_big_sign_byte": (1 << 71) - 1,
    "int_big_100_digits": 10**100,
    "float": 0.1,
    "float_minus_zero": -0.0,
    "float_infinity": float("inf"),
    "float_nan": NAN_WITH_PAYLOAD,
    "str_empty": "",
    "str_short": "x" * 31,
    "str_ascii": "x" * 32,
    "str_utf8": "añb€c\U0001f40d",
    "str_lone_surrogates": "\ud83d\udc0d \udcff",
    "bytes_empty": b"",
    "bytes": bytes(range(256)),
    "list_empty": [],
    "list_short": [None, [True], -1],
    "list_long": list(range(16)),
    "tuple_empty": (),
    "tuple_short": (1, ("a",)),
    "tuple_long": tuple("abcdefghijklmnop"),
    "dict_empty": {},
    "dict_short": {"a": 1, 2: [b"b"], None: {}, (1, 2.0): "tuple"},
    "dict_long": {f"key {i}": i * i for i in range(16)},
    "dict_long_mixed": dict.fromkeys([*range(15), "x"], True),
    "array_bool": np.array([True, False, True]),
    "array_int8": np.array([-128, 127], "i1"),
    "array_uint64": np.array([0, (1 << 64) - 1], "<u8"),
    "array_big_endian": np.array([[1, 2], [3, 4]], ">i4"),
    "array_float16": np.array([1.5, np.inf], "<f2"),
    "array_float64": np.arange(6.0).reshape(2, 3),
    "array_fortran": np.asfortranarray(np.arange(6, dtype="<f4").reshape(2, 3)),
    "array_complex": np.array([1 + 2j], "<c16"),
    "array_0d": np.array(7, "<i8"),
    "array_no_elements": np.zeros((0, 3), "<f8"),
    "array_datetime": np.array(["2020-02-29", "NaT"], "<M8[D]"),
    "array_timedelta": np.array([1, -1], "<m8[25s]"),
    "array_str": np.array(["a", "b\xe9"], "<U2"),
    "array_bytes": np.array([b"a", b"bc"], "S2"),
    "scalar_bool": np.bool_(True),
    "scalar_int32": np.int32(-5),
    "scalar_float64": np.float64(0.1),
    "scalar_datetime": np.datetime64("2020-02-29T12", "h"),
    "scalar_str": np.str_("\xe9 and a NUL\0"),
    "scalar_bytes": np.bytes_(b"a NUL\0"),
    "array_structured": np.array([(1, 2.5), (3, 4.5)], [("a", "<i2"), ("b", ">f8")]),
    "array_structured_nested": np.zeros(
        (1, 2), np.dtype([("a", "?"), ("b", [("c", "<U2", (2,)), ("d", "<M8[s]")])], align=True)
    ),
    "array_void": np.array([b"abc"], "V3"),
    "scalar_structured": np.array([(1, 2.5)], [("a", "<i2"), ("b", ">f8")])[0],
    "bytearray": bytearray(b"abc"),
    "complex": complex(-0.0, NAN_WITH_PAYLOAD),
    "packed_8": [-128, 127] * 8,
    "packed_16": [-129, 32767] * 8,
    "packed_32": [1 << 15, -(1 << 31)] * 8,
    "packed_64": [(1 << 63) - 1, -(1 << 63)] * 8,
    "packed_float": [0.1, -0.0, float("-inf"), NAN_WITH_PAYLOAD] * 4,
    "packed_tuple": tuple(range(16)),
    "packed_tuple_float": (0.5,) * 16,
    "not_packed_bool": [1] * 15 + [True],
    "not_packed_big": [1] * 15 + [1 << 63],
    "not_packed_mixed": [0.5] * 15 + [1],
    "dict_keyed": {f"key {i}": [i, {}] for i in range(8)},
    "dict_keyed_strange": {
        "": 0,
        "x" * 40: 1,
        "\xe9": 2,
        "\udcff": 3,
        "a": 4,
        "b": 5,
        "c": 6,
        "d": 7,
    },
    "dict_not_keyed": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5, "g": 6, 7: 7},
    "set": {1},
    "set_empty": set(),
    "frozenset": frozenset(("a",)),
    "date": dt.date(2024, 2, 29),
    "time": dt.time(1, 2, 3, 4, fold=1),
    "time_zoned": dt.time(23, 59, 59, 999999, NEPAL),
    "datetime": dt.datetime(1, 1, 1),  # noqa: DTZ001
    "datetime_utc": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC),
    "datetime_fold": dt.datetime(2023, 10, 29, 2, 30, tzinfo=BERLIN, fold=1),
    "timedelta": dt.timedelta(-1, 86399, 999999),
    "zone_utc": dt.UTC,
    "zone_fixed": dt.timezone(-dt.timedelta(hours=3, microseconds=1)),
    "zone_fixed_named": NEPAL,
    "zone_named": BERLIN,
    "decimal": Decimal("-1.50E+3"),
    "decimal_nan": Decimal("-sNaN123"),
    "fraction": Fraction(-1, 3),
    "uuid": uuid.UUID(int=5),
    "uuid_safe": uuid.UUID(int=5, is_safe=uuid.SafeUUID.safe),
    "path_posix": PurePosixPath("/a/b\udcff"),
    "path_windows": PureWindowsPath(r"C:\a"),
    "range": range(10, 0, -3),
    "slice": slice(None, [1], 1.5),
    "enum": Color.RED,
    "enum_flags": Access.READ | Access.WRITE,
    "dataclass": Model("m", [Model("inner")]),
    "named_tuple": Point(1, Point("a", None)),
    "registered": Celsius(36.6),
    "pickle": object,
}


def same(one: Any, other: Any) -> bool:
    """Whether both are of one type and cannot be told apart: bits, order of keys, layout."""
    if type(one) is not type(other):
        return False
    for kinds, facts in _FACTS:
        if isinstance(one, kinds):
            return all(map(same, facts(one), facts(other)))
    if isinstance(one, (set, frozenset)):  # two NaN are not equal, so not found either
        return sorted(map(_told, one)) == sorted(map(_told, other))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _told(member: Any) -> tuple[str, str]:
    return type(member).__name__, repr(member)


#: What two values of a kind have to have in common; of these, too, every bit counts.
_FACTS: list[tuple[Any, Callable[[Any], tuple[Any, ...]]]] = [
    (np.ndarray, lambda array: (*_layout(array), array.tobytes())),
    ((np.str_, np.bytes_), lambda text: (len(text), text.tobytes())),
    (np.void, lambda record: (str(record.dtype), repr(record))),  # its padding says nothing
    (np.generic, lambda scalar: (scalar.dtype.str, scalar.tobytes())),
    (float, lambda number: (struct.pack("<d", number),)),
    (complex, lambda number: (number.real, number.imag)),
    (dict, lambda table: (list(table.items()),)),
    (Model, lambda model: (vars(model),)),
    (slice, lambda part: (part.start, part.stop, part.step)),
    ((dt.datetime, dt.time), lambda moment: (moment.isoformat(), moment.fold, moment.tzinfo)),
    (dt.timezone, lambda zone: (repr(zone),)),
    ((Decimal, range), lambda value: (repr(value),)),
    (uuid.UUID, lambda number: (number.int, number.is_safe)),
]


def _layout(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    flags = array.flags
    return array.dtype, array.dtype.str, array.shape, flags.c_contiguous, flags.f_contiguous
