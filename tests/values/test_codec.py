"""Both twins of the codec: what goes in comes out, and nothing else does."""

from __future__ import annotations

import collections
import enum
import gc
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from value_samples import SAMPLES, same

from snakepit_mp import _accel
from snakepit_mp.errors import CodecError
from snakepit_mp.values import codec, wire

GOLDEN = Path(__file__).parent / "golden"


class Color(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Scale(np.float64):
    pass


class Blob(bytearray):
    pass


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


def encoding(*parts):
    """A message: the version, then bytes and tags as they are given."""
    return b"\x01" + b"".join(bytes((p,)) if isinstance(p, int) else p for p in parts)


def keyed(size, block):
    """The head of a dict with its keys first."""
    return encoding(0x13, struct.pack("<II", size, len(block)), block)


def test_golden_files_are_the_samples():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(SAMPLES)


def test_golden_files_cover_every_tag():
    """Also the tags that stand for a size or a number, by their first byte."""
    firsts = {path.read_bytes()[1] for path in GOLDEN.glob("*.bin")}
    families = {0x30, 0x40, 0x60, 0x70, 0x80}
    tags = {getattr(wire, name) for name in wire.__all__ if name.startswith("TAG_")}
    assert tags <= firsts
    assert families <= {first & 0xF0 for first in firsts}


@pytest.mark.parametrize("name", SAMPLES)
def test_golden_file_is_read(codec_impl, name):
    data = (GOLDEN / f"{name}.bin").read_bytes()
    assert same(codec_impl.decode(data, allow_pickle=name == "pickle"), SAMPLES[name])


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - {"pickle"}))
def test_golden_file_is_written(codec_impl, name):
    assert codec_impl.encode(SAMPLES[name]) == (GOLDEN / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v, v), lambda v: {"key": v}])
def test_samples_inside_containers(codec_impl, wrap):
    for value in SAMPLES.values():
        data = codec_impl.encode(wrap(value), allow_pickle=True)
        assert same(codec_impl.decode(data, allow_pickle=True), wrap(value))


def test_long_values(codec_impl):
    """Beyond every buffer of the compiled twin that has a fixed size."""
    value = {"text": "x" * 1000, "rows": [b"y" * 300] * 50, "array": np.zeros(5000)}
    assert same(codec_impl.decode(codec_impl.encode(value)), value)


def test_array_elements_start_at_a_multiple_of_64(codec_impl):
    for prefix in range(70):
        data = codec_impl.encode(["x" * prefix, np.array([1.0])])
        assert (len(data) - 8) % 64 == 0


def test_more_keys_than_are_remembered(codec_impl):
    for number in range(1500):
        value = {f"key {number}": number}
        assert codec_impl.decode(codec_impl.encode(value)) == value
    for number in range(150):
        value = {f"{key} {number}": key for key in range(8)}
        data = codec_impl.encode(value)
        assert same(codec_impl.decode(data), value)
        assert same(codec_impl.decode(data), value)


def test_dict_with_more_keys_than_are_remembered_at_once(codec_impl):
    for size in (64, 65, 1000):
        value = {f"a key with number {key}": [key] for key in range(size)}
        for _ in range(2):
            data = codec_impl.encode(value)
            assert same(codec_impl.decode(data), value)


def test_keys_that_look_alike(codec_impl):
    """Of one length, and alike in the bytes where a cache may look."""
    for size in (1, 2, 3, 4, 7, 8, 9, 16, 17, 24, 31):
        for place in range(size):
            value = {"a" * place + letter + "a" * (size - place - 1): letter for letter in "abc"}
            assert same(codec_impl.decode(codec_impl.encode(value)), value)


def test_blocks_of_keys_that_look_alike(codec_impl):
    for letter in "abc":
        value = {"first": 0, **{f"key {letter} {number}": 1 for number in range(8)}, "last": 2}
        assert same(codec_impl.decode(codec_impl.encode(value)), value)


def test_dict_of_known_keys_is_its_own(codec_impl):
    data = codec_impl.encode(dict.fromkeys("abcdefgh", 1))
    first = codec_impl.decode(data)
    first["a"] = 2
    first["more"] = 3
    assert codec_impl.decode(data) == dict.fromkeys("abcdefgh", 1)


def test_damage_among_the_values_of_known_keys(codec_impl):
    value = dict.fromkeys("abcdefgh", 1)
    data = codec_impl.encode(value)
    for end in range(len(data) - 8, len(data)):
        with pytest.raises(CodecError, match="needs more bytes"):
            codec_impl.decode(data[:end])
    assert codec_impl.decode(data) == value


