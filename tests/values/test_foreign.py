"""Pickle: only where it is allowed, and its failures are the codec's errors."""

from __future__ import annotations

import collections
import enum
import pickle
import sys
import threading
from fractions import Fraction

import numpy as np
import pytest
from value_samples import same

from snakepit_mp.errors import CodecError


class Color(enum.IntEnum):
    RED = 1


class ExplodingWhenLoaded:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return _raise, (self.error,)


class ExplodingWhenPickled:
    def __reduce__(self):
        raise LookupError("not me")


class ExplodingAsKey:
    """Has a hash when it is written, none when it is read."""

    def __init__(self):
        self.whole = True

    def __hash__(self):
        if not self.__dict__:
            raise ZeroDivisionError
        return 1

    def __reduce__(self):
        return ExplodingAsKey.__new__, (ExplodingAsKey,)


def _raise(error):
    raise error


def pickled(payload):
    return b"\x01\x0e" + len(payload).to_bytes(4, "little") + payload


@pytest.mark.parametrize(
    "value",
    [
        Fraction(1, 3),
        Color.RED,
        collections.OrderedDict(b=1, a=2),
        collections.Counter("aab"),
        len,
    ],
    ids=lambda value: type(value).__name__,
)
def test_exact_type_comes_back(codec_impl, value):
    result = codec_impl.decode(codec_impl.encode([value], allow_pickle=True), allow_pickle=True)
    assert same(result, [value])


def test_without_numpy_nothing_is_an_array(codec_impl, monkeypatch):
    """A process that has not imported NumPy does not do so to find that out."""
    monkeypatch.delitem(sys.modules, "numpy")
    with pytest.raises(CodecError, match="there is no encoding for type object"):
        codec_impl.encode(object())
    assert "numpy" not in sys.modules


def test_object_array(codec_impl):
    value = np.array([1, "a", None], object)
    result = codec_impl.decode(codec_impl.encode(value, allow_pickle=True), allow_pickle=True)
    assert result.dtype == object
    assert result.tolist() == [1, "a", None]


def test_cloudpickle_takes_what_pickle_cannot(codec_impl):
    factor = 3
    data = codec_impl.encode(lambda x: x * factor, allow_pickle=True)
    assert codec_impl.decode(data, allow_pickle=True)(2) == 6


def test_reader_must_allow_it_too(codec_impl):
    data = codec_impl.encode([collections.OrderedDict(a=1)], allow_pickle=True)
    with pytest.raises(CodecError, match="byte 2: a pickle is not allowed here"):
        codec_impl.decode(data)


@pytest.mark.parametrize("value", [threading.Lock(), ExplodingWhenPickled()])
def test_unpicklable_value(codec_impl, value):
    with pytest.raises(CodecError, match=r"args\['a'\]: type .* cannot be pickled: ") as caught:
        codec_impl.encode({"a": value}, allow_pickle=True, root="args")
    assert caught.value.path == "args['a']"
    assert isinstance(caught.value.__cause__, (TypeError, pickle.PicklingError, LookupError))


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3)])
def test_failure_to_load(codec_impl, error):
    data = codec_impl.encode([ExplodingWhenLoaded(error)], allow_pickle=True)
    with pytest.raises(CodecError, match="the pickle cannot be loaded: ") as caught:
        codec_impl.decode(data, allow_pickle=True)
    assert type(caught.value.__cause__) is type(error)


def test_interrupt_while_loading_is_not_held_back(codec_impl):
    data = codec_impl.encode(ExplodingWhenLoaded(KeyboardInterrupt()), allow_pickle=True)
    with pytest.raises(KeyboardInterrupt):
        codec_impl.decode(data, allow_pickle=True)


@pytest.mark.parametrize("payload", [b"", b"garbage", b"cnowhere\nnothing\n."])
def test_bytes_that_are_no_pickle(codec_impl, payload):
    with pytest.raises(CodecError, match="the pickle cannot be loaded") as caught:
        codec_impl.decode(pickled(payload), allow_pickle=True)
    assert caught.value.__cause__ is not None


def test_key_that_cannot_be_hashed_any_more(codec_impl):
    data = codec_impl.encode({ExplodingAsKey(): 1}, allow_pickle=True)
    with pytest.raises(CodecError, match="cannot be hashed as a key") as caught:
        codec_impl.decode(data, allow_pickle=True)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
