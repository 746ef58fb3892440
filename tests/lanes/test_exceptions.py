"""Exceptions that behave, and all the ways in which their classes can misbehave."""

from __future__ import annotations

import dataclasses
import errno
import pickle
import sys
import threading
import types
from typing import Any

import numpy as np
import pytest

from snakepit_mp import errors
from snakepit_mp.errors import RemoteError
from snakepit_mp.lanes.exceptions import RemoteTraceback, describe, loads_known, revive
from snakepit_mp.values import codec


def sent(error: BaseException, *, allow_pickle: bool = True) -> Any:
    """The exception after a journey as plain data."""
    facts = codec.encode(describe(error, allow_pickle=allow_pickle))
    return revive(codec.decode(facts), allow_pickle=allow_pickle)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - of any kind
        return caught


# -- classes that misbehave, each in one way ----------------------------------------------


class Plain(Exception):
    pass


class OtherArguments(Exception):
    """Cannot be unpickled: its `__init__` wants more than `args` holds."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code} {detail}")
        self.code = code


class Reworded(Exception):
    """Unpickles without an error, but into another text."""

    def __init__(self, code: int, detail: str = "?") -> None:
        super().__init__(f"{code} {detail}")


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """No attribute can be set, `__cause__` included."""

    code: int


class RefusesToReduce(Exception):
    def __reduce__(self):
        raise TypeError("no")


class ExitsInReduce(Exception):
    def __reduce__(self):
        raise SystemExit(3)


class LiesAboutItsClass(Exception):
    def __reduce__(self):
        return ValueError, ("something else",)


class BecomesAnExit(Exception):
    def __reduce__(self):
        return SystemExit, (3,)


class BecomesAString(Exception):
    def __reduce__(self):
        return str, ("no exception at all",)


class RaisesWhenRestored(Exception):
    def __reduce__(self):
        return type(self), self.args, {"code": 1}

    def __setstate__(self, state) -> None:
        raise KeyboardInterrupt


class HoldsALock(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class ExitsWhenPrinted(Exception):
    def __str__(self) -> str:
        raise SystemExit(4)


class OddText(str):
    __slots__ = ()


class OddlyPrinted(Exception):
    def __str__(self) -> str:
        return OddText("odd")


class OddNotes(Exception):
    @property
    def __notes__(self):  # type: ignore[override]
        raise SystemExit(5)


class HasSlots(Exception):
    __slots__ = ("code",)

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 7


AS_THEMSELVES = [
    Plain("a", 1),
    OtherArguments(3, "x"),
    Reworded(3, "x"),
    KeywordOnly(code=3),
    Frozen(3),
    Unprintable("x"),
    ExitsWhenPrinted("x"),
    OddlyPrinted(),
    HasSlots("x"),
    ValueError("a"),
    KeyError("k"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    FileNotFoundError(errno.ENOENT, "No such file", "/x"),
    ImportError("no", name="mod", path="/x"),
    StopIteration(3),
    RecursionError("deep"),
    np.exceptions.AxisError(3, 2),
]

AS_REMOTE_ERROR = [
    RefusesToReduce("x"),
    ExitsInReduce("x"),
    LiesAboutItsClass("x"),
    BecomesAnExit("x"),
    BecomesAString("x"),
    RaisesWhenRestored("x"),
    HoldsALock("x"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    BaseExceptionGroup("both", [SystemExit(3)]),
    type("NowhereToBeFound", (Exception,), {})("x"),
]


def named(error: BaseException) -> str:
    return type(error).__name__


@pytest.mark.parametrize("error", AS_THEMSELVES, ids=named)
def test_arrives_as_itself(error) -> None:
    arrived = sent(raised(error))
    assert type(arrived) is type(error)
    assert arrived.args == error.args
    if not isinstance(error, (Unprintable, ExitsWhenPrinted)):
        assert str(arrived) == str(error)
    cause = arrived.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert str(cause).startswith("Traceback (most recent call last):\n")
    assert "in raised" in str(cause)


@pytest.mark.parametrize("error", AS_REMOTE_ERROR, ids=named)
def test_arrives_as_remote_error(error) -> None:
    arrived = sent(raised(error))
    assert type(arrived) is RemoteError
    assert arrived.type_name.endswith(type(error).__qualname__)
    assert arrived.message == str(error)
    assert "in raised" in arrived.traceback
    assert str(arrived.__cause__) == arrived.traceback


def test_attributes_arrive() -> None:
    assert sent(OtherArguments(3, "x")).code == 3
    assert sent(KeywordOnly(code=4)).code == 4
    assert sent(Frozen(5)).code == 5
    error: Any = FileNotFoundError(errno.ENOENT, "No such file", "/x")
    error.extra = (1, [2.0])
    for allow_pickle in (True, False):
        arrived = sent(error, allow_pickle=allow_pickle)
        assert (arrived.errno, arrived.filename, arrived.extra) == (errno.ENOENT, "/x", (1, [2.0]))
    arrived = sent(ImportError("no", name="mod"), allow_pickle=False)
    assert arrived.name == "mod"


def test_a_remote_error_of_an_unprintable_exception() -> None:
    class Local(Unprintable): ...

    arrived = sent(Local())
    assert type(arrived) is RemoteError
    assert arrived.message == "<the message cannot be shown>"


def test_notes_arrive_once() -> None:
    for error in (ValueError("x"), Plain("x"), OtherArguments(1, "x"), SystemExit(3)):
        error.add_note("one")
        error.add_note("two")
        assert sent(error).__notes__ == ["one", "two"]
        assert sent(error, allow_pickle=False).__notes__ == ["one", "two"]
    frozen = Frozen(3)
    BaseException.__setattr__(frozen, "__notes__", ["cold", 3])
    assert sent(frozen).__notes__ == ["cold", "3"]


def test_notes_that_raise_do_no_harm() -> None:
    assert isinstance(sent(OddNotes("x")), OddNotes)


def test_the_traceback_tells_the_whole_chain() -> None:
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise Plain("second") from error

    try:
        fail()
    except Plain as error:
        text = str(sent(error).__cause__)
    assert "KeyError: 'first'" in text
    assert "direct cause" in text
    assert "in fail" in text


def test_causes_that_go_round_in_a_circle() -> None:
    one, two = Plain("one"), Plain("two")
    one.__cause__, two.__cause__ = two, one
    assert str(sent(one)) == "one"


def test_an_exception_that_holds_itself() -> None:
    error = Plain("self")
    error.args = ("self", error)
    arrived = sent(error)
    assert type(arrived) is RemoteError
    assert arrived.type_name.endswith("Plain")


def test_members_of_a_group_arrive_each_in_its_own_way() -> None:
    group = ExceptionGroup(
        "several", [Plain("a"), HoldsALock("b"), ExceptionGroup("inner", [KeyError("c")])]
    )
    group.add_note("noted")
    arrived = sent(raised(group))
    assert type(arrived) is ExceptionGroup
    assert arrived.message == "several"
    assert [type(member) for member in arrived.exceptions] == [Plain, RemoteError, ExceptionGroup]
    assert type(arrived.exceptions[2].exceptions[0]) is KeyError
    assert arrived.__notes__ == ["noted"]
    assert "in raised" in str(arrived.__cause__)
    assert all(isinstance(member.__cause__, RemoteTraceback) for member in arrived.exceptions)


def test_a_group_nested_without_end_arrives() -> None:
    group: Exception = Plain("innermost")
    for level in range(100):
        group = ExceptionGroup(str(level), [group])
    arrived = sent(group)
    depth = 0
    while isinstance(arrived, ExceptionGroup):
        [arrived] = arrived.exceptions
        depth += 1
    assert type(arrived) is RemoteError
    assert 10 < depth < 100


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidArguments("bad"),
        errors.ToolNotFound("no", name="x", known=("a", "b")),
        errors.VersionConflict("late", current=4, expected=3),
        errors.SessionNotFound("gone", session_id="s"),
        errors.CodecError("bad", path="args[0]"),
        errors.RemoteError("text", type_name="a.B", traceback="tb"),
        errors.StoreFull("full"),
        errors.VariableTypeError("no float", variable="x", value="1"),
        errors.ConstraintViolation("low", variable="x", constraint="min", limit=1.0, value=0.5),
    ],
    ids=named,
)
@pytest.mark.parametrize("allow_pickle", [True, False])
def test_our_own_errors_arrive_with_their_facts(error, allow_pickle) -> None:
    arrived = sent(raised(error), allow_pickle=allow_pickle)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize("allow_pickle", [True, False])
@pytest.mark.parametrize("cls", [errors.VariableTypeError, errors.ConstraintViolation])
def test_a_refused_value_that_cannot_travel_arrives_as_text(cls, allow_pickle) -> None:
    error = cls("no", variable="x", value=threading.Lock())
    arrived = sent(raised(error), allow_pickle=allow_pickle)
    assert type(arrived) is cls
    assert arrived.variable == "x"
    assert arrived.value.startswith("<unlocked _thread.lock object")


def test_without_pickle_only_known_classes_and_plain_facts_arrive_as_themselves() -> None:
    def arrives_as(error: Exception) -> type:
        return type(sent(error, allow_pickle=False))

    assert arrives_as(ValueError("x", 1, b"2")) is ValueError
    assert arrives_as(Plain("x")) is RemoteError
    assert arrives_as(ValueError(object())) is RemoteError
    died = errors.WorkerDied("it died")
    assert arrives_as(errors.PoisonTaskError("x", deaths=(died,))) is RemoteError
    assert type(sent(errors.PoisonTaskError("x", deaths=(died,)))) is errors.PoisonTaskError


@pytest.mark.parametrize("allow_pickle", [True, False])
def test_a_receiver_without_pickle_unpickles_nothing(allow_pickle) -> None:
    for error in (Plain("x"), OtherArguments(1, "x")):
        facts = describe(error, allow_pickle=True)
        arrived = revive(facts, allow_pickle=allow_pickle)
        assert type(arrived) is (type(error) if allow_pickle else RemoteError)


# -- classes by name ----------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch):
    """A module with an exception, as a worker may have imported it."""
    module: Any = types.ModuleType("snakepit_mp_test_elsewhere")

    class Foreign(Exception): ...

    Foreign.__module__ = module.__name__
    Foreign.__qualname__ = "Foreign"
    module.Foreign = Foreign
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_class_of_a_module_not_imported_here_arrives_as_remote_error(
    elsewhere, monkeypatch
) -> None:
    facts = describe(elsewhere.Foreign("x"), allow_pickle=True)
    assert type(revive(facts, allow_pickle=True)) is elsewhere.Foreign
    monkeypatch.delitem(sys.modules, elsewhere.__name__)
    arrived = revive(facts, allow_pickle=True)
    assert type(arrived) is RemoteError
    assert arrived.type_name == "snakepit_mp_test_elsewhere.Foreign"


def test_reviving_imports_nothing(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with pytest.raises(pickle.UnpicklingError, match="not known in this process"):
        loads_known(b"cthis\ns\n.")
    assert "this" not in sys.modules


def test_a_modules_getattr_is_not_asked(elsewhere) -> None:
    asked: list[str] = []
    elsewhere.__getattr__ = asked.append
    with pytest.raises(pickle.UnpicklingError):
        loads_known(b"csnakepit_mp_test_elsewhere\nlazily_imported\n.")
    assert asked == []


@pytest.mark.parametrize(
    ("there", "here"), [("__mp_main__", "__main__"), ("__main__", "__mp_main__")]
)
def test_both_names_of_the_main_module_mean_the_same(there, here, monkeypatch) -> None:
    class OfMain(Exception): ...

    OfMain.__module__ = there
    OfMain.__qualname__ = "OfMain"
    module: Any = types.ModuleType(here)
    module.OfMain = OfMain
    facts_at_sender = {"class": (there, "OfMain"), "facts": pickle.dumps((("x",), {}))}
    monkeypatch.setitem(sys.modules, here, module)
    monkeypatch.delitem(sys.modules, there, raising=False)
    arrived = revive({**facts_at_sender, "type": "", "traceback": ""}, allow_pickle=True)
    assert type(arrived) is OfMain


def test_a_class_made_by_value_in_the_worker_arrives_as_the_one_of_that_name(monkeypatch) -> None:
    """As with an adapter of a notebook: the worker's class is a copy that no name leads to."""
    here, copied = (type("OfNotebook", (Exception,), {"__module__": "__main__"}) for _ in "12")
    monkeypatch.setattr(sys.modules["__main__"], "OfNotebook", here, raising=False)
    assert type(sent(copied("x"))) is here


