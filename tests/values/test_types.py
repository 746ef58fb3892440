"""Which values become which, row by row of the table."""

from __future__ import annotations

import enum
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from value_samples import same

from snakepit_mp.errors import VariableTypeError
from snakepit_mp.values import types


class Level(enum.IntEnum):
    LOW = 1


class Matrix(np.ndarray):
    pass


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *((name, name) for name in types.TYPES),
        (float, "float"),
        (int, "integer"),
        (str, "string"),
        (bool, "boolean"),
        (np.ndarray, "tensor"),
        (object, "any"),
        (Any, "any"),
    ],
)
def test_type_name(given, name):
    assert types.type_name(given) == name


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("double", "'double'"),
        (Fraction, "fractions.Fraction"),
        (None, "None"),
        (["float"], r"\['float'\]"),
    ],
)
def test_unknown_type(given, shown):
    with pytest.raises(VariableTypeError, match=f"no variable type {shown}; there are any, bool"):
        types.type_name(given)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "boolean"),
        (1, "integer"),
        (1.0, "float"),
        ("x", "string"),
        (np.zeros(2), "tensor"),
        (np.array([None]), "any"),
        (np.float64(1), "any"),
        (Level.LOW, "any"),
        (None, "any"),
        ([1], "any"),
        (b"x", "any"),
    ],
)
def test_infer_type(value, name):
    assert types.infer_type(value) == name


ARRAY = np.zeros((2, 3), "f4")


@pytest.mark.parametrize(
    ("kind", "value", "normal"),
    [
        ("boolean", True, True),
        ("boolean", np.bool_(False), False),
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
        ("string", "é", "é"),
        ("string", np.str_("a\0"), "a\0"),
        ("tensor", ARRAY, ARRAY),
        ("any", Level.LOW, Level.LOW),
        ("any", None, None),
    ],
)
def test_coerce(kind, value, normal):
    assert same(types.coerce(kind, value), normal)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("boolean", 1),
        ("boolean", None),
        ("boolean", "true"),
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
        ("string", b"x"),
        ("string", 1),
        ("tensor", [1.0]),
        ("tensor", np.array([None])),
        ("tensor", np.zeros(2).view(Matrix)),
        ("tensor", np.float64(1)),
    ],
)
def test_coerce_refuses(kind, value):
    with pytest.raises(VariableTypeError, match=f"is no {kind}$"):
        types.coerce(kind, value)


def test_message_is_short_and_names_the_type():
    with pytest.raises(VariableTypeError) as caught:
        types.coerce("float", "x" * 10_000)
    assert len(str(caught.value)) < 120
    assert "(type str)" in str(caught.value)


def test_shorten_survives_what_python_does_not_spell():
    assert types.shorten(10**5000) == "<int with too many digits to be shown>"
    assert types.shorten([10**5000]) == "<list with too many digits to be shown>"


def test_shorten_does_not_print_arrays():
    assert types.shorten(ARRAY) == "an array of shape (2, 3) and dtype float32"
