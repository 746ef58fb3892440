"""How do dates, decimals, paths and their like become parts, and parts values again?

=============  ============================================================================
value          parts
=============  ============================================================================
date           year, month, day in four bytes
time           hour, minute, second, fold, microsecond in eight bytes; tzinfo if there is one
datetime       those of a date and of a time in twelve bytes; tzinfo if there is one
timedelta      days, seconds, microseconds
timezone       seconds and microseconds east of UTC; its name if it was given one
ZoneInfo       its key
Decimal        its digits, as ``str`` writes them
Fraction       numerator and denominator, in lowest terms
UUID           sixteen bytes; ``is_safe`` as a number if it is known
paths          name of the class, the path
range, slice   start, stop, step
=============  ============================================================================

Only exactly these classes are meant. A fixed zone keeps its name; any other ``tzinfo`` is
refused. Modules are imported when there is such a value to be made, not before.
"""

from __future__ import annotations

import math
import pathlib
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import wire

if TYPE_CHECKING:
    import datetime as dt
    from decimal import Decimal
    from fractions import Fraction
    from uuid import UUID
    from zoneinfo import ZoneInfo

__all__ = ["TAGS", "build", "parts"]

Parts = tuple[int, tuple[Any, ...], tuple[str, ...]]

_DATE = struct.Struct("<HBB")
_TIME = struct.Struct("<BBBBI")
_MOMENT = struct.Struct("<HBBBBBBI")
#: Of both numbers of a `Fraction`: to reduce longer ones takes a time that a reader cannot bound.
_LONGEST_FRACTION = 1 << 15
_PLAIN: tuple[str, ...] = ("",) * 3
_ZONED: tuple[str, ...] = ("", ".tzinfo")
_EDGES = (".start", ".stop", ".step")
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")


def _moment(head: bytes, zone: dt.tzinfo | None) -> tuple[Any, ...]:
    return (head,) if zone is None else (head, zone)


def _date(value: dt.date) -> Parts:
    return wire.TAG_DATE, (_DATE.pack(value.year, value.month, value.day),), _PLAIN


def _time(value: dt.time) -> Parts:
    head = _TIME.pack(value.hour, value.minute, value.second, value.fold, value.microsecond)
    return wire.TAG_TIME, _moment(head, value.tzinfo), _ZONED


def _datetime(value: dt.datetime) -> Parts:
    head = _MOMENT.pack(
        *(value.year, value.month, value.day, value.hour, value.minute, value.second),
        *(value.fold, value.microsecond),
    )
    return wire.TAG_DATETIME, _moment(head, value.tzinfo), _ZONED


def _timedelta(value: dt.timedelta) -> Parts:
    return wire.TAG_TIMEDELTA, (value.days, value.seconds, value.microseconds), _PLAIN


def _fixed_zone(value: dt.timezone) -> Parts:
    offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]  # what pickle asks
    seconds = offset.days * 86400 + offset.seconds
    return wire.TAG_FIXED_ZONE, (seconds, offset.microseconds, *name), _PLAIN


def _named_zone(value: ZoneInfo) -> Parts | None:
    return None if value.key is None else (wire.TAG_NAMED_ZONE, (value.key,), _PLAIN)


def _decimal(value: Decimal) -> Parts:
    return wire.TAG_DECIMAL, (str(value),), _PLAIN


def _fraction(value: Fraction) -> Parts | None:
    numbers = (value.numerator, value.denominator)
    if max(map(int.bit_length, numbers)) > _LONGEST_FRACTION:
        return None
    return wire.TAG_FRACTION, numbers, _PLAIN


def _uuid(value: UUID) -> Parts:
    safe = value.is_safe.value
    return wire.TAG_UUID, (value.bytes,) if safe is None else (value.bytes, safe), _PLAIN


def _path(value: pathlib.PurePath) -> Parts:
    return wire.TAG_PATH, (type(value).__name__, str(value)), _PLAIN


def _range(value: range) -> Parts:
    return wire.TAG_RANGE, (value.start, value.stop, value.step), _PLAIN


def _slice(value: slice) -> Parts:
    return wire.TAG_SLICE, (value.start, value.stop, value.step), _EDGES


#: By the class's name: the module where it is to be found, and the function.
_WRITERS: dict[str, tuple[str, Callable[[Any], Parts | None]]] = {
    "date": ("datetime", _date),
    "time": ("datetime", _time),
    "datetime": ("datetime", _datetime),
    "timedelta": ("datetime", _timedelta),
    "timezone": ("datetime", _fixed_zone),
    "ZoneInfo": ("zoneinfo", _named_zone),
    "Decimal": ("decimal", _decimal),
    "Fraction": ("fractions", _fraction),
    "UUID": ("uuid", _uuid),
    "range": ("builtins", _range),
    "slice": ("builtins", _slice),
    **dict.fromkeys(_PATHS, ("pathlib", _path)),
}