@pytest.mark.parametrize(
    "facts",
    [
        {"class": ("builtins", "SystemExit"), "args": (3,), "state": {}},
        {"class": ("builtins", "exec"), "args": ("1/0",), "state": {}},
        {"class": ("os", "system"), "args": ("true",), "state": {}},
        {"class": ("subprocess", "CalledProcessError"), "args": (1, "x"), "state": {}},
        {"class": ("builtins", "ValueError"), "args": 3, "state": {}},
        {"class": 3},
        {"members": [], "args": ("empty",)},
        {"pickle": b"garbage"},
        {"pickle": pickle.dumps(SystemExit(3))},
        {"pickle": pickle.dumps("no exception")},
    ],
)
def test_facts_that_make_no_exception_make_a_remote_error(facts) -> None:
    arrived = revive({"type": "t", "message": "m", "traceback": "tb", **facts}, allow_pickle=True)
    assert type(arrived) is RemoteError
    assert (arrived.type_name, arrived.message, arrived.traceback) == ("t", "m", "tb")


def test_a_ctrl_c_while_an_exception_is_revived_gets_out() -> None:
    data = pickle.dumps(RaisesWhenRestored("x"))
    with pytest.raises(KeyboardInterrupt):
        revive({"type": "t", "message": "m", "traceback": "tb", "pickle": data}, allow_pickle=True)


