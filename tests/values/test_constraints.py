"""Constraint sets are checked when they are made, values when they are written."""

from __future__ import annotations

import math

import numpy as np
import pytest
from value_samples import same

from snakepit_mp.errors import ConstraintError, ConstraintViolation
from snakepit_mp.values.constraints import check, validate_constraints


@pytest.mark.parametrize(
    ("kind", "given", "normal"),
    [
        ("float", None, {}),
        ("any", {}, {}),
        ("float", {"min": 0, "max": 2.5}, {"min": 0.0, "max": 2.5}),
        ("float", {"min": -math.inf, "max": None}, {"min": -math.inf}),
        ("integer", {"min": 1.0, "max": 1}, {"min": 1, "max": 1}),
        ("integer", {"choices": (1, 2.0)}, {"choices": [1, 2]}),
        ("float", {"choices": [1]}, {"choices": [1.0]}),
        ("boolean", {"choices": [True]}, {"choices": [True]}),
        ("string", {"min_length": 0, "max_length": 3}, {"min_length": 0, "max_length": 3}),
        ("string", {"choices": ["a"], "max_length": 1}, {"max_length": 1, "choices": ["a"]}),
        ("tensor", {"shape": (None, 3)}, {"shape": [None, 3]}),
        ("tensor", {"shape": []}, {"shape": []}),
    ],
)
def test_normal_form(kind, given, normal):
    assert same(validate_constraints(kind, given), normal)


def test_normal_form_is_stable():
    once = validate_constraints("tensor", {"shape": (None, 3)})
    assert validate_constraints("tensor", once) == once


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("float", {"minimum": 0}, "'minimum' is unknown for type float, which takes min, max"),
        ("float", {"min_length": 1}, "'min_length' does not suit type float"),
        ("tensor", {"min": 1}, "'min' does not suit type tensor, which takes shape"),
        ("any", {"choices": [1]}, "'choices' does not suit type any, which takes no constraints"),
        ("float", {3: 1}, "3 is unknown for type float"),
        ("float", [("min", 1)], "constraints must be a mapping"),
        ("float", {"min": "0"}, "min: '0' .type str. is no float"),
        ("float", {"min": True}, "min: True .type bool. is no float"),
        ("integer", {"max": 1.5}, "max: 1.5 .type float. is no integer"),
        ("float", {"max": math.nan}, "max must not be NaN"),
        ("float", {"min": 2, "max": 1}, "min 2.0 is above max 1.0"),
        ("string", {"min_length": -1}, "min_length must be an int of at least 0, not -1"),
        ("string", {"max_length": True}, "max_length must be an int of at least 0, not True"),
        ("string", {"max_length": 1.0}, "max_length must be an int"),
        ("string", {"min_length": 3, "max_length": 2}, "min_length 3 is above max_length 2"),
        ("string", {"choices": []}, "choices must be a list that is not empty"),
        ("string", {"choices": "abc"}, "choices must be a list that is not empty, not 'abc'"),
        ("string", {"choices": ["a", 1]}, r"choices\[1\]: 1 .type int. is no string"),
        ("float", {"choices": [math.nan]}, r"choices\[0\] must not be NaN"),
        ("float", {"min": 1, "choices": [1, 0]}, "choices contradict the other limits: 0.0 is"),
        ("string", {"max_length": 1, "choices": ["ab"]}, "choices contradict the other limits"),
        ("tensor", {"shape": 3}, "shape must be a list or tuple, not 3"),
        ("tensor", {"shape": [2, -1]}, r"shape\[1\] must be an int of at least 0, not -1"),
        ("tensor", {"shape": [2.0]}, r"shape\[0\] must be an int of at least 0"),
    ],
)
def test_wrong_set(kind, given, message):
    with pytest.raises(ConstraintError, match=message):
        validate_constraints(kind, given)


@pytest.mark.parametrize(
    ("kind", "constraints", "values"),
    [
        ("float", None, [math.nan, 1e308]),
        ("float", {"min": 0, "max": 2}, [0.0, -0.0, 2.0]),
        ("integer", {"min": 10**30}, [10**30]),
        ("string", {"min_length": 1, "max_length": 2}, ["a", "\U0001f40d\U0001f40d"]),
        ("string", {"choices": ["a", "b"]}, ["b"]),
        ("boolean", {"choices": [True]}, [True]),
        ("tensor", {"shape": [None, 3]}, [np.zeros((0, 3)), np.zeros((7, 3))]),
        ("tensor", {"shape": []}, [np.array(1)]),
    ],
)
def test_obeyed(kind, constraints, values):
    normal = validate_constraints(kind, constraints)
    for value in values:
        check(kind, normal, value)  # raises nothing


@pytest.mark.parametrize(
    ("kind", "constraints", "value", "name", "message"),
    [
        ("float", {"min": 0, "max": 2}, -0.1, "min", "-0.1 is not at least 0.0 (constraint min)"),
        ("float", {"min": 0, "max": 2}, 2.1, "max", "2.1 is not at most 2.0 (constraint max)"),
        ("float", {"min": 0}, math.nan, "min", "nan is not at least 0.0 (constraint min)"),
        ("float", {"max": 0}, math.nan, "max", "nan is not at most 0.0 (constraint max)"),
        ("integer", {"choices": [1, 2]}, 3, "choices", "3 is not among [1, 2]"),
        ("string", {"min_length": 2}, "a", "min_length", "'a' has 1 characters, at least 2"),
        ("string", {"max_length": 2}, "abc", "max_length", "'abc' has 3 characters, at most 2"),
        ("tensor", {"shape": [None, 3]}, np.zeros((3, 2)), "shape", "an array of shape (3, 2)"),
        ("tensor", {"shape": [None]}, np.zeros((3, 2)), "shape", "an array of shape (3, 2)"),
        ("tensor", {"shape": [2, 3]}, np.zeros(2), "shape", "an array of shape (2,)"),
    ],
)
def test_violated(kind, constraints, value, name, message):
    with pytest.raises(ConstraintViolation) as caught:
        check(kind, validate_constraints(kind, constraints), value)
    assert caught.value.constraint == name
    assert caught.value.value is value
    assert str(caught.value).startswith(message)
