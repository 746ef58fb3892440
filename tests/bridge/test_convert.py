"""Values on the wire: what is written for each, what is read, and what is refused."""

from __future__ import annotations

import datetime as dt
import json
import math
import pickle
import zoneinfo
from typing import Any

import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit_mp.bridge import json_values
from snakepit_mp.bridge.convert import LOSSLESS, decode, encode, is_lossless
from snakepit_mp.errors import CodecError
from snakepit_mp.values import codec

HOST = "type.googleapis.com/snakepit."
NAIVE = dt.datetime.fromisoformat("2026-01-02T03:04:05.000006")


def message(type_url: str, value: Any) -> AnyMessage:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return AnyMessage(type_url=type_url, value=data)


def header(**changes: Any) -> dict[str, Any]:
    plain = {"shape": [2], "dtype": "float32", "binary_format": "numpy", "type": "tensor"}
    return {**plain, **changes}


def assert_same(got: Any, expected: Any) -> None:
    assert type(got) is type(expected)
    if isinstance(expected, np.ndarray):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(got, expected)
    else:
        assert got == expected or (got != got and expected != expected)


# Writing.


@pytest.mark.parametrize(
    ("value", "type_", "text"),
    [
        (None, "any", "null"),
        (True, "boolean", "true"),
        (7, "integer", "7"),
        (2**80, "integer", str(2**80)),
        (np.int8(7), "integer", "7"),
        (np.True_, "boolean", "true"),
        (7.0, "float", "7.0"),
        (np.float32(0.5), "float", "0.5"),
        (math.nan, "float", '"NaN"'),
        (math.inf, "float", '"Infinity"'),
        (-math.inf, "float", '"-Infinity"'),
        ("häß", "string", '"häß"'),
        ([1, (2.5, None)], "list", "[1, [2.5, null]]"),
        ((), "list", "[]"),
        ({"a": {"b": [math.inf]}}, "map", '{"a": {"b": ["Infinity"]}}'),
        (np.arange(4).reshape(2, 2), "tensor", '{"shape": [2, 2], "data": [0, 1, 2, 3]}'),
        (np.array(1.5), "tensor", '{"shape": [], "data": [1.5]}'),
        (np.array([True]), "tensor", '{"shape": [1], "data": [true]}'),
        (np.array([np.nan]), "tensor", '{"shape": [1], "data": ["NaN"]}'),
        ([np.array([1])], "list", '[{"shape": [1], "data": [1]}]'),
        (NAIVE, "datetime", '"2026-01-02T03:04:05.000006"'),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "datetime", '"2026-01-02T00:00:00+00:00"'),
    ],
)
def test_json_forms(value: Any, type_: str, text: str) -> None:
    encoded = encode(value)
    assert encoded.any.type_url == HOST + type_
    assert encoded.any.value.decode() == text
    assert encoded.binary == b""


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -(2**70), 0.1, -0.0, math.nan, math.inf, -math.inf),
        *("", "é\0", b"\xff\0", [], [1, 2.0, "x", None, [True]], {}, {"k": {"l": [1]}}),
        *(np.arange(6).reshape(2, 3), np.array([]), np.zeros((0, 3)), np.array(2.5)),
        *(np.array([True, False]), np.array([2**63], np.uint64), np.array([np.inf, np.nan])),
    ],
    ids=repr,
)
def test_there_and_back(value: Any) -> None:
    encoded = encode(value)
    assert not is_lossless(encoded.any)
    assert_same(decode(encoded.any, encoded.binary), value)


@pytest.mark.parametrize(
    ("value", "type_", "wire_type", "text"),
    [
        ("a", "choice", "choice", '"a"'),
        ("a", "module", "module", '"a"'),
        ("a", "any", "string", '"a"'),
        (np.array([1, np.inf], "f4"), "embedding", "embedding", '[1.0, "Infinity"]'),
        (np.array([1.0]), "any", "tensor", '{"shape": [1], "data": [1.0]}'),
        ([1.0], "list", "list", "[1.0]"),
        (None, "choice", "any", "null"),
        (None, "embedding", "any", "null"),
    ],
)
def test_values_of_variables(value: Any, type_: str, wire_type: str, text: str) -> None:
    encoded = encode(value, type_)
    assert encoded.any.type_url == HOST + wire_type
    assert encoded.any.value.decode() == text
    assert encoded.binary == b""


