"""Values that fit a variable and values that do not, in both twins."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from fix_impl import TWINS, validator_of
from hypothesis import given, settings
from hypothesis import strategies as st
from value_samples import same

from snakepit_mp import _accel
from snakepit_mp.errors import CodecError, ConstraintViolation, VariableTypeError
from snakepit_mp.values.constraints import validate_constraints
from snakepit_mp.values.validator import PyValidator, Validator

BIG = 10**30


@pytest.fixture
def make(validator_impl):
    """A validator with constraints as a user gives them."""
    return lambda kind, constraints=None, variable=None: validator_impl(
        kind, validate_constraints(kind, constraints), variable
    )


def test_the_compiled_twin_is_taken_where_there_is_one():
    compiled = _accel.speedups is not None
    assert (Validator is PyValidator) is not compiled


@pytest.mark.parametrize(
    ("kind", "constraints", "values"),
    [
        ("any", None, [None, object]),
        ("float", None, [math.nan, 1e308, -math.inf]),
        ("float", {"min": 0, "max": 2}, [0.0, -0.0, 2.0]),
        ("float", {"min": 0}, [math.inf]),
        ("float", {"max": 0}, [-math.inf]),
        ("float", {"multiple_of": 0.1}, [0.3, -0.7, 0.0, 1e300]),
        ("integer", None, [0, BIG, -BIG, 2**63 - 1, -(2**63)]),
        ("integer", {"min": BIG}, [BIG]),
        ("integer", {"max": -BIG}, [-BIG]),
        ("integer", {"min": -BIG, "max": BIG}, [BIG, -BIG, 2**63]),
        ("integer", {"multiple_of": 3}, [0, -3, 3 * BIG]),
        ("integer", {"enum": [1, BIG]}, [BIG]),
        ("string", {"min_length": 1, "max_length": 2}, ["a", "\U0001f40d\U0001f40d"]),
        ("string", {"max_length": BIG}, [""]),
        ("string", {"choices": ["a", "b"]}, ["b"]),
        ("string", {"pattern": "[a-c]+"}, ["a", "abc" * 3_000]),
        ("boolean", None, [True, False]),
        ("boolean", {"choices": [True]}, [True]),
        ("bytes", {"min_length": 2, "max_length": 2}, [b"\0\0"]),
        ("choice", None, ["anything"]),
        ("choice", {"choices": ["a", "b"]}, ["a"]),
        ("module", {"allowed_modules": ["A"]}, ["A"]),
        ("list", {"min_length": 1, "unique": True}, [[1, True, 1.0, "1", [1], [True], None]]),
        ("list", {"max_length": 0}, [[]]),
        ("map", {"max_length": 1}, [{}, {1: 2}]),
        ("embedding", {"dimensions": 2, "dtype": "float32"}, [np.array([1, 2], "f4")]),
        ("embedding", {"unique": True}, [np.array([0.0, -0.0, np.nan]), np.zeros(1, "f4")]),
        ("tensor", {"shape": [None, 3]}, [np.zeros((0, 3)), np.zeros((7, 3))]),
        ("tensor", {"shape": []}, [np.array(1)]),
        ("tensor", {"dtype": "int8"}, [np.zeros((2, 2), "i1")]),
        ("tensor", {"dtype": ">f4"}, [np.zeros(2, ">f4")]),
        ("float", {"nullable": True, "min": 0}, [None, 0.5]),
        ("list", {"nullable": True, "min_length": 1}, [None]),
    ],
)
def test_obeyed(make, kind, constraints, values):
    validator = make(kind, constraints)
    for value in values:
        assert validator.prepare(value) is value


@pytest.mark.parametrize(
    ("kind", "constraints", "value", "normal"),
    [
        ("float", {"min": 0}, 3, 3.0),
        ("float", None, True + 0, 1.0),
        ("integer", {"max": 3}, 3.0, 3),
        ("integer", None, np.int8(3), 3),
        ("string", {"max_length": 1}, np.str_("x"), "x"),
        ("boolean", None, np.bool_(True), True),
        ("bytes", None, bytearray(b"x"), b"x"),
        ("embedding", {"dtype": "float32"}, [0.5, 1], np.array([0.5, 1.0], "f4")),
        ("embedding", {"dimensions": 2}, [0.5, 1], np.array([0.5, 1.0])),
    ],
)
def test_brought_into_normal_form(make, kind, constraints, value, normal):
    assert same(make(kind, constraints).prepare(value), normal)


@pytest.mark.parametrize(
    ("kind", "constraints", "value", "name", "message"),
    [
        ("float", {"min": 0, "max": 2}, -0.1, "min", "-0.1 is not at least 0.0 (constraint min)"),
        ("float", {"min": 0, "max": 2}, 2.1, "max", "2.1 is not at most 2.0 (constraint max)"),
        ("float", {"min": 0}, math.nan, "min", "nan is not at least 0.0 (constraint min)"),
        ("float", {"max": 0}, math.nan, "max", "nan is not at most 0.0 (constraint max)"),
        ("float", {"min": -math.inf}, math.nan, "min", "nan is not at least -inf"),
        ("float", {"multiple_of": 0.1}, 0.35, "multiple_of", "0.35 is not a multiple of 0.1"),
        ("float", {"multiple_of": 0.1}, math.inf, "multiple_of", "inf is not a multiple of 0.1"),
        ("float", {"multiple_of": 2}, math.nan, "multiple_of", "nan is not a multiple of 2.0"),
        ("integer", {"choices": [1, 2]}, 3, "choices", "3 is not among [1, 2]"),
        ("integer", {"min": BIG}, 5, "min", f"5 is not at least {BIG}"),
        ("integer", {"max": -BIG}, 5, "max", f"5 is not at most -{BIG}"),
        ("integer", {"max": 5}, BIG, "max", f"{BIG} is not at most 5"),
        ("integer", {"min": 5}, -BIG, "min", f"-{BIG} is not at least 5"),
        ("integer", {"multiple_of": 2}, 3, "multiple_of", "3 is not a multiple of 2"),
        ("string", {"min_length": 2}, "a", "min_length", "'a' has 1 characters, at least 2 needed"),
        ("string", {"max_length": 2}, "abc", "max_length", "'abc' has 3 characters, at most 2 all"),
        ("string", {"min_length": BIG}, "a", "min_length", f"'a' has 1 characters, at least {BIG}"),
        ("string", {"pattern": "a"}, "aa", "pattern", "'aa' does not match 'a' as a whole"),
        ("string", {"pattern": "(a)*"}, "\ud800", "pattern", r"'\ud800' does not match '(a)*'"),
        ("string", {"pattern": "a*"}, "a" * 10_001, "pattern", "'aaa"),
        ("boolean", {"choices": [True]}, False, "choices", "False is not among [True]"),
        ("bytes", {"max_length": 1}, b"ab", "max_length", "b'ab' has 2 bytes, at most 1 allowed"),
        ("choice", {"choices": ["a"]}, "b", "choices", "'b' is not among ['a']"),
        ("choice", {"enum": ["a"]}, "b", "enum", "'b' is not among ['a'] (constraint enum)"),
        ("module", {"allowed_modules": ["A"]}, "B", "allowed_modules", "'B' is not among ['A']"),
        ("list", {"min_length": 1}, [], "min_length", "[] has 0 items, at least 1 needed"),
        (
            "list",
            {"unique": True},
            [1, 2, 1],
            "unique",
            "[1, 2, 1] has the same item at [0] and [2]",
        ),
        (
            "list",
            {"unique": True},
            [[math.nan], [math.nan]],
            "unique",
            "[[nan], [nan]] has the same",
        ),
        ("map", {"max_length": 0}, {1: 2}, "max_length", "{1: 2} has 1 keys, at most 0 allowed"),
        (
            "embedding",
            {"dimensions": 2},
            np.zeros(3),
            "dimensions",
            "an array of shape (3,) and dt",
        ),
        (
            "embedding",
            {"dtype": "float32"},
            np.zeros(3),
            "dtype",
            "an array of shape (3,) and dtyp",
        ),
        (
            "embedding",
            {"unique": True},
            np.zeros(2),
            "unique",
            "an array of shape (2,) and dtype f",
        ),
        (
            "tensor",
            {"dtype": "float32"},
            np.zeros(1, ">f4"),
            "dtype",
            "an array of shape (1,) and ",
        ),
        ("tensor", {"shape": [None, 3]}, np.zeros((3, 2)), "shape", "an array of shape (3, 2)"),
        ("tensor", {"shape": [None]}, np.zeros((3, 2)), "shape", "an array of shape (3, 2)"),
        ("tensor", {"shape": [2, 3]}, np.zeros(2), "shape", "an array of shape (2,)"),
    ],
)
def test_violated(make, kind, constraints, value, name, message):
    normal = validate_constraints(kind, constraints)
    with pytest.raises(ConstraintViolation, match=f"^{re.escape(message)}") as caught:
        make(kind, constraints).prepare(value)
    error = caught.value
    assert (error.variable, error.constraint) == (None, name)
    assert error.limit == normal[name]
    assert error.value is value
    assert len(str(error)) < 250


def test_numbers_that_cannot_be_written_down(make):
    with pytest.raises(ConstraintViolation, match="an int of 16613 bits is not at most an int of"):
        make("integer", {"max": 10**5000}).prepare(10**5001)


@pytest.mark.parametrize(
    ("kind", "constraints", "value"),
    [
        ("float", {"min": 0}, "1"),
        ("float", {"min": 0}, None),
        ("integer", {"min": 0}, True),
        ("integer", None, 1.5),
        ("string", {"max_length": 3}, b"a"),
        ("boolean", None, 1),
        ("list", {"nullable": False}, None),
    ],
)
def test_wrong_type(make, kind, constraints, value):
    with pytest.raises(VariableTypeError, match=f"is no {kind}$") as caught:
        make(kind, constraints).prepare(value)
    assert caught.value.variable is None
    assert caught.value.value is value


@pytest.mark.parametrize(
    ("constraints", "value", "error", "text"),
    [
        ({}, "x", VariableTypeError, "variable 'step': 'x' (type str) is no float"),
        ({"max": 1}, 2.0, ConstraintViolation, "variable 'step': 2.0 is not at most 1.0 (cons"),
    ],
)
def test_the_error_names_the_variable(make, constraints, value, error, text):
    with pytest.raises(error, match=re.escape(text)) as caught:
        make("float", constraints, "step").prepare(value)
    assert caught.value.variable == "step"


def test_an_item_that_cannot_be_stored(make):
    with pytest.raises(CodecError) as caught:
        make("list", {"unique": True}).prepare([1, {"a": object()}])
    assert caught.value.path == "value[1]['a']"


# By chance: against predicates of their own, and twin against twin.

NUMBERS = st.integers(-20, 20) | st.sampled_from([2**63 - 1, 2**63, -(2**63), BIG, -BIG])
FLOATS = st.floats() | st.integers(-20, 20).map(lambda n: n / 4)
PREDICATES: dict[str, Any] = {
    "min": lambda value, limit: value >= limit,
    "max": lambda value, limit: not value > limit and value == value,
    "multiple_of": lambda value, limit: (
        value in (0, limit) or (abs(value) != math.inf and Fraction(value) % Fraction(limit) == 0)
    ),
    "min_length": lambda value, limit: len(value) >= limit,
    "max_length": lambda value, limit: len(value) <= limit,
    "pattern": lambda value, limit: set(value) <= set("ab"),
    "choices": lambda value, limit: any(value == choice for choice in limit),
    "dimensions": lambda value, limit: value.shape == (limit,),
    "dtype": lambda value, limit: value.dtype.name == limit,
    "shape": lambda value, limit: (
        len(value.shape) == len(limit)
        and all(wanted in (None, size) for wanted, size in zip(limit, value.shape, strict=True))
    ),
    "unique": lambda value, limit: len({repr(item) for item in value}) == len(value),
}
CONSTRAINTS = {
    "integer": {
        "min": NUMBERS,
        "max": NUMBERS,
        "multiple_of": st.integers(1, 4),
        "choices": st.lists(NUMBERS, min_size=1, max_size=3),
    },
    # Powers of two, so that written and stored numbers are the same.
    "float": {"min": FLOATS, "max": FLOATS, "multiple_of": st.sampled_from([0.25, 0.5, 2.0])},
    "string": {
        "min_length": st.integers(0, 4),
        "max_length": st.integers(0, 4) | st.just(BIG),
        "pattern": st.just("[ab]*"),
    },
    "list": {"min_length": st.integers(0, 3), "unique": st.just(True)},
    "embedding": {
        "dimensions": st.integers(0, 3),
        "dtype": st.sampled_from(["float32", "float64"]),
    },
    "tensor": {"shape": st.lists(st.none() | st.integers(0, 2), max_size=2)},
}
VALUES = {
    "integer": NUMBERS | st.sampled_from([True, 1.0, 1.5, None, np.int64(4)]),
    "float": FLOATS | NUMBERS | st.sampled_from([False, "1", None, np.float32(0.5)]),
    "string": st.text("ab", max_size=5) | st.text(max_size=3) | st.sampled_from([None, b"a"]),
    "list": st.lists(st.integers(0, 4) | st.booleans(), max_size=4) | st.just((1,)),
    "embedding": st.lists(st.floats() | st.integers(0, 9) | st.booleans(), max_size=3),
    "tensor": st.lists(st.integers(0, 2), max_size=2).map(np.zeros),
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, dict[str, Any], Any]:
    kind = draw(st.sampled_from(sorted(CONSTRAINTS)))
    constraints = draw(st.fixed_dictionaries({}, optional=CONSTRAINTS[kind]))
    if draw(st.booleans()):
        constraints["nullable"] = True
    return kind, constraints, draw(VALUES[kind])


def outcome(twin: type[PyValidator], kind: str, constraints: dict[str, Any], value: Any) -> Any:
    try:
        return twin(kind, constraints, "x").prepare(value)
    except (VariableTypeError, ConstraintViolation) as error:
        return error


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(cases())
def test_what_passes_obeys_every_constraint_and_the_rest_breaks_the_one_named(case):
    kind, given, value = case
    try:
        constraints = validate_constraints(kind, given)
    except ValueError:
        return
    results = [outcome(validator_of(twin), kind, constraints, value) for twin in TWINS_HERE]
    result = results[0]
    for other in results[1:]:
        assert type(other) is type(result)
        if isinstance(result, Exception):
            assert str(other) == str(result)
            assert other.__dict__.keys() == result.__dict__.keys()
        else:
            assert same(other, result)
    if isinstance(result, ConstraintViolation):
        assert result.variable == "x"
        assert not PREDICATES[result.constraint](result.value, constraints[result.constraint])
    elif not isinstance(result, Exception) and result is not None:
        broken = [
            name
            for name, limit in constraints.items()
            if name != "nullable" and not PREDICATES[name](result, limit)
        ]
        assert broken == []
    elif result is None:
        assert constraints["nullable"]


TWINS_HERE = [twin for twin in TWINS if twin == "python" or _accel.speedups is not None]
