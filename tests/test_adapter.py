"""Declaring tools, describing them, and checking calls against their signatures."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import pytest

from snakepit_mp.adapter import (
    Adapter,
    ToolSpec,
    methods_of,
    retried_exceptions,
    tool,
    tool_name_of,
    tools_of,
)
from snakepit_mp.errors import ConfigError, InvalidArguments
from snakepit_mp.values import codec


class Text(Adapter):
    """One tool of each kind."""

    @tool
    def shout(self, text: str, times: int = 1) -> str:
        """Make it loud."""
        return text.upper() * times

    @tool("whisper", description="softly", timeout=2, idempotent=True, required_variables=["v"])
    def lower(self, text: str) -> str:
        return text.lower()

    @tool()
    def count(self, n: int):
        yield from range(n)

    @tool
    async def later(self, n: int) -> int:
        return n

    @tool
    async def trickle(self, n: int):
        for number in range(n):
            yield number

    @tool
    def contextual(self, prompt, *, ctx, limit: int = 3):
        return prompt, ctx, limit

    @tool
    def options(self, first: str, **rest: int):
        return first, rest

    @staticmethod
    @tool
    def double(x: float) -> float:
        return 2 * x

    @classmethod
    @tool
    def kind(cls) -> str:
        return cls.__name__

    def helper(self): ...


TOOLS = tools_of(Text)


def test_tools_are_the_marked_methods() -> None:
    assert set(TOOLS) == {
        *("shout", "whisper", "count", "later", "trickle", "contextual", "options"),
        *("double", "kind"),
    }


def test_a_tool_stays_a_method() -> None:
    assert Text().shout("a", times=2) == "AA"
    assert Text.double(2) == 4


def test_methods_of_an_instance() -> None:
    methods = methods_of(Text())
    assert methods["whisper"][1]("A") == "a"
    assert methods["double"][1](x=2) == 4
    assert methods["kind"][1]() == "Text"
    assert methods["shout"][0] is TOOLS["shout"]


@pytest.mark.parametrize(
    ("name", "streaming", "is_async", "takes_context"),
    [
        ("shout", False, False, False),
        ("count", True, False, False),
        ("later", False, True, False),
        ("trickle", True, True, False),
        ("contextual", False, False, True),
    ],
)
def test_kind_of_tool(name, streaming, is_async, takes_context) -> None:
    spec = TOOLS[name]
    assert (spec.streaming, spec.is_async, spec.takes_context) == (
        streaming,
        is_async,
        takes_context,
    )


def test_options_and_description() -> None:
    assert TOOLS["shout"].description == "Make it loud."
    assert (TOOLS["shout"].timeout, TOOLS["shout"].idempotent) == (None, False)
    whisper = TOOLS["whisper"]
    assert (whisper.description, whisper.timeout, whisper.idempotent) == ("softly", 2, True)
    assert whisper.required_variables == ("v",)


@pytest.mark.parametrize("spec", TOOLS.values(), ids=list(TOOLS))
def test_a_spec_travels_as_plain_data(spec) -> None:
    assert ToolSpec.from_dict(codec.decode(codec.encode(spec.to_dict()))) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("shout", "shout(text: str, times: int = 1) -> str"),
        ("contextual", "contextual(prompt, *, limit: int = 3)"),
        ("options", "options(first: str, **rest: int)"),
        ("double", "double(x: float) -> float"),
    ],
)
def test_signature_as_shown(name, signature) -> None:
    assert TOOLS[name].signature == signature


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "bound"),
    [
        ("shout", ("a",), {}, {"text": "a"}),
        ("shout", ("a", 2), {}, {"text": "a", "times": 2}),
        ("shout", ("a",), {"times": 2}, {"text": "a", "times": 2}),
        ("shout", (), {"times": 2, "text": "a"}, {"text": "a", "times": 2}),
        ("options", ("a",), {"x": 1, "y": 2}, {"first": "a", "x": 1, "y": 2}),
        ("kind", (), {}, {}),
    ],
)
def test_bind(name, args, kwargs, bound) -> None:
    assert TOOLS[name].bind(args, kwargs) == bound
    assert TOOLS[name].bind((), bound) == bound, "a second check changes nothing"


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "message"),
    [
        ("shout", (), {}, "'text' is missing"),
        ("shout", ("a", 1, 2), {}, "takes 2 positional arguments, but 3 are given"),
        ("shout", ("a",), {"text": "b"}, "'text' is given twice"),
        ("shout", ("a",), {"time": 1}, "'time' is not a parameter"),
        ("shout", ("a",), {3: 1}, "3 is not a parameter"),
        ("options", ("a",), {3: 1}, "3 is not a parameter"),
        ("shout", (1,), {}, "'text' must be str, not int"),
        ("options", ("a",), {"x": "1"}, "'x' must be int, not str"),
        ("contextual", ("a",), {"ctx": 1}, "'ctx' is provided by the pool"),
        ("contextual", ("a", 3), {}, "takes 1 positional arguments"),
    ],
)
def test_bind_names_what_is_wrong(name, args, kwargs, message) -> None:
    with pytest.raises(InvalidArguments) as caught:
        TOOLS[name].bind(args, kwargs)
    assert message in str(caught.value)
    assert TOOLS[name].signature in str(caught.value)


def test_ctx_of_a_tool_with_free_keywords_cannot_be_passed_either() -> None:
    class Free(Adapter):
        @tool
        def free(self, ctx, **rest): ...

    with pytest.raises(InvalidArguments, match="provided by the pool"):
        tools_of(Free)["free"].bind((), {"ctx": 1})


def test_inherited_overridden_and_removed_tools() -> None:
    class Child(Text):
        @tool
        def shout(self, text: bytes): ...  # type: ignore[override]  # as it is, a tool of its own

        def count(self, n): ...

    assert tools_of(Child)["shout"].signature == "shout(text: bytes)"
    assert "count" not in tools_of(Child), "an override says for itself whether it is a tool"
    assert "later" in tools_of(Child)
    assert "count" in tools_of(Text), "the parent keeps its own"


def test_tools_of_a_mixin_count() -> None:
    class Mixin:
        @tool
        def mixed(self): ...

    class Both(Mixin, Adapter): ...

    assert set(tools_of(Both)) == {"mixed"}


def test_a_decorator_around_a_tool_keeps_signature_and_mark() -> None:
    def logged(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    class Wrapped(Adapter):
        @tool
        @logged
        def inside(self, a: int): ...

        @logged
        @tool
        def outside(self, a: int): ...

    assert {spec.signature for spec in tools_of(Wrapped).values()} == {
        "inside(a: int)",
        "outside(a: int)",
    }


def test_tool_name_of() -> None:
    assert tool_name_of(Text.lower) == "whisper"
    assert tool_name_of(Text().lower) == "whisper"
    assert tool_name_of(Text.helper) is None
    assert tool_name_of(len) is None


def test_an_adapter_does_nothing_at_start_and_stop_by_itself() -> None:
    adapter = Adapter()
    before = copy.copy(vars(adapter))
    adapter.start()
    adapter.stop()
    assert vars(adapter) == before


def test_two_tools_of_one_name() -> None:
    with pytest.raises(ConfigError, match="two tools named 'a': a and b"):

        class Twice(Adapter):
            @tool
            def a(self): ...

            @tool("a")
            def b(self): ...


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"description": 3}, "description"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1.5}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": "3"}, "timeout"),
        ({"idempotent": 1}, "idempotent"),
        ({"required_variables": "temperature"}, "required_variables"),
        ({"required_variables": [3]}, "required_variables"),
        ({"required_variables": 3}, "required_variables"),
    ],
)
def test_bad_option(options, message) -> None:
    with pytest.raises(ConfigError, match=message):

        @tool(**options)
        def function(self): ...


def test_a_tool_must_be_a_function() -> None:
    with pytest.raises(ConfigError, match="below @staticmethod"):
        tool(staticmethod(len))
    with pytest.raises(ConfigError, match="must be on a function"):
        tool(len)


@pytest.mark.parametrize("source", ["a, /", "*rest"])
def test_parameters_that_have_no_name_in_a_call(source) -> None:
    scope: dict[str, Any] = {}
    exec(f"def function(self, {source}): ...", scope)
    with pytest.raises(ConfigError, match="cannot be given by name"):
        type("Bad", (Adapter,), {"function": tool(scope["function"])})


@pytest.mark.parametrize("adapter", [int, "text", Text(), None])
def test_tools_of_demands_an_adapter_class(adapter) -> None:
    with pytest.raises(ConfigError, match="must be a subclass of"):
        tools_of(adapter)


def test_retries_and_what_they_follow():
    class Net(Adapter):
        @tool(retries=2, retry_on=(ConnectionError, TimeoutError))
        def fetch(self) -> None: ...

        @tool(retries=1, retry_on=OSError)
        def read(self) -> None: ...

        @tool
        def plain(self) -> None: ...

    specs = tools_of(Net)
    assert specs["fetch"].retries == 2
    assert specs["fetch"].retry_on == ("builtins.ConnectionError", "builtins.TimeoutError")
    assert ToolSpec.from_dict(specs["fetch"].to_dict()) == specs["fetch"]
    methods = methods_of(Net())
    classes = {name: retried_exceptions(method) for name, (_, method) in methods.items()}
    assert classes == {"fetch": (ConnectionError, TimeoutError), "read": (OSError,), "plain": ()}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"retries": -1}, "retries"),
        ({"retries": True}, "retries"),
        ({"retries": "1"}, "retries"),
        ({"retry_on": "OSError"}, "retry_on"),
        ({"retry_on": (1,)}, "retry_on"),
        ({"retry_on": KeyboardInterrupt}, "retry_on"),
    ],
)
def test_wrong_retries_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        tool(**options)(lambda self: None)


class Plain(Adapter):
    @tool
    def free(self, a, b=2):
        return a

    @tool
    def strict(self, a: int):
        return a

    @tool
    def many(self, **more):
        return more


@pytest.mark.parametrize(
    ("name", "arguments", "bound"),
    [
        ("free", (1, 2), {"a": 1, "b": 2}),
        ("free", {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        ("free", (1,), None),
        ("free", {"a": 1}, None),
        ("free", {"a": 1, "c": 2}, None),
        ("free", [1, 2], None),
        ("free", None, None),
        ("strict", (1,), None),
        ("many", {"x": 1}, None),
    ],
)
def test_a_plain_call_is_bound_as_any_other_or_not_at_all(name, arguments, bound):
    spec = tools_of(Plain)[name]
    assert spec.plain(arguments) == bound
    if isinstance(bound, dict):
        positional = arguments if isinstance(arguments, tuple) else ()
        assert spec.bind(positional, arguments if not positional else {}) == bound
