"""Constraint sets are checked when they are made: each limit, and all of them together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from value_samples import same

from snakepit_mp.errors import ConstraintError
from snakepit_mp.values.codec import decode, encode
from snakepit_mp.values.constraints import suitable, validate_constraints
from snakepit_mp.values.types import TYPES


@pytest.mark.parametrize(
    ("kind", "given", "normal"),
    [
        ("float", None, {}),
        ("any", {}, {}),
        ("any", {"min": None}, {}),
        ("float", {"min": 0, "max": 2.5}, {"min": 0.0, "max": 2.5}),
        ("float", {"min": -math.inf, "max": None}, {"min": -math.inf}),
        ("integer", {"min": 1.0, "max": 1}, {"min": 1, "max": 1}),
        ("integer", {"choices": (1, 2.0)}, {"choices": [1, 2]}),
        ("float", {"choices": [1]}, {"choices": [1.0]}),
        ("boolean", {"choices": [True]}, {"choices": [True]}),
        ("choice", {"enum": ["a"]}, {"enum": ["a"]}),
        ("string", {"min_length": 0, "max_length": 3}, {"min_length": 0, "max_length": 3}),
        ("string", {"choices": ["a"], "max_length": 1}, {"max_length": 1, "choices": ["a"]}),
        ("string", {"pattern": "a+", "min_length": 10_000}, None),
        ("list", {"unique": True, "nullable": True}, {"nullable": True, "unique": True}),
        ("list", {"unique": False, "nullable": False}, {}),
        ("module", {"allowed_modules": ("A", "B")}, {"allowed_modules": ["A", "B"]}),
        ("float", {"multiple_of": 1}, {"multiple_of": 1.0}),
        ("float", {"min": 0.25, "max": 0.31, "multiple_of": 0.1}, None),
        ("integer", {"min": -7, "max": -5, "multiple_of": 3}, None),
        ("float", {"min": 0.5, "max": math.inf, "multiple_of": 7.0}, None),
        ("float", {"min": -math.inf, "max": 0.5, "multiple_of": 7.0}, None),
        ("integer", {"min": 10**400, "multiple_of": 10**399}, None),
        (
            "embedding",
            {"dimensions": 3, "dtype": np.float32},
            {"dimensions": 3, "dtype": "float32"},
        ),
        ("embedding", {"dtype": float}, {"dtype": "float64"}),
        ("tensor", {"shape": (None, 3)}, {"shape": [None, 3]}),
        ("tensor", {"shape": []}, {"shape": []}),
        ("tensor", {"dtype": np.dtype("<f4")}, {"dtype": "float32"}),
        ("tensor", {"dtype": ">f4"}, {"dtype": ">f4"}),
        ("tensor", {"dtype": "U5"}, {"dtype": "<U5"}),
        ("tensor", {"dtype": "M8[ms]"}, {"dtype": "<M8[ms]"}),
        ("tensor", {"dtype": bool}, {"dtype": "bool"}),
    ],
)
def test_normal_form(kind, given, normal):
    got = validate_constraints(kind, given)
    assert same(got, given if normal is None else normal) or normal is None
    assert same(validate_constraints(kind, got), got)
    assert same(decode(encode(got)), got)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("float", {"minimum": 0}, "'minimum' is unknown for type float, which takes nullable, min"),
        ("float", {"min_length": 1}, "'min_length' does not suit type float"),
        ("tensor", {"min": 1}, "'min' does not suit type tensor, which takes nullable, dtype, sh"),
        ("any", {"choices": [1]}, "'choices' does not suit type any, which takes no constraints"),
        ("any", {"nullable": True}, "'nullable' does not suit type any"),
        ("float", {3: 1}, "3 is unknown for type float"),
        ("float", [("min", 1)], "constraints must be a mapping"),
        ("float", {"min": "0"}, "min: '0' .type str. is no float"),
        ("float", {"min": True}, "min: True .type bool. is no float"),
        ("integer", {"max": 1.5}, "max: 1.5 .type float. is no integer"),
        ("float", {"max": math.nan}, "max must not be NaN"),
        ("float", {"min": 2, "max": 1}, "min 2.0 is above max 1.0"),
        ("integer", {"min": 10**5000, "max": 1}, "min an int of 16610 bits is above max 1"),
        ("float", {"multiple_of": 0}, "multiple_of must be finite and above 0, not 0"),
        ("integer", {"multiple_of": -2}, "multiple_of must be finite and above 0, not -2"),
        ("float", {"multiple_of": math.inf}, "multiple_of must be finite and above 0, not inf"),
        (
            "float",
            {"min": 0.31, "max": 0.39, "multiple_of": 0.1},
            "no multiple of 0.1 from min 0.3",
        ),
        ("integer", {"min": 4, "max": 5, "multiple_of": 3}, "no multiple of 3 from min 4 to max 5"),
        ("string", {"min_length": -1}, "min_length must be an int of at least 0, not -1"),
        ("string", {"max_length": True}, "max_length must be an int of at least 0, not True"),
        ("string", {"max_length": 1.0}, "max_length must be an int"),
        ("list", {"min_length": 3, "max_length": 2}, "min_length 3 is above max_length 2"),
        ("string", {"pattern": "a", "min_length": 10_001}, "min_length 10001 is above the 10000"),
        ("string", {"pattern": b"a"}, "pattern must be a str, not b'a'"),
        ("string", {"pattern": "("}, r"pattern '\(' is no pattern: "),
        ("string", {"choices": []}, "choices must be a list that is not empty"),
        ("string", {"choices": "abc"}, "choices must be a list that is not empty, not 'abc'"),
        ("string", {"choices": ["a", 1]}, r"choices\[1\]: 1 .type int. is no string"),
        ("float", {"choices": [math.nan]}, r"choices\[0\] must not be NaN"),
        ("float", {"min": 1, "choices": [1, 0]}, "choices contradict the other limits: 0.0 is"),
        ("float", {"multiple_of": 2, "enum": [3]}, "enum contradict the other limits: 3.0 is no"),
        ("string", {"max_length": 1, "choices": ["ab"]}, "choices contradict the other limits"),
        ("string", {"pattern": "a", "enum": ["b"]}, "enum contradict the other limits: 'b' does"),
        ("choice", {"choices": ["a"], "enum": ["a"]}, "choices and enum are two names of one"),
        ("module", {"allowed_modules": [math]}, r"allowed_modules\[0\]: .* is no module"),
        ("embedding", {"dimensions": 2.0}, "dimensions must be an int of at least 0"),
        ("embedding", {"dtype": "int8"}, "dtype must be float32 or float64, not 'int8'"),
        ("embedding", {"dtype": ">f4"}, "dtype must be float32 or float64, not '>f4'"),
        ("tensor", {"dtype": "O"}, "dtype must be a plain NumPy dtype, not 'O'"),
        ("tensor", {"dtype": dict}, "dtype must be a plain NumPy dtype, not <class 'dict'>"),
        ("tensor", {"dtype": "f5"}, "dtype must be a plain NumPy dtype, not 'f5'"),
        (
            "tensor",
            {"dtype": "((("},
            "dtype must be a plain NumPy dtype, not '((('".replace("(", "[(]"),
        ),
        ("tensor", {"dtype": "f4," * 20}, "dtype must be a plain NumPy dtype"),
        ("tensor", {"dtype": 4}, "dtype must be a plain NumPy dtype, not 4"),
        ("tensor", {"dtype": "(2,)f8"}, "dtype must be a plain NumPy dtype"),
        ("tensor", {"shape": 3}, "shape must be a list or tuple, not 3"),
        ("tensor", {"shape": [2, -1]}, r"shape\[1\] must be an int of at least 0, not -1"),
        ("tensor", {"shape": [2.0]}, r"shape\[0\] must be an int of at least 0"),
        ("list", {"unique": 1}, "unique must be a bool, not 1"),
        ("float", {"nullable": "yes"}, "nullable must be a bool, not 'yes'"),
    ],
)
def test_wrong_set(kind, given, message):
    with pytest.raises(ConstraintError, match=message):
        validate_constraints(kind, given)


def test_every_type_but_any_can_be_nullable():
    assert [kind for kind in TYPES if "nullable" not in suitable(kind)] == ["any"]
