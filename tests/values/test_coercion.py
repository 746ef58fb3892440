"""Which values become which. The table of docs/variables.md has more cases, and is tested."""

from __future__ import annotations

import datetime as dt
import enum
import math
import zoneinfo
from collections import OrderedDict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from value_samples import same

from snakepit_mp.errors import VariableTypeError
from snakepit_mp.values.coercion import coerce
from snakepit_mp.values.types import TYPES


class Level(enum.IntEnum):
    LOW = 1


class Matrix(np.ndarray):
    pass


class Moment(dt.datetime):
    pass


ARRAY = np.zeros((2, 3), "f4")
VECTOR = np.array([0.5, np.nan], "f4")
MOMENT = dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
ITEMS = [1, None]
ANYTHING = object()


@pytest.mark.parametrize(
    ("kind", "value", "normal"),
    [
        ("boolean", True, True),
        ("boolean", np.bool_(False), False),
        ("bytes", b"\0", b"\0"),
        ("bytes", bytearray(b"ab"), b"ab"),
        ("bytes", np.bytes_(b"a NUL\0"), b"a NUL\0"),
        ("choice", "a", "a"),
        ("choice", np.str_("a"), "a"),
        ("integer", 3, 3),
        ("integer", 10**30, 10**30),
        ("integer", np.uint8(3), 3),
        ("integer", 1.0, 1),
        ("integer", 1e300, int(1e300)),
        ("integer", np.float32(2.0), 2),
        ("float", 0.5, 0.5),
        ("float", 3, 3.0),
        ("float", 1 << 60, float(1 << 60)),
        ("float", np.float64(0.5), 0.5),
        ("float", np.float32(0.1), float(np.float32(0.1))),
        ("float", np.longdouble(0.5), 0.5),
        ("float", np.int16(-2), -2.0),
        ("float", np.float32("nan"), math.nan),
        ("float", math.inf, math.inf),
        ("list", ITEMS, ITEMS),
        ("map", {1: ITEMS}, {1: ITEMS}),
        ("module", "ChainOfThought", "ChainOfThought"),
        ("string", "é", "é"),
        ("string", np.str_("a\0"), "a\0"),
        ("tensor", ARRAY, ARRAY),
        ("any", None, None),
        ("embedding", [], np.zeros(0)),
        ("embedding", [0.5, math.nan], np.array([0.5, math.nan])),
        ("embedding", (1, 2.5, np.float32(0.1)), np.array([1, 2.5, np.float32(0.1)], "f8")),
        ("embedding", VECTOR, VECTOR),
        ("embedding", np.array([1, 2], ">f8"), np.array([1.0, 2.0])),
        ("embedding", np.array([1, 2], "u1"), np.array([1.0, 2.0])),
        ("embedding", np.array([0.5, np.inf], "f2"), np.array([0.5, np.inf])),
        ("embedding", np.array([0.5, 1], "g"), np.array([0.5, 1.0])),
        ("embedding", np.array([1 << 60], "i8"), np.array([2.0**60])),
    ],
)
def test_coerce(kind, value, normal):
    assert same(coerce(kind, value), normal)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("any", ANYTHING),
        ("any", Level.LOW),
        ("datetime", MOMENT),
        ("embedding", VECTOR),
        ("embedding", np.arange(10.0)[::2]),
        ("list", ITEMS),
        ("tensor", ARRAY),
    ],
)
def test_what_is_in_normal_form_is_not_copied(kind, value):
    assert coerce(kind, value) is value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((kind, None) for kind in TYPES if kind != "any"),
        ("boolean", 1),
        ("boolean", "true"),
        ("bytes", "x"),
        ("bytes", memoryview(b"x")),
        ("choice", 1),
        ("choice", Level.LOW),
        ("datetime", dt.date(2026, 1, 2)),
        ("datetime", Moment(2026, 1, 2)),
        ("datetime", "2026-01-02T00:00:00"),
        ("datetime", np.datetime64("2026-01-02T00:00:00")),
        ("datetime", 0.0),
        ("integer", True),
        ("integer", np.bool_(True)),
        ("integer", 1.5),
        ("integer", math.nan),
        ("integer", math.inf),
        ("integer", "1"),
        ("integer", Level.LOW),
        ("integer", np.timedelta64(1, "s")),
        ("float", True),
        ("float", "0.5"),
        ("float", (1 << 53) + 1),
        ("float", 10**400),
        ("float", np.longdouble(1) + np.finfo(np.longdouble).eps)
        if np.finfo(np.longdouble).eps < np.finfo(float).eps
        else ("float", None),
        ("float", Fraction(1, 2)),
        ("float", 1j),
        ("list", (1,)),
        ("list", ARRAY),
        ("map", OrderedDict()),
        ("map", [("a", 1)]),
        ("module", math),
        ("string", b"x"),
        ("string", 1),
        ("tensor", [1.0]),
        ("tensor", np.array([None])),
        ("tensor", np.zeros(2).view(Matrix)),
        ("tensor", np.float64(1)),
        ("embedding", ARRAY),
        ("embedding", np.array(1.0)),
        ("embedding", np.array([True])),
        ("embedding", np.array([1j])),
        ("embedding", np.array(["1"])),
        ("embedding", np.zeros(2).view(Matrix)),
        ("embedding", {1.0}),
        ("embedding", "12"),
    ],
)
def test_coerce_refuses(kind, value):
    with pytest.raises(VariableTypeError, match=f"is no {kind}$") as caught:
        coerce(kind, value)
    assert caught.value.value is value


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([0.5, "x"], r"is no embedding: \[1\]: 'x' \(type str\) is no float$"),
        ([True], r"is no embedding: \[0\]: True"),
        ([[1.0]], r"is no embedding: \[0\]: \[1.0\]"),
        ([(1 << 53) + 1], r"is no embedding: \[0\]: 9007199254740993"),
        (np.array([1, (1 << 53) + 1]), r"is no embedding: \[1\]: np.int64"),
    ],
)
def test_one_item_spoils_an_embedding(value, complaint):
    with pytest.raises(VariableTypeError, match=complaint) as caught:
        coerce("embedding", value)
    assert caught.value.value is value


