"""Random values and damaged bytes: the twins agree, whatever comes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from value_samples import SAMPLES, same

from snakepit_mp import _accel
from snakepit_mp.errors import CodecError
from snakepit_mp.values import codec

DTYPES = ["|b1", "|i1", ">u2", "<i4", "<f8", ">f4", "<c8", "<M8[ns]", "<m8[3D]", "|S3"]

floats = st.integers(0, (1 << 64) - 1).map(
    lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]
)
text = st.text(st.characters(exclude_categories=()), max_size=40)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-40, 100),
    st.integers(),
    st.integers(-(1 << 200), 1 << 200),
    floats,
    st.floats(),
    text,
    st.binary(max_size=40),
)


@st.composite
def arrays(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = int(np.prod(shape)) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype.kind == "b":
        raw = bytes(byte & 1 for byte in raw)
    array = np.ndarray(shape, dtype, raw, order=draw(st.sampled_from("CF")))
    return array[::-1] if array.ndim and draw(st.booleans()) else array


keys = st.one_of(scalars, st.tuples(scalars, scalars))
values = st.recursive(
    st.one_of(scalars, arrays()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=20),
        st.lists(inner, max_size=20).map(tuple),
        st.dictionaries(keys, inner, max_size=20),
    ),
    max_leaves=25,
)
fuzz = settings(max_examples=120, derandomize=True, database=None, deadline=None)


def expected(value):
    """What decoding gives: an array in no order comes back in C order."""
    if type(value) in (list, tuple):
        return type(value)(expected(item) for item in value)
    if type(value) is dict:
        return {key: expected(item) for key, item in value.items()}
    if type(value) is np.ndarray and not value.flags.forc:
        return value.copy(order="C")
    return value


def outcome(decode, data):
    """The value, or the words of the error; anything but a `CodecError` is a failure."""
    try:
        return decode(data)
    except CodecError as error:
        return type(error), str(error)


@pytest.fixture
def twins():
    if _accel.speedups is None:
        pytest.skip("there is no compiled twin in this run")
    return _accel.speedups


@fuzz
@given(value=values)
def test_round_trip_of_the_pure_twin(value):
    assert same(codec.py_decode(codec.py_encode(value)), expected(value))


@pytest.mark.usefixtures("twins")
class TestDifferential:
    @fuzz
    @given(value=values)
    def test_values(self, value):
        data = codec.py_encode(value)
        assert _accel.speedups.encode(value) == data
        assert same(_accel.speedups.decode(data), expected(value))

    @fuzz
    @given(
        value=values,
        changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3),
        end=st.none() | st.integers(0),
        tail=st.binary(max_size=3),
    )
    def test_damaged_values(self, value, changes, end, tail):
        data = bytearray(codec.py_encode(value))
        for place, byte in changes:
            data[1 + place % len(data[1:])] = byte
        damaged = bytes(data if end is None else data[: end % len(data)]) + tail
        assert same(outcome(codec.py_decode, damaged), outcome(_accel.speedups.decode, damaged))

    @fuzz
    @given(data=st.binary(max_size=60))
    def test_any_bytes(self, data):
        data = b"\x01" + data
        assert same(outcome(codec.py_decode, data), outcome(_accel.speedups.decode, data))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_byte_of_a_golden_value_replaced(codec_impl, name):
    """Each replacement gives another value or a `CodecError`, and the twins agree."""
    data = codec.py_encode(SAMPLES[name], allow_pickle=True)
    for place in range(1, min(len(data), 80)):
        for byte in (0x00, 0x0C, 0x0D, 0x40, 0x7F, 0xFF):
            damaged = data[:place] + bytes((byte,)) + data[place + 1 :]
            ours = outcome(codec_impl.decode, damaged)
            assert same(ours, outcome(codec.py_decode, damaged))