@pytest.mark.parametrize(
    "moment",
    [
        NAIVE.replace(fold=1),
        dt.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
        dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
    ],
)
def test_moments_of_which_a_text_does_not_tell_all(moment: dt.datetime) -> None:
    with pytest.raises(json_values.NotJsonError):
        json_values.form(moment)


def test_large_embeddings_travel_as_bytes() -> None:
    vector = np.arange(3000, dtype="f4")
    encoded = encode(vector, "embedding")
    assert encoded.any.type_url == HOST + "embedding.binary"
    assert json.loads(encoded.any.value) == header(shape=[3000], type="embedding")
    assert_same(decode(encoded.any, encoded.binary), vector)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(2000.0),
        np.arange(4000, dtype=">i4").reshape(40, 100),
        np.asfortranarray(np.arange(10_000, dtype=np.float16).reshape(100, 100)),
        np.arange(6000)[::2],
        np.ones((3, 10_000), bool),
        np.array([1 + 2j], np.complex64),
    ],
    ids=lambda array: f"{array.dtype.str}{list(array.shape)}",
)
def test_large_tensors_travel_as_bytes(array: np.ndarray[Any, Any]) -> None:
    encoded = encode(array)
    assert encoded.any.type_url == HOST + "tensor.binary"
    assert json.loads(encoded.any.value) == {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "binary_format": "numpy",
        "type": "tensor",
    }
    little = array.dtype.newbyteorder("<")
    assert encoded.binary == array.astype(little).tobytes()
    assert_same(decode(encoded.any, encoded.binary), array.astype(little))


def test_the_limit_of_json_tensors() -> None:
    assert encode(np.zeros(1280)).any.type_url == HOST + "tensor"
    assert encode(np.zeros(1281)).any.type_url == HOST + "tensor.binary"
    assert encode(np.zeros(1281), sibling=False).any.type_url == HOST + "tensor"


def test_bytes_travel_beside() -> None:
    encoded = encode(b"\x00\xff")
    assert encoded.any.type_url == HOST + "bytes.binary"
    assert json.loads(encoded.any.value) == {"binary_format": "raw", "type": "bytes"}
    assert encoded.binary == b"\x00\xff"


@pytest.mark.parametrize(
    "value",
    [
        {1: "a"},
        [b"x"],
        [np.complex128(1j)],
        "\ud800",
        [10**5000],
        np.array(["a"]),
        np.array(["2020-01-01"], "M8[D]"),
        [np.datetime64(1, "ns")],
    ],
)
def test_what_json_cannot_say_is_sent_lossless(value: Any) -> None:
    assert encode(value).any == AnyMessage(type_url=LOSSLESS, value=codec.encode(value))


def test_no_sibling_field_for_bytes() -> None:
    assert is_lossless(encode(b"x", sibling=False).any)


@pytest.mark.parametrize("value", [1, (1, "a"), {3: b"x"}, np.arange(3000.0)], ids=repr)
def test_lossless_there_and_back(value: Any) -> None:
    encoded = encode(value, lossless=True)
    assert is_lossless(encoded.any)
    assert encoded.binary == b""
    assert_same(decode(encoded.any), value)


@pytest.mark.parametrize("value", [object(), {object()}, print, np.longdouble(1)])
def test_what_has_no_form_at_all(value: Any) -> None:
    with pytest.raises(CodecError):
        encode(value)


def test_cycles_and_depth() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CodecError):
        encode(endless)


# Reading.


