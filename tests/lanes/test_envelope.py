"""Frames: what goes in comes out, and what is no frame is refused."""

from __future__ import annotations

import os
import struct

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_mp.errors import CodecError, RemoteError
from snakepit_mp.lanes.envelope import (
    Call,
    Header,
    Kind,
    Reply,
    decode_call,
    decode_reply,
    encode_call,
    encode_end,
    encode_error,
    encode_function,
    encode_value,
    frame,
    header_of,
)

CALLS = [
    Call("tool"),
    Call("tool", args=(1, "two", b"3"), kwargs={"x": [1.5, None]}),
    Call("tool", kwargs={"x": 1}, session_id="user-1", streaming=True),
    Call(None, function=b"pickled", args=((),)),
]


@pytest.mark.parametrize("call", CALLS)
def test_call_there_and_back(call) -> None:
    data = frame(Kind.CALL, 7, 1, encode_call(call, allow_pickle=True))
    assert decode_call(data, allow_pickle=True) == call


@given(
    request_id=st.integers(0, 2**62 - 1),
    attempt=st.integers(1, 2**16 - 1),
    deadline=st.none() | st.floats(0, 1e12),
    kind=st.sampled_from(Kind),
)
def test_header_there_and_back(request_id, attempt, deadline, kind) -> None:
    data = frame(kind, request_id, attempt, b"body", deadline)
    assert header_of(data) == Header(kind, request_id, attempt, deadline)


def test_more_attempts_than_the_header_can_count() -> None:
    assert header_of(frame(Kind.CALL, 1, 100_000, b"")).attempt == 0xFFFF


def test_the_same_body_is_framed_for_each_attempt() -> None:
    body = encode_call(Call("tool", args=(1,)))
    first, second = frame(Kind.CALL, 7, 1, body), frame(Kind.CALL, 7, 2, body)
    assert decode_call(first) == decode_call(second)
    assert (header_of(first).attempt, header_of(second).attempt) == (1, 2)


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (Call("tool", kwargs={"rows": [1, 2, 3, object()]}), "args['rows'][3]"),
        (Call("tool", args=(1, [object()])), "args[1][0]"),
    ],
)
def test_an_argument_that_cannot_be_encoded_is_named(call, path) -> None:
    with pytest.raises(CodecError) as caught:
        encode_call(call, allow_pickle=False)
    assert caught.value.path == path


def test_arrays_travel() -> None:
    call = Call("tool", kwargs={"x": np.arange(6.0).reshape(2, 3)})
    again = decode_call(frame(Kind.CALL, 1, 1, encode_call(call)))
    np.testing.assert_array_equal(again.kwargs["x"], call.kwargs["x"])


def test_a_callable_travels() -> None:
    offset = 3
    data = encode_function(lambda x: x + offset)
    assert cloudpickle.loads(data)(4) == 7


class CannotBePickled:
    def __reduce__(self):
        raise RuntimeError("never")


def test_a_callable_that_cannot_be_sent() -> None:
    captured = CannotBePickled()
    with pytest.raises(CodecError, match="never") as caught:
        encode_function(lambda: captured)
    assert caught.value.path == "command"
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_callables_need_pickle_on_both_sides() -> None:
    call = Call(None, function=b"pickled")
    with pytest.raises(CodecError, match="make it a @tool"):
        encode_call(call, allow_pickle=False)
    data = frame(Kind.CALL, 1, 1, encode_call(call, allow_pickle=True))
    with pytest.raises(CodecError, match="where pickle is allowed"):
        decode_call(data, allow_pickle=False)


@pytest.mark.parametrize("value", [None, 3, "x", [1, (2.5, b"3")], {"a": {"b": 1}}])
def test_value_and_item_there_and_back(value) -> None:
    assert decode_reply(encode_value(7, value)) == Reply(Kind.VALUE, 7, value)
    assert decode_reply(encode_value(7, value, kind=Kind.ITEM)) == Reply(Kind.ITEM, 7, value)


def test_end() -> None:
    assert decode_reply(encode_end(7)) == Reply(Kind.END, 7)


def test_error_there_and_back() -> None:
    reply = decode_reply(encode_error(7, KeyError("k")))
    assert (reply.kind, reply.request_id, reply.value) == (Kind.ERROR, 7, None)
    assert type(reply.error) is KeyError


