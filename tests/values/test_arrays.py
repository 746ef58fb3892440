"""Arrays and NumPy scalars: kept exactly, and damaged ones refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from value_samples import same

from snakepit_mp.errors import CodecError
from snakepit_mp.values import arrays

STRUCTURED = [
    np.dtype("i4,f8"),
    np.dtype("i1,>f8", align=True),
    np.dtype({"names": ["b", "a"], "formats": ["<i4", "|S3"], "offsets": [8, 0], "itemsize": 20}),
    np.dtype([(("a title", "a"), "<U2"), ("b\xe9", "<M8[ns]", (2, 3))]),
    np.dtype([("inner", [("x", "?"), ("y", [("z", "<c16")])], 2)]),
    np.dtype([("nothing", "<f8", 0)]),
    np.dtype([("", "<f8")]),
]
PLAIN = [
    *("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"),
    *("S5", "U5", "M8", "M8[s]", "M8[25us]", "m8[D]", "m8"),
]


def array_bytes(dtype=b"<f8", shape=(1,), order=0, padding=0, payload=b"\0" * 8, ndim=None):
    """An array's encoding, made by hand."""
    ndim = len(shape) if ndim is None else ndim
    head = struct.pack("<BBBBH", 0x0C, order, ndim, padding, len(dtype))
    return b"\x01" + head + dtype + struct.pack(f"<{len(shape)}Q", *shape) + payload


def scalar_bytes(dtype, payload):
    head = struct.pack("<BH", 0x0D, len(dtype)) + dtype
    return b"\x01" + head + struct.pack("<I", len(payload)) + payload


def round_trip(codec_impl, value):
    return codec_impl.decode(codec_impl.encode(value))


@pytest.mark.parametrize("dtype", PLAIN)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_plain_dtype(codec_impl, dtype, order):
    dtype = np.dtype(dtype).newbyteorder(order)
    for shape in ((), (0,), (3,), (2, 3), (2, 0, 3)):
        value = np.zeros(shape, dtype)
        assert same(round_trip(codec_impl, value), value)


@pytest.mark.parametrize("dtype", STRUCTURED, ids=str)
def test_structured_dtype(codec_impl, dtype):
    for shape in ((), (0,), (3,), (2, 3)):
        value = np.zeros(shape, dtype)
        result = round_trip(codec_impl, value)
        assert same(result, value)
        assert result.dtype.isalignedstruct == dtype.isalignedstruct
        assert result.dtype.fields == dtype.fields
    assert same(round_trip(codec_impl, value[0, 0]), value[0, 0])


def test_structured_dtype_too_long_to_name(codec_impl):
    dtype = np.dtype([(f"a field of number {index}", "<f8") for index in range(3000)])
    with pytest.raises(CodecError, match=r"there is no encoding for type numpy\.ndarray"):
        codec_impl.encode(np.zeros(1, dtype))


def test_structured_dtype_with_metadata_inside(codec_impl):
    dtype = np.dtype([("a", np.dtype("f8", metadata={"unit": "m"}), (2,))])
    with pytest.raises(CodecError, match=r"there is no encoding for type numpy\.ndarray"):
        codec_impl.encode(np.zeros(1, dtype))


def test_structured_dtype_nested_too_deeply(codec_impl):
    dtype = np.dtype("f8")
    for _ in range(20):
        dtype = np.dtype([("a", dtype)])
    with pytest.raises(CodecError, match="there is no encoding"):
        codec_impl.encode(np.zeros(1, dtype))


def test_structured_scalar_is_no_view_of_the_message(codec_impl):
    value = round_trip(codec_impl, np.zeros(2, "i4,f8")[0])
    value["f0"] = 3
    assert value["f0"] == 3


FIELD = b'{"size":4,"aligned":false,"fields":[["a",%s,0]]}'


@pytest.mark.parametrize(
    "name",
    [
        b"{",
        b"{}",
        b'{"size":8}',
        FIELD % b'"O"',
        FIELD % b'"<f8"',
        FIELD % b"3",
        FIELD % b"null",
        FIELD % b"[]",
        FIELD % b'["<f4",-1]',
        FIELD % b'["<f4","x"]',
        FIELD % b'["<f4",999999999999999]',
        FIELD % (b"[" * 5000 + b"]" * 5000),
        FIELD % (b"[" * 20 + b'"<f4"' + b"]" * 20),
        b'{"size":8,"aligned":false,"fields":[["a","<f4",-4]]}',
        b'{"size":1e99,"aligned":false,"fields":[["a","<f4",0]]}',
        b'{"size":8,"aligned":false,"fields":[["a","<f4",0],["a","<f4",4]]}',
        b'{"size":8,"aligned":false,"fields":5}',
    ],
)
def test_structured_dtype_that_is_none(codec_impl, name):
    with pytest.raises(CodecError, match="the dtype is not a plain one"):
        codec_impl.decode(array_bytes(dtype=name, shape=(0,)))


def test_damage_in_a_field(codec_impl):
    value = np.zeros(2, [("a", "<i4"), ("b", [("c", "?"), ("d", ">U2")])])
    data = codec_impl.encode(value)
    assert codec_impl.decode(data).tolist() == value.tolist()
    with pytest.raises(CodecError, match="a bool is neither 0 nor 1"):
        codec_impl.decode(data[:-9] + b"\2" + data[-8:])
    with pytest.raises(CodecError, match="a character is beyond Unicode"):
        codec_impl.decode(data[:-3] + b"\x7f" + data[-2:])


