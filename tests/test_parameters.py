"""What annotations are checked, and what passes unchecked."""

from __future__ import annotations

import decimal
import fractions
import functools
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union
from unittest import mock

import numpy as np
import pytest

from snakepit_mp.parameters import ParameterSpec, bind_arguments, read_parameters, with_context

if TYPE_CHECKING:
    from decimal import Decimal as Unknown

T = TypeVar("T")


def parameter(function) -> ParameterSpec:
    [spec] = read_parameters(function, list(inspect.signature(function).parameters.values()))
    return spec


def of_int(x: int): ...
def of_float(x: float): ...
def of_complex(x: complex): ...
def of_str(x: str): ...
def of_bool(x: bool): ...
def of_bytes(x: bytes): ...
def of_list(x: list): ...  # type: ignore[type-arg]  # as many write it
def of_ints(x: list[int]): ...
def of_tuple(x: tuple[int, ...]): ...
def of_sequence(x: Sequence[int]): ...
def of_dict(x: dict[str, int]): ...
def of_mapping(x: Mapping[str, int]): ...
def of_optional(x: Optional[int]): ...  # noqa: UP045 - the older spelling
def of_union(x: Union[int, str]): ...  # noqa: UP007 - the older spelling
def of_bar(x: int | str | None): ...
def of_implicit(x: int = None): ...  # type: ignore[assignment]  # noqa: RUF013 - as older code has it


@pytest.mark.parametrize(
    ("function", "good", "bad"),
    [
        (of_int, [1, True, 2**70, np.int8(1)], [1.0, "1", None, [1]]),
        (of_float, [1.5, 1, np.float32(1), np.int64(1), fractions.Fraction(1, 2)], ["1", 1j, None]),
        (of_complex, [1j, 1, 1.5, np.complex64(1)], ["1", None]),
        (of_str, ["", np.str_("x")], [b"", 1, None]),
        (of_bool, [True, False, np.bool_(True)], [1, 0, "yes", None]),
        (of_bytes, [b"", bytearray()], ["", 1, None]),
        (of_list, [[], ()], ["ab", {}, 1, None, np.zeros(2)]),
        (of_ints, [[], (), ["items are not checked"]], ["ab", None]),
        (of_tuple, [(), []], ["ab", None]),
        (of_sequence, [[], (), range(3), "ab"], [1, {}, iter([]), None]),
        (of_dict, [{}], [[], None, 1]),
        (of_mapping, [{}], [[], None, 1]),
        (of_optional, [1, None], ["1", 1.5]),
        (of_union, [1, "1"], [None, 1.5]),
        (of_bar, [1, "1", None], [1.5, []]),
        (of_implicit, [1, None], ["1"]),
    ],
)
def test_checked(function, good, bad) -> None:
    spec = parameter(function)
    assert [value for value in good if not spec.admits(value)] == []
    assert [value for value in bad if spec.admits(value)] == []


def of_nothing(x): ...
def of_any(x: Any): ...
def of_iterable(x: Iterable[int]): ...
def of_decimal(x: decimal.Decimal): ...
def of_variable(x: T): ...
def of_part_any(x: int | decimal.Decimal): ...
def of_unknown(x: Unknown): ...
def of_nonsense(x: 1 / 0): ...  # type: ignore[valid-type]


@pytest.mark.parametrize(
    "function",
    [
        of_nothing,
        of_any,
        of_iterable,
        of_decimal,
        of_variable,
        of_part_any,
        of_unknown,
        of_nonsense,
    ],
)
def test_unchecked(function) -> None:
    spec = parameter(function)
    assert all(spec.admits(value) for value in (1, "1", None, [], object()))


def half_known(a: Unknown, b: int, c: Unknown | None = None): ...


def test_one_unresolvable_annotation_leaves_the_others_checked() -> None:
    specs = read_parameters(half_known, list(inspect.signature(half_known).parameters.values()))
    assert [spec.accepts for spec in specs] == [("any",), ("int",), ("any",)]


def test_names_visible_only_where_the_function_was_made_are_unchecked() -> None:
    class Local: ...

    def function(x: Local): ...

    assert parameter(function).admits(1)
    assert parameter(function).type == "Local"


def shapes(a, b: int = 3, *, c: list[int] = [1], d=object(), **e: float): ...  # noqa: B006, B008


