"""Which type a name means, and which one a value has."""

from __future__ import annotations

import datetime as dt
import enum
import zoneinfo
from collections import OrderedDict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from snakepit_mp.errors import VariableTypeError
from snakepit_mp.values import types
from snakepit_mp.values.coercion import coerce


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *((name, name) for name in types.TYPES),
        (float, "float"),
        (int, "integer"),
        (str, "string"),
        (bool, "boolean"),
        (bytes, "bytes"),
        (list, "list"),
        (dict, "map"),
        (dt.datetime, "datetime"),
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
        ("int", "'int'"),
        (Fraction, "fractions.Fraction"),
        (np.float64, "numpy.float64"),
        (OrderedDict, "collections.OrderedDict"),
        (None, "None"),
        (["float"], r"\['float'\]"),
        (list[int], r"list\[int\]"),
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
        (b"x", "bytes"),
        ([1], "list"),
        ({1: 2}, "map"),
        (dt.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")), "datetime"),
        (np.zeros(2), "tensor"),
        (np.array([None]), "any"),
        (np.float64(1), "any"),
        (Level.LOW, "any"),
        (OrderedDict(), "any"),
        (dt.date(2026, 1, 2), "any"),
        (None, "any"),
        ((1,), "any"),
        (bytearray(b"x"), "any"),
    ],
)
def test_infer_type(value, name):
    assert types.infer_type(value) == name
    assert coerce(name, value) is value


def test_types_are_sorted():
    assert list(types.TYPES) == sorted(types.TYPES)
