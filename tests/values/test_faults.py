"""Arithmetic of limits; what each constraint says is tested with the validator."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from snakepit_mp.values import faults


@pytest.mark.parametrize(
    ("number", "meant"),
    [(0.1, Fraction(1, 10)), (1e22, Fraction(10**22)), (-3, Fraction(-3)), (5e-324, None)],
)
def test_numbers_are_meant_as_they_are_written(number, meant):
    assert faults.exact(number) == (Fraction(5, 10**324) if meant is None else meant)


@pytest.mark.parametrize(
    ("number", "infinite"),
    [(math.inf, True), (-math.inf, True), (math.nan, True), (1e308, False), (10**400, False)],
)
def test_what_is_infinite(number, infinite):
    assert faults.is_infinite(number) is infinite
