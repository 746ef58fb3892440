"""Encoding into a given buffer, and decoding part of one."""

from __future__ import annotations

import array
import mmap

import numpy as np
import pytest
from value_samples import SAMPLES, same

from snakepit_mp.errors import CodecError

VALUE = {"rows": [1, 2.5, "x" * 400, b"y" * 5000], "array": np.arange(300.0)}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample(codec_impl, name):
    value = SAMPLES[name]
    data = codec_impl.encode(value, allow_pickle=True)
    assert codec_impl.encode_size(value, allow_pickle=True) == len(data)
    buffer = bytearray(b"#" * (len(data) + 9))
    assert codec_impl.encode_into(value, buffer, 5, allow_pickle=True) == len(data)
    assert buffer == b"#" * 5 + data + b"#" * 4


def test_no_byte_too_many(codec_impl):
    data = codec_impl.encode(VALUE)
    buffer = bytearray(len(data) + 7)
    for room in (0, 1, 5, 60, 300, 600, 5200, len(data) - 1):
        with pytest.raises(BufferError) as caught:
            codec_impl.encode_into(VALUE, memoryview(buffer)[:room])
        message = f"{len(data)} bytes do not fit from byte 0 of a buffer of {room}"
        assert str(caught.value) == message
        assert not any(buffer[room:])
    assert codec_impl.encode_into(VALUE, buffer, 7) == len(data)


@pytest.mark.parametrize("offset", [-1, 4, 1 << 40])
def test_offset_outside(codec_impl, offset):
    with pytest.raises(
        BufferError, match=f"2 bytes do not fit from byte {offset} of a buffer of 3"
    ):
        codec_impl.encode_into(None, bytearray(3), offset)


@pytest.mark.parametrize(
    "buffer", [b"x" * 50, memoryview(bytearray(50))[::2], memoryview(b"x" * 50), "x" * 50, None]
)
def test_buffer_that_cannot_be_filled(codec_impl, buffer):
    label = type(buffer).__name__
    with pytest.raises(TypeError, match=f"writable, contiguous buffer, not this {label}"):
        codec_impl.encode_into(1, buffer)


def test_refusal(codec_impl):
    for act in (
        codec_impl.encode_size,
        lambda value, **how: codec_impl.encode_into(value, bytearray(3), **how),
    ):
        with pytest.raises(CodecError, match=r"args\[1\]: there is no encoding"):
            act(["x" * 1000, object()], root="args")


def test_buffers_of_other_kinds(codec_impl):
    data = codec_impl.encode([1, "a"])
    for buffer in (array.array("q", [0] * 4), np.zeros((4, 4), "i4"), mmap.mmap(-1, 4096)):
        assert codec_impl.encode_into([1, "a"], buffer) == len(data)
        assert bytes(memoryview(buffer).cast("B")[: len(data)]) == data


def test_arrays_are_aligned_where_the_value_is(codec_impl):
    memory = mmap.mmap(-1, 8192)
    size = codec_impl.encode_into(["a", np.arange(3.0)], memory, 4096)
    result = codec_impl.decode(memory, offset=4096, size=size, copy=False)[1]
    assert np.shares_memory(result, np.frombuffer(memory, "u1"))
    assert result.ctypes.data % 64 == 0
    assert result.tolist() == [0.0, 1.0, 2.0]
    assert not result.flags.writeable
    with pytest.raises(BufferError):
        memory.close()


class TestParts:
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    @pytest.mark.parametrize("copy", [False, True])
    def test_part(self, codec_impl, kind, copy):
        data = codec_impl.encode(VALUE)
        frame = kind(b"head" + data + b"tail")
        result = codec_impl.decode(frame, offset=4, size=len(data), copy=copy)
        assert same(result, VALUE)
        with pytest.raises(CodecError, match="not the bytes"):
            codec_impl.decode(frame, offset=4, copy=copy)

    @pytest.mark.parametrize("by_slice", [False, True])
    def test_part_of_bytes_is_not_copied(self, codec_impl, by_slice):
        data = codec_impl.encode([np.arange(300.0), np.arange(3).astype(">i4"), np.array(["a"])])
        frame = bytes(32) + data + b"tail"
        if by_slice:
            with memoryview(frame) as view, view[32 : 32 + len(data)] as part:
                results = codec_impl.decode(part)
        else:
            results = codec_impl.decode(frame, offset=32, size=len(data))
        assert all(np.shares_memory(result, np.frombuffer(frame, "u1")) for result in results)
        assert results[0].tolist() == list(range(300))

    def test_without_a_copy_what_may_change_is_read_in_place(self, codec_impl):
        buffer = bytearray(codec_impl.encode(np.arange(40.0)))
        result = codec_impl.decode(buffer, copy=False)
        assert not result.flags.writeable
        buffer[-8:] = bytes(8)
        assert result[-1] == 0
        with pytest.raises(BufferError):
            buffer.append(0)

    def test_view_that_was_released(self, codec_impl):
        view = memoryview(codec_impl.encode(1))
        view.release()
        with pytest.raises(ValueError, match="released"):
            codec_impl.decode(view)

    def test_view_of_items_that_are_no_bytes(self, codec_impl):
        data = codec_impl.encode("x" * 26)
        assert codec_impl.decode(memoryview(data).cast("i")) == "x" * 26
        assert codec_impl.decode(memoryview(data), offset=0) == "x" * 26
        assert codec_impl.decode(memoryview(data + data)[::1], size=28) == "x" * 26

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    @pytest.mark.parametrize(
        ("offset", "size"), [(-1, None), (11, None), (0, 11), (3, 8), (3, -1), (0, 1 << 50)]
    )
    def test_part_outside(self, codec_impl, kind, offset, size):
        with pytest.raises(ValueError, match=r"decode\(\) was given 10 bytes") as caught:
            codec_impl.decode(kind(bytes(10)), offset=offset, size=size)
        assert type(caught.value) is ValueError

    def test_empty_part(self, codec_impl):
        for data in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
            with pytest.raises(CodecError, match="byte 0: it needs more"):
                codec_impl.decode(data, offset=3)

    def test_offsets_of_errors_count_from_the_part(self, codec_impl):
        with pytest.raises(CodecError, match="byte 1: tag 0x2f"):
            codec_impl.decode(b"head\x01\x2f", offset=4)