# -- size ---------------------------------------------------------------------------------

MIB = 1 << 20


@pytest.mark.parametrize("cls", [ValueError, Plain, RefusesToReduce])
@pytest.mark.parametrize("allow_pickle", [True, False])
def test_an_exception_with_an_endless_message_is_told_by_its_beginning_and_end(
    cls, allow_pickle
) -> None:
    error = cls("first " + "x" * (17 * MIB) + " last")
    error.add_note("noted " + "y" * (2 * MIB))
    facts = describe(raised(error), allow_pickle=allow_pickle)
    assert len(codec.encode(facts)) < 4 * MIB
    arrived = revive(facts, allow_pickle=allow_pickle)
    assert type(arrived) is RemoteError
    assert arrived.message.startswith("first xxx")
    assert arrived.message.endswith("xxx last")
    assert "\n[... 16777227 characters are left out ...]\n" in arrived.message
    assert "in raised" in arrived.traceback
    assert arrived.__notes__[0].startswith("noted yyy")


def test_an_exception_with_a_long_message_still_arrives_as_itself() -> None:
    for error in (ValueError("x" * (2 * MIB)), Plain("x" * (2 * MIB))):
        arrived = sent(error)
        assert type(arrived) is type(error)
        assert arrived.args == error.args
        assert len(str(arrived.__cause__)) < 1.1 * MIB


def test_an_exception_that_holds_a_large_array_is_told_in_texts() -> None:
    error = OtherArguments(3, "x")
    error.data = np.zeros(3 * MIB)
    arrived = sent(error)
    assert type(arrived) is RemoteError
    assert arrived.message == "3 x"