def test_shape_and_defaults() -> None:
    a, b, c, d, e = read_parameters(shapes, list(inspect.signature(shapes).parameters.values()))
    assert (a.required, a.type, a.keyword_only) == (True, "", False)
    assert (b.required, b.type, b.default) == (False, "int", 3)
    assert (c.keyword_only, c.type, c.default) == (True, "list[int]", [1])
    assert (d.required, d.default) == (False, None), "only plain data travels"
    assert (e.variadic, e.required, e.accepts) == (True, False, ("float",))


# -- the context ----------------------------------------------------------------------------


class Holder:
    def method(self, ctx, n): ...

    def __call__(self, ctx, n=0): ...


def with_defaults(ctx=None, n=5): ...


@functools.wraps(with_defaults)
def wrapped(*args, **kwargs): ...


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (lambda ctx, n: None, (3,), {}, (("CTX", 3), {})),
        (lambda ctx, n: None, (), {"n": 3}, (("CTX",), {"n": 3})),
        (lambda n, ctx: None, (3,), {}, ((3, "CTX"), {})),
        (lambda n, ctx: None, (), {"n": 3}, ((), {"n": 3, "ctx": "CTX"})),
        (lambda n, ctx, m=0: None, (3, 4), {}, ((3, "CTX", 4), {})),
        (lambda n, *, ctx: None, (3,), {}, ((3,), {"ctx": "CTX"})),
        (lambda ctx, /, n: None, (), {"n": 3}, (("CTX",), {"n": 3})),
        (lambda ctx, *rest: None, (1, 2), {}, (("CTX", 1, 2), {})),
        (lambda *rest, ctx: None, (1, 2), {}, ((1, 2), {"ctx": "CTX"})),
        (with_defaults, (), {}, (("CTX",), {})),
        (with_defaults, (3,), {}, (("CTX", 3), {})),
        (wrapped, (3,), {}, (("CTX", 3), {})),
        (Holder().method, (3,), {}, (("CTX", 3), {})),
        (functools.partial(lambda n, ctx: None, 3), (), {}, (("CTX",), {})),
    ],
)
def test_the_pool_gives_ctx_and_positional_arguments_are_for_the_others(
    function, args, kwargs, expected
) -> None:
    assert with_context(function, args, kwargs, lambda: "CTX") == expected


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (lambda ctx, n: None, ("mine", 3), {}),
        (lambda ctx, n: None, ("mine",), {"n": 3}),
        (lambda ctx, n: None, (), {"ctx": "mine", "n": 3}),
        (lambda n, ctx=None: None, (3, "mine"), {}),
        (functools.partial(lambda n, ctx: None, ctx="mine"), (3,), {}),
        (lambda n: None, (3,), {}),
        (lambda *ctx: None, (3,), {}),
        (lambda **ctx: None, (), {"n": 3}),
        (Holder(), ("mine",), {}),
        (max, (1, 2), {}),
    ],
)
def test_arguments_that_need_no_ctx_stay_as_they_are(function, args, kwargs) -> None:
    assert with_context(function, args, kwargs, lambda: "CTX") == (args, kwargs)


# -- what can be called so --------------------------------------------------------------------


def local_ctx(n):
    ctx = n + 1
    return ctx * 2


def annotated(n):
    return n


annotated.__signature__ = inspect.Signature()  # type: ignore[attr-defined]


@pytest.mark.parametrize("args", [(), (1,), (1, 2), (1, 2, 3)])
@pytest.mark.parametrize("kwargs", [{}, {"n": 1}, {"unknown": 1}])
@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda n: None,
        lambda m, n=0: None,
        lambda n, /, m=1: None,
        lambda *rest: None,
        lambda m, *, n=1: None,
        lambda *, n: None,
        lambda **rest: None,
        local_ctx,
        wrapped,
        annotated,
        Holder().method,
        functools.partial(lambda m, n: None, 1),
        abs,
        divmod,
        dict,
        type("Made", (), {"__init__": lambda self, n: None}),
    ],
)
def test_a_quick_look_at_a_function_tells_what_its_signature_tells(function, args, kwargs) -> None:
    full, named = with_context(function, args, kwargs, lambda: None)
    try:
        signature = inspect.signature(function)
    except ValueError:  # as of `dict`
        fits = True
    else:
        try:
            signature.bind(*full, **named)
        except TypeError:
            fits = False
        else:
            fits = True
    if fits:
        bind_arguments(function, args, kwargs)
    else:
        with pytest.raises(TypeError, match=re.escape(str(signature))):
            bind_arguments(function, args, kwargs)


def test_the_signature_of_a_builtin_is_read_once() -> None:
    bind_arguments(divmod, (1, 2), {})
    with mock.patch("inspect.signature", side_effect=AssertionError):
        bind_arguments(divmod, (1, 2), {})
