"""Registered types: written by their functions, read only where they are known."""

from __future__ import annotations

import datetime as dt
import enum
import threading
from dataclasses import dataclass

import numpy as np
import pytest

import snakepit_mp
from snakepit_mp.errors import CodecError
from snakepit_mp.values import registry, wire


class Money:
    def __init__(self, amount):
        self.amount = amount

    def __eq__(self, other):
        return type(other) is Money and other.amount == self.amount

    __hash__ = None

    def __repr__(self):  # the name of a test, the same in every process
        return f"Money({self.amount})"


class Tagged(str):
    __slots__ = ("tag",)


@snakepit_mp.register_type
@dataclass
class Plain:
    x: int


def amount_of(money):
    if money.amount is None:
        raise LookupError("no amount")
    return money if money.amount == "itself" else money.amount


def money_of(amount):
    if amount == -1:
        raise ValueError("in debt")
    return 0 if amount == 0 else Money(amount)


def tag_of(value):
    return str(value), value.tag


def tagged_of(parts):
    value = Tagged(parts[0])
    value.tag = parts[1]
    return value


snakepit_mp.register_type(Money, amount_of, money_of)
snakepit_mp.register_type(Tagged, tag_of, tagged_of)
NAME = f"{__name__}:Money"


def encoded(codec_impl, *parts, tag=wire.TAG_REGISTERED):
    return b"\x01" + bytes((tag,)) + codec_impl.encode(parts)[1:]


@pytest.mark.parametrize("amount", [1, [1, 2], Money(3), np.float32(1)], ids=repr)
def test_round_trip(codec_impl, amount):
    assert codec_impl.decode(codec_impl.encode([Money(amount)])) == [Money(amount)]


def test_subclass_of_a_built_in_type(codec_impl):
    value = tagged_of(("text", 5))
    result = codec_impl.decode(codec_impl.encode({"a": value}))["a"]
    assert (type(result), result, result.tag) == (Tagged, "text", 5)


def test_subclass_is_another_class(codec_impl):
    class Euro(Money):
        pass

    with pytest.raises(CodecError, match="there is no encoding for type"):
        codec_impl.encode(Euro(1))


def test_part_that_has_no_encoding(codec_impl):
    with pytest.raises(CodecError) as caught:
        codec_impl.encode([Money([1, object()])])
    assert caught.value.path == "value[0][1]"


def test_value_that_stands_for_itself(codec_impl):
    with pytest.raises(CodecError, match="contains itself"):
        codec_impl.encode(Money("itself"))


def test_function_that_fails_to_encode(codec_impl):
    with pytest.raises(CodecError, match="failed: LookupError: no amount") as caught:
        codec_impl.encode({"a": Money(None)}, allow_pickle=True)
    assert caught.value.path == "value['a']"
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((NAME, -1), "failed: ValueError: in debt"),
        ((NAME, 0), "made another type"),
        ((NAME,), "its parts are damaged"),
        ((1, 2), "its parts are damaged"),
        (("os:system", "true"), "type os:system is not registered here"),
        ((f"{__name__}:Tagged2", 1), "is not registered here"),
    ],
)
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_damage(codec_impl, parts, message, allow_pickle):
    with pytest.raises(CodecError, match=message):
        codec_impl.decode(encoded(codec_impl, *parts), allow_pickle=allow_pickle)


def test_registered_by_functions_cannot_be_made_from_fields(codec_impl):
    data = encoded(codec_impl, f"{NAME}()", tag=wire.TAG_DATACLASS)
    with pytest.raises(CodecError, match="is not registered here"):
        codec_impl.decode(data)
    with pytest.raises(CodecError, match="another kind of class"):
        codec_impl.decode(data, allow_pickle=True)


def test_class_that_needs_no_functions_is_not_read_by_one(codec_impl):
    with pytest.raises(CodecError, match="is not registered here"):
        codec_impl.decode(encoded(codec_impl, registry.name_of(Plain), 1))


def test_again_with_the_same_functions():
    assert snakepit_mp.register_type(Money, amount_of, money_of) is Money


@pytest.mark.parametrize(
    "functions", [(amount_of, tagged_of), (tag_of, money_of)], ids=["decode", "encode"]
)
def test_again_with_other_functions(functions):
    with pytest.raises(ValueError, match="registered already, in another way"):
        snakepit_mp.register_type(Money, *functions)


def test_another_class_of_that_name():
    other = type("Money", (), {"__module__": __name__})
    with pytest.raises(ValueError, match="registered already, in another way"):
        snakepit_mp.register_type(other, amount_of, money_of)
    assert registry.entry_of(other) is None


@pytest.mark.parametrize(
    "cls", [int, dict, bytearray, type(None), dt.datetime, dt.date, np.ndarray, np.float64]
)
def test_class_that_has_an_encoding(cls):
    with pytest.raises(TypeError, match="has an encoding already"):
        snakepit_mp.register_type(cls, str, str)


def test_what_is_no_class():
    with pytest.raises(TypeError, match="takes a class, not 3"):
        snakepit_mp.register_type(3, str, str)


@pytest.mark.parametrize("functions", [(str, None), (None, str)])
def test_one_function(functions):
    with pytest.raises(TypeError, match="both functions, or none"):
        snakepit_mp.register_type(Money, *functions)


def test_class_that_needs_functions():
    class Other:
        pass

    with pytest.raises(TypeError, match="no Enum, dataclass or named tuple"):
        snakepit_mp.register_type(Other)


def test_registering_from_many_threads():
    classes = [enum.Enum(f"Enum{number}", "A") for number in range(40)]
    for cls in classes:
        cls.__module__ = __name__
    threads = [threading.Thread(target=snakepit_mp.register_type, args=(cls,)) for cls in classes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(registry.entry_of(cls) is not None for cls in classes)


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
def test_the_main_module_has_one_name(module):
    cls = type("Thing", (), {"__module__": module})
    assert registry.name_of(cls) == "__main__:Thing"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("builtins:int", int),
        ("enum:Enum", enum.Enum),
        ("enum:nothing", None),
        ("enum:auto.value", None),
        ("enum:", None),
        (":x", None),
        ("os:getcwd", None),
        ("no_such_module:x", None),
        ("__main__:no_such_class", None),
    ],
)
@pytest.mark.parametrize("may_import", [False, True])
def test_class_named(name, found, may_import):
    assert registry.class_named(name, may_import=may_import) is found