@pytest.mark.parametrize("dtype", PLAIN)
def test_every_plain_scalar(codec_impl, dtype):
    value = np.ones((), "i8").astype(dtype)[()]
    assert same(round_trip(codec_impl, value), value)


def test_fortran_order_is_kept(codec_impl):
    value = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    result = round_trip(codec_impl, value)
    assert result.flags.f_contiguous
    assert same(result, value)


@pytest.mark.parametrize(
    "view",
    [
        np.arange(10.0)[::2],
        np.arange(10.0)[::-1],
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
        np.arange(6.0)[::2][:1],
        np.broadcast_to(np.float32(1), (3, 2)),
        np.zeros((4, 0, 6))[::2, :, ::3],
        np.array(["ab", "cd", "ef"])[::2],
    ],
)
def test_what_is_in_no_order_becomes_contiguous(codec_impl, view):
    result = round_trip(codec_impl, view)
    assert result.flags.forc
    assert result.dtype == view.dtype
    assert result.shape == view.shape
    assert (result == view).all()


def test_most_axes_that_numpy_has(codec_impl):
    value = np.zeros((1,) * 32)
    assert round_trip(codec_impl, value).shape == value.shape


def test_array_as_part_of_a_key(codec_impl):
    value = {(np.int64(1), np.str_("x")): 1}
    (key,) = round_trip(codec_impl, value)
    assert same(key, (np.int64(1), np.str_("x")))


def test_damage_in_an_array_inside_a_list_is_found(codec_impl):
    data = bytearray(codec_impl.encode([1, np.zeros(2)]))
    data[data.index(b"<f8")] = ord("?")
    with pytest.raises(CodecError, match="byte 3: the dtype is not a plain one"):
        codec_impl.decode(data)


def test_an_array_at_an_odd_address_is_copied(codec_impl):
    """Only a foreign writer leaves the padding out."""
    result = codec_impl.decode(array_bytes(payload=struct.pack("<d", 2.5)))
    assert result.flags.aligned
    assert not result.flags.writeable
    assert result.tolist() == [2.5]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (array_bytes(order=2), "the head of an array is damaged"),
        (array_bytes(padding=64), "the head of an array is damaged"),
        (array_bytes(dtype=b"|O"), "the dtype is not a plain one"),
        (array_bytes(dtype=b"f8"), "the dtype is not a plain one"),
        (array_bytes(dtype=b"<f8,<f8"), "the dtype is not a plain one"),
        (array_bytes(dtype=b"<f16"), "the dtype is not a plain one"),
        (array_bytes(dtype=b"<f8\n"), "the dtype is not a plain one"),
        (array_bytes(dtype=b"<U0"), "the dtype is not a plain one"),
        (array_bytes(dtype=b"<U999999999", shape=(0,)), "the dtype is not a plain one"),
        (array_bytes(dtype=b"<M8[0s]"), "the dtype is not a plain one"),
        (array_bytes(dtype=b""), "the dtype is not a plain one"),
        (array_bytes(dtype=b"<f\xb2"), "the dtype is not a plain one"),
        (array_bytes(shape=(2,)), "it needs more bytes"),
        (array_bytes(shape=(1 << 61,)), "it needs more bytes"),
        (array_bytes(shape=(1 << 63, 1 << 63)), "it needs more bytes"),
        (array_bytes(ndim=200), "it needs more bytes"),
        (array_bytes(shape=(1 << 62, 0)), "no array has this shape"),
        (array_bytes(shape=(1 << 63, 0)), "no array has this shape"),
        (array_bytes(shape=(1,) * 65), "no array has this shape"),
        (array_bytes(dtype=b"|b1", payload=b"\2"), "a bool is neither 0 nor 1"),
        (array_bytes(dtype=b"<U1", payload=b"\0\0\x11\0"), "a character is beyond Unicode"),
        (array_bytes(dtype=b">U1", payload=b"\0\x11\0\0"), "a character is beyond Unicode"),
        (array_bytes()[:4], "it needs more bytes"),
        (scalar_bytes(b"<f8", b"1234"), "the scalar's dtype does not fit"),
        (scalar_bytes(b"|O", b"12345678"), "the scalar's dtype does not fit"),
        (scalar_bytes(b"|S2", b"ab"), "the scalar's dtype does not fit"),
        (scalar_bytes(b"|b1", b"\7"), "a bool is neither 0 nor 1"),
        (scalar_bytes(b"U", b"\xff"), "a str is not UTF-8"),
        (b"\x01\x0d", "it needs more bytes"),
        (scalar_bytes(b"<f8", b"12345678")[:-1], "it needs more bytes"),
    ],
)
def test_damage(codec_impl, data, message):
    with pytest.raises(CodecError) as caught:
        codec_impl.decode(data)
    assert str(caught.value).startswith(f"cannot decode byte 1: {message}")


@pytest.mark.parametrize("dtype", ["O", "V0", "i4,O", "g", "i4,V0"])
def test_other_dtypes_are_not_plain(dtype):
    assert not arrays.is_plain(np.dtype(dtype))


def test_parts_of_something_else():
    assert arrays.parts(3, 0) is None