@pytest.mark.parametrize(
    "change", [dict.clear, lambda table: table.setdefault(f"more {len(table)}")]
)
def test_keyed_dict_that_changes_meanwhile(codec_impl, change):
    table = dict.fromkeys("abcdefgh")

    class Meddler:
        def __reduce__(self):
            change(table)
            gc.collect()
            return int, ()

    for size in (8, 80):
        table.update({f"{key}": object() for key in range(size)}, a=Meddler())
        with pytest.raises(CodecError, match=r"value\[0\]: it changed while"):
            codec_impl.encode([table], allow_pickle=True)


def test_set_that_changes_meanwhile(codec_impl):
    members = set()

    class Meddler:
        def __reduce__(self):
            members.clear()
            return int, ()

    members.update([Meddler(), 1])
    with pytest.raises(CodecError, match=r"value\[0\]: it changed while"):
        codec_impl.encode([members], allow_pickle=True)


class TestRefusals:
    """What cannot be encoded says what it is, and where."""

    @pytest.mark.parametrize(
        ("value", "path"),
        [
            (object(), "args"),
            ({"rows": [1, 2, 3, object()]}, "args['rows'][3]"),
            (({"a": {1.5: (object(),)}},), "args[0]['a'][1.5][0]"),
            ({"a": 1, (1, object()): 2}, "args.keys()[1][1]"),
            ({(1,): object()}, "args[<tuple>]"),
            ({**dict.fromkeys("abcdefg", 1), "h": [object()]}, "args['h'][0]"),
            ({object()}, "args[0]"),
            ({"k" * 50: object()}, f"args['{'k' * 39}...]"),
            ([np.array([None])], "args[0]"),
        ],
    )
    def test_path(self, codec_impl, value, path):
        with pytest.raises(CodecError) as caught:
            codec_impl.encode(value, root="args")
        assert caught.value.path == path
        assert path in str(caught.value)
        assert caught.value.__cause__ is None

    def test_root_is_called_value_by_default(self, codec_impl):
        with pytest.raises(CodecError, match=r"value\[0\]: there is no encoding for type object"):
            codec_impl.encode([object()])

    @pytest.mark.parametrize(
        ("value", "base"),
        [
            (Color.RED, "int"),
            (collections.OrderedDict(a=1), "dict"),
            (Point(1, 2), "tuple"),
            (Scale(1.0), "float"),
            (Blob(b"x"), "bytearray"),
            (np.longdouble(1), None),
            (np.ma.masked_array([1]), None),
            (np.array([1.0], np.dtype("f8", metadata={"unit": "m"})), None),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_other_types_are_never_flattened(self, codec_impl, value, base):
        with pytest.raises(CodecError) as caught:
            codec_impl.encode(value)
        label = wire.type_label(type(value))
        assert label in str(caught.value)
        assert base is None or f"subclass of {base}" in str(caught.value)

    def test_dtype_is_named(self, codec_impl):
        with pytest.raises(CodecError, match=r"numpy\.ndarray of dtype object"):
            codec_impl.encode(np.array([None]))

    def test_depth(self, codec_impl):
        deepest = nested(wire.MAX_DEPTH)
        assert codec_impl.decode(codec_impl.encode(deepest)) == deepest
        for value in ([deepest], (deepest,), {"a": deepest}):
            with pytest.raises(CodecError, match="nested more than 64 levels"):
                codec_impl.encode(value)

    def test_cycle(self, codec_impl):
        row = []
        row.append({"self": row})
        with pytest.raises(CodecError, match="contains itself"):
            codec_impl.encode(row, allow_pickle=True)

    @pytest.mark.parametrize("change", [list.clear, lambda c: c.append(0)])
    def test_list_that_changes_meanwhile(self, codec_impl, change):
        row = []

        class Meddler:
            def __reduce__(self):
                change(row)
                return int, ()

        row.extend([Meddler(), 2, 3])
        with pytest.raises(CodecError, match=r"value\['row'\]: it changed while") as caught:
            codec_impl.encode({"row": row}, allow_pickle=True)
        assert caught.value.path == "value['row']"

    @pytest.mark.parametrize("change", [dict.clear, lambda c: c.update(b=1)])
    def test_dict_that_changes_meanwhile(self, codec_impl, change):
        table = {}

        class Meddler:
            def __reduce__(self):
                change(table)
                return int, ()

        table.update(a=Meddler())
        with pytest.raises(CodecError, match=r"value\[0\]: it changed while"):
            codec_impl.encode([table], allow_pickle=True)


class TestDamage:
    """Bytes that are not one whole value."""

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "byte 0: it needs more bytes"),
            (b"\x02\x00", "byte 0: version 2 is unknown"),
            (encoding(), "byte 1: it needs more bytes"),
            (encoding(0x2F), "byte 1: tag 0x2f is unknown"),
            (encoding(0x26), "byte 1: tag 0x26 is unknown"),
            (encoding(0x11), "byte 1: it needs more bytes"),
            (encoding(0x11, b"B", b"\1\0\0\0", 1), "byte 1: numbers of an unknown format"),
            (encoding(0x12, b"q", b"\1\0\0\0", b"1234567"), "byte 1: it needs more bytes"),
            (encoding(0x10, b"1" * 15), "byte 1: it needs more bytes"),
            (encoding(0x14, b"\1\0\0\0", 0x60), "byte 6: type list cannot be hashed"),
            (encoding(0x14, b"\2\0\0\0", 0x80, 0x80), "byte 1: a set has an item twice"),
            (keyed(1, b"\x41a"), "byte 1: it needs more bytes"),
            (keyed(1, b"\x41") + b"a\0", "byte 1: its keys are damaged"),
            (keyed(2, b"\x41a") + b"\0\0", "byte 1: its keys are damaged"),
            (keyed(1, b"\x41a\x41b") + b"\0\0", "byte 1: its keys are damaged"),
            (keyed(1, b"\x80") + b"\0", "byte 1: a key is no str"),
            (keyed(1, b"\x41\xff") + b"\0", "byte 10: a str is not ASCII"),
            (keyed(2, b"\x41a\x41a") + b"\0\0", "byte 1: a dict has a key twice"),
            (encoding(0x1C), "byte 2: it needs more bytes"),
            (encoding(0x1C, 0x16), "byte 1: its parts are damaged"),
            (encoding(0x1C, 0x30), "byte 1: its parts are damaged"),
            (encoding(0x1C, 0x31, 0x80), "byte 1: its parts are damaged"),
            (encoding(0x1C, 0x31, b"\x41x"), "byte 1: these parts make no value: decimal.Inv"),
            (encoding(0x00, 0x00), "byte 2: the value has ended, but not the bytes"),
            (encoding(0x62, 0x00), "byte 3: it needs more bytes"),
            (encoding(0x61, 0x44, b"abc"), "byte 2: it needs more bytes"),
            (encoding(0x08, b"\xff\xff\xff"), "byte 1: it needs more bytes"),
            (encoding(0x08, b"\xff" * 4, b"\0" * 7), "byte 1: it needs more bytes"),
            (encoding(0x41, 0x80), "byte 1: a str is not ASCII"),
            (encoding(0x06, b"\x09\0\0\0", b"12345678\xff"), "byte 1: a str is not ASCII"),
            (encoding(0x06, b"\x09\0\0\0", b"1234567\xff9"), "byte 1: a str is not ASCII"),
            (encoding(0x07, b"\x01\0\0\0\x80"), "byte 1: a str is not UTF-8"),
            (encoding(0x71, 0x60, 0x80), "byte 2: type list cannot be hashed as a key"),
            (encoding(0x72, 0x80, 0x00, 0x80, 0x00), "byte 1: a dict has a key twice"),
            (encoding(0x0E, b"\0\0\0\0"), "byte 1: a pickle is not allowed here"),
        ],
    )
    def test_message(self, codec_impl, data, message):
        with pytest.raises(CodecError) as caught:
            codec_impl.decode(data)
        assert str(caught.value).startswith(f"cannot decode {message}")

    @pytest.mark.parametrize("name", SAMPLES)
    def test_every_truncation(self, codec_impl, name):
        data = (GOLDEN / f"{name}.bin").read_bytes()
        for end in range(len(data)):
            with pytest.raises(CodecError):
                codec_impl.decode(data[:end], allow_pickle=True)

    @pytest.mark.parametrize(
        "tag", [0x04, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0E, 0x0F, 0x13, 0x14, 0x15]
    )
    @pytest.mark.parametrize(
        "count", [b"\xfe\xff\xff\xff", b"\xff" * 12, b"\xff" * 4 + b"\0" * 7 + b"\x40"]
    )
    def test_count_beyond_what_is_left(self, codec_impl, tag, count):
        """Refused before anything of that size is allocated."""
        with pytest.raises(CodecError, match="byte 1: it needs more bytes"):
            codec_impl.decode(encoding(tag, count, b"\0" * 20), allow_pickle=True)

    def test_dict_needs_two_bytes_for_each_pair(self, codec_impl):
        with pytest.raises(CodecError, match="byte 1: it needs more bytes"):
            codec_impl.decode(encoding(0x0B, b"\x03\0\0\0", b"\0" * 5))

    def test_long_form_of_a_short_count(self, codec_impl):
        data = encoding(0x08, b"\xff\xff\xff\xff", b"\x02" + b"\0" * 7, b"ab")
        assert codec_impl.decode(data) == b"ab"

    @pytest.mark.parametrize("tag", [0x61, 0x31, 0x71])  # a dict's key is a level below it
    def test_depth(self, codec_impl, tag):
        """A dict's key counts as a level below it, too."""
        data = encoding(bytes((tag,)) * 65, 0x00)
        with pytest.raises(CodecError, match="byte 65: it is nested more than 64 levels"):
            codec_impl.decode(data)

    @pytest.mark.parametrize("data", ["text", 3, None, [1]])
    def test_not_bytes(self, codec_impl, data):
        with pytest.raises(TypeError, match=r"decode\(\) takes a bytes-like object, not"):
            codec_impl.decode(data)