@pytest.mark.parametrize(
    ("value", "dtype", "becomes"),
    [
        ([0.5, 1], "float32", "float32"),
        ([math.nan, -math.inf], "float32", "float32"),
        ([float(np.float32(0.1))], "float32", "float32"),
        (np.array([1, 2], "i8"), "float32", "float32"),
        ([0.5], "float64", "float64"),
        ([0.1], "float32", "float64"),
        ([1e300], "float32", "float64"),
        ([0.5], None, "float64"),
        (np.array([0.5], "f8"), "float32", "float64"),
        (np.array([0.5], "f4"), "float64", "float32"),
    ],
)
def test_numbers_without_a_dtype_take_the_one_asked_for(value, dtype, becomes):
    got = coerce("embedding", value, dtype=dtype)
    assert got.dtype == becomes
    np.testing.assert_array_equal(got, np.array(value, "f8"))


def test_message_is_short_and_names_the_type():
    with pytest.raises(VariableTypeError) as caught:
        coerce("float", "x" * 10_000)
    assert len(str(caught.value)) < 120
    assert "(type str)" in str(caught.value)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.builds(np.float32, st.floats(width=32))
    | st.builds(np.int64, st.integers(-(2**63), 2**63 - 1))
    | st.builds(np.str_, st.text(max_size=3))
)
VALUES: st.SearchStrategy[Any] = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.lists(st.floats() | st.integers(-9, 9), max_size=3)
    | st.dictionaries(st.text(max_size=2), SCALARS, max_size=2)
    | st.builds(np.array, st.lists(st.floats(width=32), max_size=3), st.sampled_from(["f4", "f8"]))
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(TYPES), VALUES, st.sampled_from([None, "float32", "float64"]))
def test_the_normal_form_is_its_own(kind, value, dtype):
    try:
        normal = coerce(kind, value, dtype=dtype)
    except VariableTypeError:
        return
    again = coerce(kind, normal, dtype=dtype)
    assert again is normal
    # Nothing was lost: Python's own comparison sees the same value.
    if isinstance(normal, np.ndarray):
        assert np.array_equal(normal, value, equal_nan=True)
    else:
        assert normal == value or normal != normal or same(normal, value)
