"""Enum members, dataclasses and named tuples: by the names of their classes and fields."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
from value_samples import Access, Color, Model, Point, same

from snakepit_mp import register_type
from snakepit_mp.errors import CodecError
from snakepit_mp.values import wire
from snakepit_mp.values.shapes import has_own_pickling, shape_of

RUNS = []


class Mood(enum.Enum):
    """Importable, not registered; so are those that follow."""

    GOOD = "+"
    FINE = "+"  # noqa: PIE796  an alias


@dataclass
class Node:
    name: str
    child: Any = None
    note: str = field(init=False, default="")

    def __post_init__(self):
        RUNS.append(self.name)


@dataclass(frozen=True, slots=True)
class Slotted:
    x: Any = 0


class Slots:
    __slots__ = ("__dict__", "__private", "hidden")


@dataclass
class Hidden(Slots):
    x: int = 0


@dataclass
class OneSlot:
    __slots__ = "x"
    x: int


@dataclass
class Failure(Exception):
    code: int = 0


@dataclass
class Reduced:
    x: int = 0

    def __reduce__(self):
        return Reduced, (self.x + 1,)


@dataclass
class Covered:
    x: int = 0


@dataclass
class Cached:
    x: int = 1

    @functools.cached_property
    def double(self):
        return 2 * self.x


class Pair(NamedTuple):
    first: Any
    second: Any = None


@register_type
class Wide(Pair):
    """Unlike a named tuple itself, its subclass has a ``__dict__``."""


class NoPair(tuple):
    __slots__ = ()
    _fields = 3


def through(codec_impl, value):
    return codec_impl.decode(codec_impl.encode(value, allow_pickle=True), allow_pickle=True)


def tag_of(codec_impl, value):
    return codec_impl.encode(value, allow_pickle=True)[1]


def parts_of(codec_impl, tag, *items):
    return b"\x01" + bytes((tag,)) + codec_impl.encode(items)[1:]


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        (Mood.GOOD, wire.TAG_ENUM),
        (Mood.FINE, wire.TAG_ENUM),
        (Node("a"), wire.TAG_DATACLASS),
        (Slotted([1]), wire.TAG_DATACLASS),
        (Pair(1), wire.TAG_NAMED_TUPLE),
        (OneSlot(3), wire.TAG_DATACLASS),
    ],
    ids=repr,
)
def test_importable_class(codec_impl, value, tag):
    assert tag_of(codec_impl, value) == tag
    result = through(codec_impl, value)
    assert type(result) is type(value)
    assert result == value
    with pytest.raises(CodecError, match="pickle is not allowed here"):
        codec_impl.encode(value)
    with pytest.raises(CodecError, match="is not registered here"):
        codec_impl.decode(codec_impl.encode(value, allow_pickle=True))


def test_no_code_of_the_class_runs(codec_impl):
    data = codec_impl.encode(Node("made"), allow_pickle=True)
    RUNS.clear()
    assert codec_impl.decode(data, allow_pickle=True).name == "made"
    assert RUNS == []


def test_array_in_a_dataclass_is_a_view(codec_impl):
    data = codec_impl.encode(Model("m", np.arange(4.0)))
    assert np.shares_memory(codec_impl.decode(data).weights, np.frombuffer(data, "u1"))


def test_path_to_a_field(codec_impl):
    value = {"rows": [0, Model("m", Point([object()], 1))]}
    with pytest.raises(CodecError) as caught:
        codec_impl.encode(value, root="args")
    assert caught.value.path == "args['rows'][1].weights.x[0]"


@pytest.mark.parametrize("value", [Hidden(), Cached(), Failure(3), Reduced(1), NoPair((1,))])
def test_value_that_is_more_than_its_fields_is_pickled(codec_impl, value):
    if isinstance(value, Hidden):
        value.hidden = 1
    if isinstance(value, Cached):
        assert value.double == 2
    assert tag_of(codec_impl, value) == wire.TAG_PICKLE
    assert type(through(codec_impl, value)) is type(value)


def test_value_that_is_less_than_its_fields_is_pickled(codec_impl):
    value = Slotted.__new__(Slotted)
    parts = shape_of(Slotted)
    assert parts.fields == ("x",)
    node = Node("a")
    del node.name
    assert tag_of(codec_impl, node) == wire.TAG_PICKLE
    with pytest.raises(CodecError, match="cannot be pickled"):
        codec_impl.encode(value, allow_pickle=True)


def test_hidden_slots_that_are_empty(codec_impl):
    assert shape_of(Hidden).hidden == ("_Slots__private", "hidden")
    assert tag_of(codec_impl, Hidden(2)) == wire.TAG_DATACLASS


def test_named_tuple_with_a_dict(codec_impl):
    assert type(codec_impl.decode(codec_impl.encode(Wide(1, 2)))) is Wide
    value = Wide(1, 2)
    value.more = 1
    with pytest.raises(CodecError, match="has more, or less, than its fields"):
        codec_impl.encode(value)


def test_class_that_cannot_be_found_is_pickled(codec_impl):
    @dataclass
    class Local:
        x: int = 1

    assert tag_of(codec_impl, Local()) == wire.TAG_PICKLE
    assert dataclasses.asdict(through(codec_impl, Local())) == {"x": 1}


def test_value_that_contains_itself_is_pickled_whole(codec_impl):
    parent = Node("parent", Node("child"))
    parent.child.child = parent
    data = codec_impl.encode([parent, 5], allow_pickle=True)
    result, five = codec_impl.decode(data, allow_pickle=True)
    assert result.child.child is result
    assert five == 5


def test_pickled_whole_into_a_buffer(codec_impl):
    """Also where the first attempt did not fit, and the pickle does."""
    parent = Node("parent", ["x" * 20_000, None])
    parent.child[1] = [parent] * 3
    data = codec_impl.encode(parent, allow_pickle=True)
    assert codec_impl.encode_size(parent, allow_pickle=True) == len(data)
    buffer = bytearray(len(data))
    assert codec_impl.encode_into(parent, buffer, allow_pickle=True) == len(data)
    assert buffer == data
    with pytest.raises(BufferError, match=f"{len(data)} bytes do not fit"):
        codec_impl.encode_into(parent, bytearray(len(data) - 1), allow_pickle=True)


def test_value_that_can_neither_be_written_nor_pickled(codec_impl):
    value = Node("a", Node("b", (i for i in ())))
    with pytest.raises(CodecError, match="cannot be pickled") as caught:
        codec_impl.encode([value], allow_pickle=True)
    assert caught.value.path == "value[0]"


def test_combined_flags(codec_impl):
    for value in (Access(0), Access.READ, Access.READ | Access.WRITE):
        assert codec_impl.decode(codec_impl.encode(value)) is value


COLOR = f"{Color.__module__}:Color"
ACCESS = f"{Color.__module__}:Access"
POINT = f"{Color.__module__}:Point(x, y)"


@pytest.mark.parametrize(
    ("tag", "items", "message"),
    [
        (wire.TAG_ENUM, (), "its parts are damaged"),
        (wire.TAG_ENUM, (1, "RED"), "its parts are damaged"),
        (wire.TAG_ENUM, (COLOR,), "its parts are damaged"),
        (wire.TAG_ENUM, (COLOR, "BLUE"), "has no such member"),
        (wire.TAG_ENUM, (COLOR, 1), "has no such member"),
        (wire.TAG_ENUM, (ACCESS, 4), "has no such member"),
        (wire.TAG_ENUM, ("enum:Enum", "A"), "is not registered here"),
        (wire.TAG_DATACLASS, (COLOR, 1), "has become another kind of class"),
        (wire.TAG_NAMED_TUPLE, (POINT, 1), "has other fields"),
        (wire.TAG_NAMED_TUPLE, (POINT.replace("y", "z"), 1, 2), "has other fields"),
    ],
)
def test_damage(codec_impl, tag, items, message):
    with pytest.raises(CodecError, match=f"byte 1: .*{message}"):
        codec_impl.decode(parts_of(codec_impl, tag, *items))


def test_field_that_cannot_be_set(codec_impl, monkeypatch):
    data = codec_impl.encode(Covered(1), allow_pickle=True)
    monkeypatch.setattr(Covered, "x", property(lambda self: 1), raising=False)
    with pytest.raises(CodecError, match=r"a field of .*Covered cannot be set"):
        codec_impl.decode(data, allow_pickle=True)


def test_nothing_is_imported_where_pickle_is_not_allowed(codec_impl):
    assert "this" not in sys.modules
    data = parts_of(codec_impl, wire.TAG_ENUM, "this:x", "A")
    with pytest.raises(CodecError, match="type this:x is not registered here"):
        codec_impl.decode(data)
    assert "this" not in sys.modules


def test_class_of_the_main_module():
    """The application's `__main__` is `__mp_main__` in its workers."""
    program = (
        "import enum, sys, types\n"
        "from snakepit_mp.values import codec\n"
        "class Mood(enum.Enum):\n"
        "    GOOD = 1\n"
        "data = codec.encode(Mood.GOOD, allow_pickle=True)\n"
        "module = sys.modules['__mp_main__'] = types.ModuleType('__mp_main__')\n"
        "module.Mood, Mood.__module__ = Mood, '__mp_main__'\n"
        "sys.modules['__main__'] = types.ModuleType('__main__')\n"
        "assert codec.encode(Mood.GOOD, allow_pickle=True) == data\n"
        "assert codec.decode(data, allow_pickle=True) is Mood.GOOD\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_own_pickling():
    assert has_own_pickling(Reduced)
    assert not has_own_pickling(Slotted)
    assert has_own_pickling(collections.OrderedDict)


def test_own_pickling_by_copyreg(monkeypatch, codec_impl):
    import copyreg

    @dataclass
    class Foreign:
        x: int = 0

    monkeypatch.setitem(copyreg.dispatch_table, Foreign, lambda value: (int, ()))
    assert has_own_pickling(Foreign)


def test_samples_of_this_kind_are_registered(codec_impl):
    value = [Color.RED, Model("a"), Point(1, 2)]
    assert same(codec_impl.decode(codec_impl.encode(value)), value)