class TestBuffers:
    """Arrays stay valid and unchanged, whatever the caller does with the bytes."""

    def test_view_of_bytes(self, codec_impl):
        data = codec_impl.encode(np.arange(1000.0))
        array = codec_impl.decode(data)
        assert np.shares_memory(array, np.frombuffer(data, "u1"))
        assert array.flags.aligned
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1

    @pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))])
    def test_copy_of_what_may_change(self, codec_impl, kind):
        buffer = kind(codec_impl.encode([np.arange(3.0), b"abc"]))
        array, raw = codec_impl.decode(buffer)
        buffer[:] = bytes(len(buffer))
        assert array.tolist() == [0.0, 1.0, 2.0]
        assert raw == b"abc"
        assert not array.flags.writeable

    def test_released_memoryview(self, codec_impl):
        with memoryview(codec_impl.encode(np.arange(3.0))) as view:
            array = codec_impl.decode(view)
        assert array.tolist() == [0.0, 1.0, 2.0]

    def test_strided_memoryview(self, codec_impl):
        data = codec_impl.encode(["a", 1])
        spread = bytes(2 * len(data) - 1)
        wide = bytearray(spread)
        wide[::2] = data
        assert codec_impl.decode(memoryview(wide)[::2]) == ["a", 1]

    def test_subclass_of_bytes(self, codec_impl):
        class Data(bytes):
            pass

        assert codec_impl.decode(Data(codec_impl.encode("a"))) == "a"