@pytest.mark.parametrize(
    ("type_url", "value", "expected"),
    [
        (HOST + "float", 3, 3.0),
        (HOST + "float", "-Infinity", -math.inf),
        (HOST + "float", b"NaN", math.nan),
        (HOST + "integer", 3.0, 3),
        (HOST + "choice", "a", "a"),
        (HOST + "module", "m", "m"),
        (HOST + "datetime", "2026-01-02 03:04Z", dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)),
        (HOST + "embedding", [1, 2.5, "NaN"], [1.0, 2.5, math.nan]),
        (HOST + "any", {"a": [1]}, {"a": [1]}),
        (HOST + "string", "NaN", "NaN"),
        ("prefix/integer", 5, 5),
        ("elsewhere.org/snakepit.boolean", True, True),
        ("type.googleapis.com/google.protobuf.StringValue", {"a": 1}, {"a": 1}),
        ("type.googleapis.com/google.protobuf.StringValue", 5, 5),
    ],
)
def test_accepted(type_url: str, value: Any, expected: Any) -> None:
    got = decode(message(type_url, value))
    if isinstance(expected, list):
        np.testing.assert_array_equal(got, expected)
    else:
        assert_same(got, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"shape": [2, 2], "data": [[1, 2], [3, 4]]}, np.array([[1, 2], [3, 4]])),
        ({"shape": [2], "data": [1, 2.5]}, np.array([1.0, 2.5])),
        ({"shape": [2], "data": [1, "NaN"]}, np.array([1.0, np.nan])),
        ({"shape": [0], "data": []}, np.array([])),
    ],
)
def test_tensors_as_json(value: Any, expected: np.ndarray[Any, Any]) -> None:
    assert_same(decode(message(HOST + "tensor", value)), expected)


def test_embedding_as_bytes() -> None:
    data = np.array([1.5, 2.5], "<f4").tobytes()
    got = decode(message(HOST + "embedding.binary", header(type="embedding")), data)
    assert_same(got, np.array([1.5, 2.5], np.float32))


@pytest.mark.parametrize(
    ("type_url", "value", "complaint"),
    [
        ("", 1, "missing"),
        ("float", 1, "type URL"),
        ("type.googleapis.com/", 1, "type URL"),
        (HOST + "matrix", 1, "type URL"),
        ("x/" + "y" * 10_000, 1, "type URL"),
        (HOST + "integer", b"{", "not JSON"),
        (HOST + "integer", b"\xff", "not JSON"),
        (HOST + "integer", b"", "not JSON"),
        (HOST + "integer", b"1" * 5000, "not JSON"),
        (HOST + "list", b"[" * 200_000, "nested too deeply"),
        (HOST + "integer", True, "an integer"),
        (HOST + "integer", 1.5, "an integer"),
        (HOST + "integer", "1", "an integer"),
        (HOST + "float", True, "a number"),
        (HOST + "float", "inf", "a number"),
        (HOST + "float", 10**400, "too large"),
        (HOST + "boolean", 1, "a boolean"),
        (HOST + "string", 1, "a string"),
        (HOST + "string", None, "a string"),
        (HOST + "map", [], "an object"),
        (HOST + "list", {}, "an array"),
        (HOST + "datetime", "yesterday", "no date and time of ISO 8601"),
        (HOST + "datetime", 0, "a string"),
        (HOST + "embedding", [1, "x"], r"\[1\] must be a number"),
        (HOST + "tensor", [1, 2], '"shape" and "data"'),
        (HOST + "tensor", {"shape": [1]}, '"shape" and "data"'),
        (HOST + "tensor", {"shape": [3], "data": [1, 2]}, "2 elements"),
        (HOST + "tensor", {"shape": [2, 2], "data": [[1, 2, 3], [4]]}, "shape"),
        (HOST + "tensor", {"shape": [2], "data": [[1], [2]]}, "deeper"),
        (HOST + "tensor", {"shape": [2, 1], "data": [[1], 2]}, "shape"),
        (HOST + "tensor", {"shape": [-1], "data": [1]}, "shape"),
        (HOST + "tensor", {"shape": [True], "data": [1]}, "shape"),
        (HOST + "tensor", {"shape": 1, "data": [1]}, "shape"),
        (HOST + "tensor", {"shape": [1] * 40, "data": [1]}, "axes"),
        (HOST + "tensor", {"shape": [0, 2**62, 2**62], "data": []}, "no array"),
        (HOST + "tensor", {"shape": [2], "data": [1, True]}, "mixes"),
        (HOST + "tensor", {"shape": [1], "data": ["x"]}, "a number"),
        (HOST + "tensor", {"shape": [1], "data": [None]}, "a number"),
        (HOST + "tensor", {"shape": [1], "data": [2**64]}, "64 bits"),
        (HOST + "tensor", {"shape": [2], "data": [2**63, -1]}, "64 bits"),
        (LOSSLESS, b"", "cannot be decoded"),
        (LOSSLESS, b"\xff\xff", "cannot be decoded"),
        (LOSSLESS, codec.encode(object, allow_pickle=True), "cannot be decoded"),
    ],
)
def test_refused(type_url: str, value: Any, complaint: str) -> None:
    with pytest.raises(CodecError, match=complaint) as caught:
        decode(message(type_url, value), what="here")
    assert caught.value.path == "here" or str(caught.value.path).startswith("here")
    assert len(str(caught.value)) < 1_000


