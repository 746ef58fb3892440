"""The parts of the format that both twins share."""

from __future__ import annotations

import pytest

from snakepit_mp.errors import CodecError
from snakepit_mp.values import wire


@pytest.mark.parametrize(
    ("number", "data"),
    [
        (0, "00000000"),
        (wire.LONG_COUNT - 1, "feffffff"),
        (wire.LONG_COUNT, "ffffffff ffffffff00000000"),
        (1 << 40, "ffffffff 0000000000010000"),
    ],
)
def test_count(number, data):
    assert wire.count(number) == bytes.fromhex(data)


@pytest.mark.parametrize("number", [0, 1, 200])
def test_read_count(number):
    data = b"??" + wire.count(number) + b"x" * 200
    assert wire.read_count(data, 2, 0) == (number, 6)


def test_read_long_count():
    data = b"\xff" * 4 + (3).to_bytes(8, "little") + b"abc"
    assert wire.read_count(data, 0, 0) == (3, 12)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_read_count_of_parts_that_do_not_fit(size):
    data = wire.count(5) + b"x" * (5 * size - 1)
    with pytest.raises(CodecError, match="byte 9:"):
        wire.read_count(data, 0, 9, size)


def test_type_label():
    assert wire.type_label(int) == "int"
    assert wire.type_label(CodecError) == "snakepit_mp.errors.CodecError"


def test_refusal_collects_steps_from_inside_out():
    refusal = wire.Refusal("no")
    refusal.steps += ["[3]", "['rows']"]
    error = refusal.as_error("args")
    assert error.path == "args['rows'][3]"
    assert str(error) == "cannot encode args['rows'][3]: no"