def test_no_memory_is_lost(codec_impl):
    """Neither where it goes well nor where it fails half way."""
    good = {"a": [1 << 70, 1.5, "é", b"x" * 400, (None, {"b": "y" * 40})]}
    data = codec_impl.encode(good)

    def work():
        codec_impl.decode(codec_impl.encode(good))
        for bad in ([good, object()], {"k": good, (object(),): 1}):
            with pytest.raises(CodecError):
                codec_impl.encode(bad)
        for damaged in (data[:-1], data + b"\0", data[:30] + b"\x2f" + data[31:]):
            with pytest.raises(CodecError):
                codec_impl.decode(damaged)

    work()
    gc.collect()
    tracemalloc.start()
    try:
        work()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            work()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 4_000  # one lost object in each round would make more


def test_public_names_are_the_twin_in_use():
    if _accel.speedups is None:
        assert codec.encode is codec.py_encode
        assert codec.decode is codec.py_decode
    else:
        assert codec.encode is _accel.speedups.encode
        assert codec.decode is _accel.speedups.decode


def test_numpy_is_not_imported_without_an_array():
    """Neither by the module nor by plain values."""
    program = (
        "import sys\n"
        "from snakepit_mp.values import codec, coercion, types, validator\n"
        "codec.decode(codec.encode({'a': [1.5]}))\n"
        "assert types.infer_type(coercion.coerce('float', 1)) == 'float'\n"
        "assert 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
