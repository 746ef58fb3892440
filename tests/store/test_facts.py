"""A value is checked and encoded against type and constraints."""

from __future__ import annotations

import pytest

from snakepit_mp.errors import (
    CodecError,
    ConstraintError,
    ConstraintViolation,
    VariableTypeError,
)
from snakepit_mp.store.facts import Facts
from snakepit_mp.values.codec import decode


def test_the_type_is_inferred_where_none_is_given() -> None:
    assert Facts.given("x", None, 1.5, None, None).type == "float"
    assert Facts.given("x", int, 1, None, None).type == "integer"


def test_a_value_is_brought_into_normal_form() -> None:
    assert repr(decode(Facts.given("x", "float", 1, None, None).prepare(1))) == "1.0"


@pytest.mark.parametrize(
    ("facts", "value", "error"),
    [
        (Facts("x", "float", {"max": 1.0}, {}), 2.0, ConstraintViolation),
        (Facts("x", "integer", {}, {}), "2", VariableTypeError),
        (Facts("x", "any", {}, {}), object(), CodecError),
        (Facts("x", "any", {}, {}), [1, {2: object()}], CodecError),
    ],
)
def test_what_does_not_fit_is_refused(facts: Facts, value: object, error: type) -> None:
    with pytest.raises(error):
        facts.prepare(value)


def test_a_wrong_constraint_set_is_refused() -> None:
    with pytest.raises(ConstraintError):
        Facts.given("x", "float", 1.0, {"min": 2, "max": 1}, None)


def test_other_constraints_keep_the_rest() -> None:
    facts = Facts("x", "float", {"min": 0.0}, {"unit": "K"}, (3, 4)).under({"max": 5})
    assert facts == Facts("x", "float", {"max": 5.0}, {"unit": "K"}, (3, 4))


def test_only_facts_that_say_something_take_room() -> None:
    assert Facts("x", "float", {}, {}).encoded() == b""
    assert decode(Facts("x", "float", {"min": 0.0}, {"a": 1}).encoded()) == ({"min": 0.0}, {"a": 1})