def parts(value: Any) -> Parts | None:
    """Tag, parts and their steps for the path; ``None`` for values of other classes."""
    cls = type(value)
    module, writer = _WRITERS.get(cls.__name__, ("", None))
    if writer is None or getattr(sys.modules.get(module), cls.__name__, None) is not cls:
        return None
    return writer(value)


def _make_date(head: bytes) -> dt.date:
    import datetime as dt

    return dt.date(*_DATE.unpack(head))


def _make_time(head: bytes, zone: dt.tzinfo | None = None) -> dt.time:
    import datetime as dt

    hour, minute, second, fold, microsecond = _TIME.unpack(head)
    return dt.time(hour, minute, second, microsecond, zone, fold=fold)


def _make_datetime(head: bytes, zone: dt.tzinfo | None = None) -> dt.datetime:
    import datetime as dt

    year, month, day, hour, minute, second, fold, microsecond = _MOMENT.unpack(head)
    return dt.datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _make_timedelta(days: int, seconds: int, microseconds: int) -> dt.timedelta:
    import datetime as dt

    if not (0 <= seconds < 86400 and 0 <= microseconds < 1_000_000):
        raise ValueError("not in normal form")
    return dt.timedelta(days, seconds, microseconds)


def _make_fixed_zone(seconds: int, microseconds: int, name: str | None = None) -> dt.timezone:
    import datetime as dt

    offset = dt.timedelta(0, seconds, microseconds)
    return dt.timezone(offset) if name is None else dt.timezone(offset, name)


def _make_named_zone(key: str) -> dt.tzinfo:
    from zoneinfo import ZoneInfo

    return ZoneInfo(key)


def _make_decimal(digits: str) -> Decimal:
    from decimal import Decimal

    return Decimal(digits)


def _make_fraction(numerator: int, denominator: int) -> Fraction:
    from fractions import Fraction

    if max(map(int.bit_length, (numerator, denominator))) > _LONGEST_FRACTION:
        raise ValueError("too long")
    if denominator < 1 or math.gcd(numerator, denominator) != 1:
        raise ValueError("not in lowest terms")
    return Fraction(numerator, denominator)


def _make_uuid(data: bytes, safe: int | None = None) -> UUID:
    from uuid import UUID, SafeUUID

    return UUID(bytes=data, is_safe=SafeUUID.unknown if safe is None else SafeUUID(safe))


def _make_path(name: str, path: str) -> pathlib.PurePath:
    if name not in _PATHS:
        raise ValueError("no kind of path")
    made: pathlib.PurePath = getattr(pathlib, name)(path)
    return made


#: For each tag the function, the classes of its parts, and how many of them there must be.
_MAKERS: dict[int, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
    wire.TAG_DATE: (_make_date, (bytes,), 1),
    wire.TAG_TIME: (_make_time, (bytes, object), 1),
    wire.TAG_DATETIME: (_make_datetime, (bytes, object), 1),
    wire.TAG_TIMEDELTA: (_make_timedelta, (int, int, int), 3),
    wire.TAG_FIXED_ZONE: (_make_fixed_zone, (int, int, str), 2),
    wire.TAG_NAMED_ZONE: (_make_named_zone, (str,), 1),
    wire.TAG_DECIMAL: (_make_decimal, (str,), 1),
    wire.TAG_FRACTION: (_make_fraction, (int, int), 2),
    wire.TAG_UUID: (_make_uuid, (bytes, int), 1),
    wire.TAG_PATH: (_make_path, (str, str), 2),
    wire.TAG_RANGE: (range, (int, int, int), 3),
    wire.TAG_SLICE: (slice, (object, object, object), 3),
}
#: What the classes say of parts that are not theirs; `RuntimeError` of paths of other systems.
_FAULTS = (ValueError, ArithmeticError, TypeError, LookupError, OSError, RuntimeError, struct.error)
#: The tags that `build` takes.
TAGS = tuple(_MAKERS)


def build(tag: int, items: tuple[Any, ...], start: int) -> Any:
    """The value that has these parts; `CodecError` if they are not what `parts` gives."""
    maker, classes, least = _MAKERS[tag]
    if not least <= len(items) <= len(classes) or not all(map(isinstance, items, classes)):
        raise wire.damaged(start)
    try:
        return maker(*items)
    except _FAULTS as error:
        label = wire.type_label(type(error))
        raise wire.corrupt(f"these parts make no value: {label}: {error}", start) from error
