"""What does a tool's parameter accept? Read from its annotation, checked before it runs.

Only simple types are checked, by tokens, so that a description can travel as plain data to
a process that does not have the tool's code. Everything else is accepted unchecked.
"""

from __future__ import annotations

import collections.abc
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

__all__ = [
    "CONTEXT",
    "ParameterSpec",
    "bind_arguments",
    "read_parameters",
    "signature_of",
    "text_of_annotation",
    "with_context",
]

#: The parameter that the pool fills, with the context of the call.
CONTEXT = "ctx"

_GIVABLE = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)

_ANY = ("any",)
_MISSING = inspect.Parameter.empty

#: The token of each annotation that is checked, looked up by the origin of generics.
_TOKENS: dict[type, str] = {
    int: "int",
    float: "float",
    complex: "complex",
    str: "str",
    bool: "bool",
    bytes: "bytes",
    list: "list",
    tuple: "list",
    collections.abc.Sequence: "sequence",
    dict: "dict",
    collections.abc.Mapping: "dict",
    type(None): "none",
}

#: What a token accepts. NumPy registers its scalars with the abstract number classes.
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "int": (numbers.Integral,),
    "float": (numbers.Real,),
    "complex": (numbers.Complex,),
    "str": (str,),
    "bool": (bool,),
    "bytes": (bytes, bytearray),
    "list": (list, tuple),
    "sequence": (collections.abc.Sequence,),
    "dict": (collections.abc.Mapping,),
    "none": (type(None),),
}


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter of a tool.

    ``type`` is the annotation's text, ``""`` without one. ``default`` is the default where
    that is plain data, else ``None``; ``required`` tells whether there is one. ``variadic``
    is true of ``**options``. ``accepts`` holds the tokens that `check` goes by.
    """

    name: str
    type: str = ""
    required: bool = True
    default: Any = None
    keyword_only: bool = False
    variadic: bool = False
    accepts: tuple[str, ...] = _ANY

    @property
    def restricts(self) -> bool:
        """Whether there are values that it does not admit."""
        return self.accepts != _ANY

    def admits(self, value: Any) -> bool:
        """Whether the tool may be given this value."""
        return self.accepts == _ANY or any(_fits(token, value) for token in self.accepts)


def _fits(token: str, value: Any) -> bool:
    if isinstance(value, _ACCEPTED[token]):
        return True
    if token == "bool":  # noqa: S105 - no secret; NumPy's is no subclass of bool
        cls = type(value)
        return cls.__module__ == "numpy" and cls.__name__ in ("bool", "bool_")
    return False


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function, whether its annotations can be resolved or not."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def with_context(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    make: Callable[[], Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, with what ``make`` returns as ``ctx`` where the pool gives it.

    That is so for a function, method or partial with a parameter of this name, as for a
    tool: positional arguments are for the other parameters. But a caller may pass a ``ctx``
    of their own, by keyword or with positional arguments that fit in no other way.
    """
    if CONTEXT in kwargs or _speaks_of_none(function) or not _is_function(function):
        return args, kwargs
    signature = signature_of(function)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    if kinds.get(CONTEXT) not in _GIVABLE:
        return args, kwargs
    index = list(kinds).index(CONTEXT)
    if kinds[CONTEXT] is inspect.Parameter.KEYWORD_ONLY or index > len(args):
        filled = args, {**kwargs, CONTEXT: make()}
    else:
        filled = (*args[:index], make(), *args[index:]), kwargs
    passed = _fit(signature, args, kwargs) and not _fit(signature, *filled)
    return (args, kwargs) if passed else filled


def bind_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise `TypeError` if the function cannot be called so, as far as its signature tells; some
    builtins have none. What the pool gives it is not missed."""
    if _takes(function, args, kwargs):
        return
    try:
        signature = _known_signature(function)
    except (TypeError, ValueError):
        return  # the call itself will tell
    args, kwargs = with_context(function, args, kwargs, lambda: None)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{signature}: {error}") from None


def _takes(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a look at its code tells that it can be called so: a signature takes far longer."""
    if kwargs or not _speaks_of_none(function):
        return False
    code: types.CodeType = function.__code__
    optional = len(function.__defaults__ or ())
    most = code.co_argcount
    return not code.co_kwonlyargcount and most - optional <= len(args) <= most


def _speaks_of_none(function: Callable[..., Any]) -> bool:
    """Whether it is plainly a function that is given no context; ``False`` says nothing."""
    return (
        type(function) is types.FunctionType
        and not function.__dict__  # no wrapper, whose signature may be another's
        and CONTEXT not in function.__code__.co_varnames
    )


def _known_signature(function: Callable[..., Any]) -> inspect.Signature:
    if type(function) is types.BuiltinFunctionType and type(function.__self__) is types.ModuleType:
        return _signature_of_builtin(function)
    return inspect.signature(function)


@lru_cache(maxsize=256)
def _signature_of_builtin(function: Callable[..., Any]) -> inspect.Signature:
    """It is read from text, each time, and never changes."""
    return inspect.signature(function)


def _is_function(function: Callable[..., Any]) -> bool:
    """Not a class or an object, where it may be by chance that a parameter has our name."""
    if isinstance(function, partial):
        return CONTEXT not in function.keywords and _is_function(function.func)
    return inspect.isfunction(function) or inspect.ismethod(function)


def _fit(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def read_parameters(
    function: Callable[..., Any], parameters: list[inspect.Parameter]
) -> tuple[ParameterSpec, ...]:
    """Describe these parameters of a function."""
    hints = _hints(function, parameters)
    return tuple(_read(parameter, hints) for parameter in parameters)


def _read(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> ParameterSpec:
    variadic = parameter.kind is inspect.Parameter.VAR_KEYWORD
    has_default = parameter.default is not _MISSING
    accepts = _accepts(hints.get(parameter.name, Any))
    if has_default and parameter.default is None and accepts != _ANY:
        accepts = (*accepts, "none")  # `x: int = None` means an optional int
    return ParameterSpec(
        name=parameter.name,
        type=text_of_annotation(parameter.annotation),
        required=not (has_default or variadic),
        default=parameter.default if has_default and _is_plain(parameter.default) else None,
        keyword_only=parameter.kind is inspect.Parameter.KEYWORD_ONLY,
        variadic=variadic,
        accepts=accepts,
    )


def text_of_annotation(annotation: Any) -> str:
    """An annotation as its author would write it; ``""`` if there is none."""
    if annotation is _MISSING:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _hints(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - one cannot be resolved: see which can
        return {
            parameter.name: _resolved(parameter.annotation, function) for parameter in parameters
        }


def _resolved(annotation: Any, function: Callable[..., Any]) -> Any:
    """One annotation, or ``Any`` if evaluating it fails (a name for type checkers only)."""
    if not isinstance(annotation, str):
        return annotation
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return eval(annotation, scope)  # noqa: S307 - the user's own source
    except Exception:  # noqa: BLE001 - it may raise what it likes
        return Any


def _accepts(annotation: Any) -> tuple[str, ...]:
    """The tokens of an annotation; ``("any",)`` for what is not checked."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        tokens = [token for part in typing.get_args(annotation) for token in _accepts(part)]
        return _ANY if "any" in tokens else tuple(dict.fromkeys(tokens))
    plain = annotation if origin is None else origin
    if plain is None:
        return ("none",)
    return (_TOKENS[plain],) if isinstance(plain, type) and plain in _TOKENS else _ANY


def _is_plain(value: Any) -> bool:
    """Whether a default can travel in a description."""
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(_is_plain(item) for item in value)
    if type(value) is dict:
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str, bytes)
