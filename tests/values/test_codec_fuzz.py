"""Random values and damaged bytes: the twins agree, whatever comes."""

from __future__ import annotations

import datetime as dt
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from value_samples import BERLIN, NEPAL, SAMPLES, Access, Celsius, Color, Model, Point, same

from snakepit_mp import _accel
from snakepit_mp.errors import CodecError
from snakepit_mp.values import codec

DTYPES = ["u1,>f8", "|b1", "|i1", ">u2", "<i4", "<f8", ">f4", "<c8", "<M8[ns]", "<m8[3D]", "|S3"]

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
zones = st.sampled_from([None, dt.UTC, BERLIN, NEPAL])
moments = st.builds(dt.datetime.replace, st.datetimes(), tzinfo=zones, fold=st.integers(0, 1))
named = st.one_of(
    st.complex_numbers(),
    st.binary(max_size=20).map(bytearray),
    moments,
    moments.map(dt.datetime.date),
    moments.map(dt.datetime.timetz),
    st.timedeltas(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.builds(range, st.integers(), st.integers(), st.integers(1)),
    st.sampled_from([*Color, *Access, Access.READ | Access.WRITE, BERLIN, NEPAL]),
    st.floats(allow_nan=False).map(Celsius),
)
numbers = st.one_of(
    *(
        st.lists(kind, min_size=14, max_size=40)
        for kind in (
            st.integers(-130, 130),
            st.integers(-(1 << 33), 1 << 33),
            st.integers(-(1 << 64), 1 << 64),
            floats,
            st.one_of(st.integers(0, 5), st.booleans()),
        )
    )
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
    st.one_of(scalars, arrays(), named, numbers, numbers.map(tuple)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=20),
        st.lists(inner, max_size=20).map(tuple),
        st.dictionaries(keys, inner, max_size=20),
        st.dictionaries(text, inner, min_size=6, max_size=20),
        st.frozensets(st.one_of(scalars, st.fractions()), max_size=8),
        st.sets(st.integers() | text, max_size=8),
        st.builds(slice, inner, inner),
        st.builds(Model, text, inner),
        st.builds(Point, inner, inner),
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
    if type(value) is slice:
        return slice(*map(expected, (value.start, value.stop, value.step)))
    if type(value) is Model:
        return Model(value.name, expected(value.weights))
    if type(value) is Point:
        return Point(expected(value.x), expected(value.y))
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


def damaged(data, chance):
    """The same bytes, not quite."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(1, len(data) + 1)
        end = min(len(data), place + chance.randint(1, 9))
        change = chance.randrange(5)
        if change == 0:
            data[place:end] = b""
        elif change == 1:
            data[place:place] = data[chance.randrange(len(data)) :][: chance.randint(1, 40)]
        elif change == 2:
            data[place:end] = bytes((chance.choice((0, 1, 0x7F, 0x80, 0xFF)),)) * (end - place)
        elif place < len(data):
            data[place] = chance.randrange(0x30) if change == 3 else chance.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - {"pickle"}))
def test_sample_damaged_by_chance(codec_impl, name):
    """A fixed number of cases with a fixed seed; the twins agree on each."""
    chance = random.Random(name)
    data = codec.py_encode([SAMPLES[name], {"key": SAMPLES[name]}])
    for _ in range(100):
        case = damaged(data, chance)
        assert same(outcome(codec_impl.decode, case), outcome(codec.py_decode, case))
