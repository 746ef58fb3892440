"""Values for every tag, and what it means that two values are exactly the same."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import numpy as np

NAN_WITH_PAYLOAD = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_DEAD_BEEF))[0]

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
    "pickle": Fraction(1, 3),
}


def same(one: Any, other: Any) -> bool:
    """Whether both are of one type and cannot be told apart: bits, order of keys, layout."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, np.ndarray):
        return _layout(one) == _layout(other) and one.tobytes() == other.tobytes()
    if isinstance(one, (np.str_, np.bytes_)):
        return len(one) == len(other) and one == other
    if isinstance(one, np.generic):
        return one.dtype.str == other.dtype.str and one.tobytes() == other.tobytes()
    return bool(one == other)


def _layout(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    flags = array.flags
    return array.dtype.str, array.shape, flags.c_contiguous, flags.f_contiguous
