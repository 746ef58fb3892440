"""Values in messages are short, and showing them does no harm."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from snakepit_mp.values.shown import shorten


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


ImpostorInt = type("int", (), {"__repr__": lambda self: "an impostor"})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (-1.5, "-1.5"),
        ("a'b", '"a\'b"'),
        ([1, ["x"], {"k": b"v"}], "[1, ['x'], {'k': b'v'}]"),
        (dt.date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
        (np.zeros((2, 3), "f4"), "an array of shape (2, 3) and dtype float32"),
        ([np.zeros(2)], "[an array of shape (2,) and dtype float64]"),
        (1 << 159, str(1 << 159)),
        (1 << 200, "an int of 201 bits"),
        (-(10**5000), "an int of 16610 bits"),
        (ImpostorInt(), "an impostor"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        (bytearray(b"ab"), "bytearray(b'ab')"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_shown(value, shown):
    assert shorten(value) == shown


def test_a_class_that_cannot_be_shown():
    assert "Broken" in shorten(Broken())


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, b"x" * 10**6, bytearray(10**6), ["x" * 100] * 10, {"x" * 99: 1}, range(10**60)],
    ids=lambda value: type(value).__name__,
)
def test_what_is_long_is_cut(value):
    shown = shorten(value)
    assert len(shown) == 63
    assert shown.endswith("...")
    assert repr(value)[:20] == shown[:20]