class Exploit:
    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize(
    ("type_", "given", "data", "complaint"),
    [
        ("tensor", header(binary_format="pickle"), pickle.dumps(Exploit()), "refused"),
        ("embedding", header(binary_format="pickle"), pickle.dumps([1.0]), "refused"),
        ("tensor", header(binary_format="erlang_binary"), b"", "numpy"),
        ("tensor", header(binary_format=None), b"", "numpy"),
        ("tensor", header(dtype="object"), b"\0" * 16, "dtype"),
        ("tensor", header(dtype="O"), b"\0" * 16, "dtype"),
        ("tensor", header(dtype="<M8[s]"), b"\0" * 16, "dtype"),
        ("tensor", header(dtype=["float32"]), b"\0" * 8, "dtype"),
        ("tensor", header(), b"\0" * 7, "7 bytes, but 8"),
        ("tensor", header(), b"", "0 bytes"),
        ("tensor", header(shape=[2**61, 8]), b"\0" * 8, "bytes"),
        ("tensor", header(shape=[0, 2**62, 2**62]), b"", "no array"),
        ("tensor", header(shape=None), b"", "shape"),
        ("tensor", header(dtype="bool"), b"\0\2", "neither 0 nor 1"),
        ("tensor", [], b"", "an object"),
        ("tensor", b"\xff", b"", "not JSON"),
        ("embedding", header(shape=[1, 2]), b"\0" * 8, "one axis"),
        ("embedding", header(dtype="bool"), b"\0\1", "one axis"),
        ("float", header(), b"\0" * 8, "type URL"),
        ("bytes", header(), b"\0" * 8, "type URL"),
    ],
)
def test_refused_beside(type_: str, given: Any, data: bytes, complaint: str) -> None:
    with pytest.raises(CodecError, match=complaint):
        decode(message(f"{HOST}{type_}.binary", given), data)


def test_bytes_beside_what_takes_none() -> None:
    with pytest.raises(CodecError, match="beside"):
        decode(message(HOST + "integer", 1), b"x")


def test_raw_elements_are_a_read_only_view() -> None:
    data = np.arange(2, dtype="<f4").tobytes()
    array = decode(message(HOST + "tensor.binary", header()), data)
    assert not array.flags.writeable
    assert not array.flags.owndata


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("NaN"),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["shape", "data"]), inner),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from([*json_values.TYPES, "tensor.binary", "embedding.binary", "bytes.binary"]),
    JSON.map(lambda value: json.dumps(value).encode()) | st.binary(),
    st.binary(),
)
def test_nothing_but_codec_errors(type_: str, value: bytes, beside: bytes) -> None:
    for binary in (b"", beside):
        try:
            got = decode(message(HOST + type_, value), binary)
        except CodecError:
            continue
        encode(got)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(-1, 4), max_size=3),
    st.sampled_from(["bool", "int8", "float32", "complex64", "object", "<f8"]),
    st.binary(max_size=64),
)
def test_arrays_are_never_larger_than_what_was_sent(
    shape: list[int], dtype: str, data: bytes
) -> None:
    given_header = header(shape=shape, dtype=dtype)
    try:
        array = decode(message(HOST + "tensor.binary", given_header), data)
    except CodecError:
        return
    assert array.nbytes == len(data)
    assert list(array.shape) == shape