class TextWithoutEnd(Exception):
    """Its notes cannot be encoded: each is nested too deeply for any codec."""


def test_an_error_that_cannot_be_encoded_is_told_in_text(monkeypatch) -> None:
    nested: list[object] = []
    for _ in range(10_000):
        nested = [nested]
    monkeypatch.setattr(
        "snakepit_mp.lanes.envelope.describe",
        lambda error, allow_pickle: {
            "type": "T", "message": "m", "traceback": "tb", "members": nested
        },
    )  # fmt: skip
    error = decode_reply(encode_error(7, TextWithoutEnd())).error
    assert isinstance(error, RemoteError)
    assert (error.type_name, error.message, error.traceback) == ("T", "m", "tb")


def test_a_result_that_cannot_be_encoded_is_named() -> None:
    with pytest.raises(CodecError) as caught:
        encode_value(7, {"a": [object()]}, allow_pickle=False)
    assert caught.value.path == "result['a'][0]"


class RaisesWhenUnpickled:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self):
        return raise_it, (type(self.error), self.error.args)


def raise_it(cls, args):
    raise cls(*args)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit(4)


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), SystemExit(3), GeneratorExit(), Unprintable()],
    ids=lambda error: type(error).__name__,
)
def test_a_result_that_cannot_be_decoded_cannot_harm_the_host(error) -> None:
    data = encode_value(7, RaisesWhenUnpickled(error), allow_pickle=True)
    with pytest.raises(CodecError, match=r"cannot be (decoded|loaded)") as caught:
        decode_reply(data, allow_pickle=True)
    assert caught.value.path == "result"
    cause: BaseException | None = caught.value.__cause__
    while cause is not None and type(cause) is not type(error):
        cause = cause.__cause__ or cause.__context__
    assert type(cause) is type(error), "the chain of causes leads to what was raised"


def test_a_ctrl_c_while_a_result_is_decoded_is_not_mistaken_for_the_results_fault() -> None:
    data = encode_value(7, RaisesWhenUnpickled(KeyboardInterrupt()), allow_pickle=True)
    with pytest.raises(KeyboardInterrupt):
        decode_reply(data, allow_pickle=True)


def test_what_cannot_be_decoded_is_told_once() -> None:
    data = encode_value(7, RaisesWhenUnpickled(ValueError("x")), allow_pickle=True)
    with pytest.raises(CodecError, match="the pickle cannot be loaded: ValueError: x") as caught:
        decode_reply(data, allow_pickle=True)
    assert str(caught.value).startswith("cannot decode byte")
    assert "CodecError" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)
    assert not isinstance(caught.value.__cause__, CodecError)


def test_a_pickled_result_where_pickle_is_not_allowed() -> None:
    data = encode_value(7, Call("x"), allow_pickle=True)
    with pytest.raises(CodecError):
        decode_reply(data, allow_pickle=False)


GOOD = frame(Kind.CALL, 7, 1, encode_call(Call("tool", args=(1,), kwargs={"x": "y"})))


@pytest.mark.parametrize("size", [0, 1, 23])
def test_too_short_for_a_header(size) -> None:
    with pytest.raises(CodecError, match="not a frame"):
        header_of(GOOD[:size])


def test_another_version_or_kind() -> None:
    with pytest.raises(CodecError, match="not a frame"):
        header_of(b"\x00" + GOOD[1:])
    with pytest.raises(CodecError, match="unknown kind of frame: 99"):
        header_of(GOOD[:1] + bytes([99]) + GOOD[2:])


@pytest.mark.parametrize("size", range(24, len(GOOD)))
def test_a_call_cut_anywhere(size) -> None:
    with pytest.raises(CodecError):
        decode_call(GOOD[:size])


def test_a_call_with_absurd_lengths() -> None:
    with pytest.raises(CodecError, match="too short"):
        decode_call(GOOD[:24] + struct.pack("<QQ", 2**63, 2**63) + GOOD[40:])


@given(st.binary(max_size=64))
def test_noise_as_a_reply(noise) -> None:
    data = frame(Kind.ERROR, 1, 0, noise)
    with pytest.raises(CodecError):
        decode_reply(data)


def test_noise_does_not_get_far() -> None:
    with pytest.raises(CodecError):
        decode_reply(os.urandom(10))
