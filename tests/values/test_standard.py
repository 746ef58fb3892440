"""Values of the standard library: kept exactly, and damaged parts refused."""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import subprocess
import sys
import uuid
import zoneinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from value_samples import same

from snakepit_mp.errors import CodecError
from snakepit_mp.values import wire


def round_trip(codec_impl, value):
    return codec_impl.decode(codec_impl.encode(value))


def parts_of(codec_impl, tag, *items):
    """The encoding of a value from parts that nobody has checked."""
    return b"\x01" + bytes((tag,)) + codec_impl.encode(items)[1:]


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime.min,  # noqa: DTZ901
        dt.datetime.max.replace(tzinfo=dt.UTC),
        dt.time.max,
        dt.date.min,
        dt.timedelta.min,
        dt.timedelta.max,
        dt.timezone(dt.timedelta(hours=23, minutes=59, seconds=59, microseconds=1)),
        dt.timezone(dt.timedelta(0), "zero, but not UTC"),
        dt.datetime(2024, 5, 1, tzinfo=zoneinfo.ZoneInfo("Asia/Kathmandu")),
        Decimal("Infinity"),
        Decimal("-0E-28"),
        Decimal((1, (1, 2, 3), 999_999)),
        Decimal("1" * 60),
        Fraction(10**40, 3),
        Path("relative/./x"),
        Path(),
        uuid.UUID("73110bf4-ea57-11f1-b6b4-02fc00000001"),
        range(0),
        range(1 << 70, 0, -(1 << 69)),
        slice("a", None, ()),
    ],
    ids=repr,
)
def test_round_trip(codec_impl, value):
    assert same(round_trip(codec_impl, [value]), [value])


def test_utc_stays_one_object(codec_impl):
    assert round_trip(codec_impl, dt.UTC) is dt.UTC


def test_context_has_no_say(codec_impl):
    with decimal.localcontext() as context:
        context.prec = 3
        assert same(round_trip(codec_impl, Decimal("1.23456789")), Decimal("1.23456789"))


class OwnZone(dt.tzinfo):
    def utcoffset(self, when):
        return dt.timedelta(0)


class OwnDate(dt.date):
    pass


class SafeContext(decimal.Decimal):
    pass


def test_other_zone_is_refused_with_its_path(codec_impl):
    value = {"when": dt.datetime(2024, 1, 1, tzinfo=OwnZone())}
    with pytest.raises(CodecError, match=r"there is no encoding for type .*OwnZone") as caught:
        codec_impl.encode(value)
    assert caught.value.path == "value['when'].tzinfo"
    data = codec_impl.encode(value, allow_pickle=True)
    assert type(codec_impl.decode(data, allow_pickle=True)["when"].tzinfo) is OwnZone


def test_edge_of_a_slice_is_refused_with_its_path(codec_impl):
    with pytest.raises(CodecError) as caught:
        codec_impl.encode([slice(0, [1, object()])])
    assert caught.value.path == "value[0].stop[1]"


def test_zone_without_a_key_is_refused(codec_impl):
    key = Path(zoneinfo.TZPATH[0]) / "UTC"
    with key.open("rb") as file:
        zone = zoneinfo.ZoneInfo.from_file(file)
    with pytest.raises(CodecError, match="there is no encoding for type zoneinfo"):
        codec_impl.encode(zone)


@pytest.mark.parametrize("value", [OwnDate(2024, 1, 1), SafeContext(1)])
def test_subclasses_are_refused(codec_impl, value):
    with pytest.raises(CodecError, match="there is no encoding for type"):
        codec_impl.encode(value)


def test_fraction_too_long_to_be_reduced(codec_impl):
    value = Fraction(1, 3 << (1 << 15))
    with pytest.raises(CodecError, match="there is no encoding"):
        codec_impl.encode(value)
    data = codec_impl.encode(value, allow_pickle=True)
    assert codec_impl.decode(data, allow_pickle=True) == value


def test_name_alone_makes_no_date(codec_impl):
    with pytest.raises(CodecError, match="there is no encoding"):
        codec_impl.encode(type("date", (), {})())


@pytest.mark.parametrize(
    ("tag", "items"),
    [
        (wire.TAG_DATE, ()),
        (wire.TAG_DATE, (b"\xe8\x07\x02\x1e", None)),
        (wire.TAG_DATE, ("2024",)),
        (wire.TAG_DECIMAL, (1,)),
        (wire.TAG_RANGE, (0, 1)),
        (wire.TAG_RANGE, (0, 1.0, 1)),
    ],
)
def test_parts_of_another_kind(codec_impl, tag, items):
    with pytest.raises(CodecError, match="byte 1: its parts are damaged"):
        codec_impl.decode(parts_of(codec_impl, tag, *items))


@pytest.mark.parametrize(
    ("tag", "items"),
    [
        (wire.TAG_DATE, (b"\xe8\x07\x02\x1e",)),
        (wire.TAG_DATE, (b"",)),
        (wire.TAG_TIME, (struct.pack("<BBBBI", 1, 1, 1, 2, 0),)),
        (wire.TAG_TIME, (struct.pack("<BBBBI", 1, 1, 1, 0, 0), 3)),
        (wire.TAG_DATETIME, (struct.pack("<HBBBBBBI", 0, 1, 1, 0, 0, 0, 0, 0),)),
        (wire.TAG_TIMEDELTA, (0, 86400, 0)),
        (wire.TAG_TIMEDELTA, (1 << 70, 0, 0)),
        (wire.TAG_FIXED_ZONE, (86400, 0)),
        (wire.TAG_NAMED_ZONE, ("../../etc/passwd",)),
        (wire.TAG_NAMED_ZONE, ("No/Where",)),
        (wire.TAG_NAMED_ZONE, ("\0",)),
        (wire.TAG_DECIMAL, ("one",)),
        (wire.TAG_FRACTION, (1, 0)),
        (wire.TAG_FRACTION, (2, 4)),
        (wire.TAG_FRACTION, (1, 3 << (1 << 15))),
        (wire.TAG_UUID, (b"short",)),
        (wire.TAG_UUID, (bytes(16), 7)),
        (wire.TAG_PATH, ("Path", "a")),
        (wire.TAG_RANGE, (0, 1, 0)),
    ],
)
def test_parts_that_make_no_value(codec_impl, tag, items):
    with pytest.raises(CodecError, match="byte 1: these parts make no value: "):
        codec_impl.decode(parts_of(codec_impl, tag, *items))


def test_path_of_another_system(codec_impl):
    name = "WindowsPath" if type(Path()).__name__ == "PosixPath" else "PosixPath"
    with pytest.raises(CodecError, match="these parts make no value"):
        codec_impl.decode(parts_of(codec_impl, wire.TAG_PATH, name, "a"))


def test_modules_are_imported_when_they_are_needed():
    program = (
        "import sys\n"
        "from snakepit_mp.values import codec\n"
        "codec.decode(codec.encode({'a': [1.5]}))\n"
        "assert not {'decimal', 'fractions', 'uuid', 'zoneinfo'} & sys.modules.keys()\n"
        "codec.decode(bytes.fromhex('011c314131'))\n"
        "assert 'decimal' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
