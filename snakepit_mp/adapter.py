"""What do users write? `Adapter` classes with `@tool` methods, described by `ToolSpec`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar, overload

from .errors import ConfigError, InvalidArguments
from .parameters import (
    CONTEXT,
    ParameterSpec,
    read_parameters,
    signature_of,
    text_of_annotation,
)

__all__ = [
    "Adapter",
    "ParameterSpec",
    "ToolSpec",
    "methods_of",
    "retried_exceptions",
    "tool",
    "tool_name_of",
    "tools_of",
]

_F = TypeVar("_F", bound=Callable[..., Any])
_MARK = "__snakepit_mp_tool__"


class _UsualCall(NamedTuple):
    """A call that gives each parameter once, all by position or all by name."""

    names: tuple[str, ...]
    as_set: frozenset[str]
    restricted: tuple[ParameterSpec, ...]

    @classmethod
    def of(cls, parameters: tuple[ParameterSpec, ...]) -> _UsualCall | None:
        """``None`` where it takes more than a look."""
        if any(parameter.keyword_only or parameter.variadic for parameter in parameters):
            return None
        restricted = tuple(parameter for parameter in parameters if parameter.restricts)
        names = tuple(parameter.name for parameter in parameters)
        return cls(names, frozenset(names), restricted)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """All by keyword; ``None`` if it is another call, or one that must be refused."""
        names = self.names
        if not kwargs and len(args) == len(names):
            bound = dict(zip(names, args, strict=True))
        elif not args and kwargs.keys() == self.as_set:
            bound = dict(kwargs)
        else:
            return None
        for parameter in self.restricted:
            if not parameter.admits(bound[parameter.name]):
                return None
        return bound


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What the pool knows of a tool; picklable, and plain data by `to_dict`.

    ``timeout`` is in seconds. ``signature`` is shown in errors. ``takes_context`` tells
    whether a parameter named ``ctx``, which is not among ``parameters``, is to be given.
    ``retry_on``: names of exception classes.
    """

    name: str
    description: str = ""
    parameters: tuple[ParameterSpec, ...] = ()
    signature: str = ""
    streaming: bool = False
    is_async: bool = False
    takes_context: bool = False
    idempotent: bool = False
    timeout: float | None = None
    retries: int = 0
    retry_on: tuple[str, ...] = ()
    required_variables: tuple[str, ...] = ()
    _usual: _UsualCall | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_usual", _UsualCall.of(self.parameters))

    def to_dict(self) -> dict[str, Any]:
        """As dicts, tuples, strings and numbers."""
        data = asdict(self)
        del data["_usual"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ToolSpec:
        """The specification that `to_dict` was called on."""
        parameters = tuple(ParameterSpec(**parameter) for parameter in data["parameters"])
        return cls(**{**data, "parameters": parameters})

    def bind(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Check a call's arguments and return them all by keyword.

        Defaults are left to the tool. Raises `InvalidArguments` naming the parameter that
        is missing, unexpected, given twice or of the wrong type.
        """
        if self._usual is not None:
            usual = self._usual.bind(args, kwargs or {})
            if usual is not None:
                return usual
        bound = self._by_name(args)
        variadic = next((p for p in self.parameters if p.variadic), None)
        known = {p.name: p for p in self.parameters if not p.variadic}
        for name, value in (kwargs or {}).items():
            if name in bound:
                raise self._invalid(f"{name!r} is given twice")
            if name not in known and (variadic is None or not isinstance(name, str)):
                raise self._unexpected(name)
            bound[name] = value
        for name in known:
            if known[name].required and name not in bound:
                raise self._invalid(f"{name!r} is missing")
        for name, value in bound.items():
            self._check(name, known.get(name) or variadic, value)
        return bound

    def plain(self, arguments: object) -> dict[str, Any] | None:
        """As `bind`, of a call that needs no more than a look: a tuple or dict with each parameter
        once, none of which restricts its value. ``None`` for all others."""
        usual = self._usual
        if usual is None or usual.restricted:
            return None
        if type(arguments) is dict:
            return arguments if arguments.keys() == usual.as_set else None
        if type(arguments) is tuple and len(arguments) == len(usual.names):
            return dict(zip(usual.names, arguments, strict=True))
        return None

    def check_streaming(self, streaming: bool) -> None:
        """Raise `InvalidArguments` where a call wants a stream and the tool is none, or reverse."""
        if self.streaming and not streaming:
            raise InvalidArguments(
                f"tool {self.name!r} streams its results: it must be called as a stream"
            )
        if streaming and not self.streaming:
            raise InvalidArguments(
                f"tool {self.name!r} has a single result: it must not be called as a stream"
            )

    def _by_name(self, args: Sequence[Any]) -> dict[str, Any]:
        names = [p.name for p in self.parameters if not (p.keyword_only or p.variadic)]
        if len(args) > len(names):
            raise self._invalid(
                f"takes {len(names)} positional arguments, but {len(args)} are given"
            )
        return dict(zip(names, args, strict=False))

    def _check(self, name: str, parameter: ParameterSpec | None, value: Any) -> None:
        if name == CONTEXT and self.takes_context:
            raise self._unexpected(name)
        if parameter is not None and not parameter.admits(value):
            raise self._invalid(
                f"{name!r} must be {parameter.type}, not {type(value).__qualname__}"
            )

    def _unexpected(self, name: object) -> InvalidArguments:
        if name == CONTEXT and self.takes_context:
            return self._invalid(f"{CONTEXT!r} is provided by the pool and cannot be passed")
        return self._invalid(f"{name!r} is not a parameter")

    def _invalid(self, what: str) -> InvalidArguments:
        return InvalidArguments(f"{self.name}: {what}; the signature is {self.signature}")


@dataclass(frozen=True, slots=True)
class _Options:
    """What `@tool` was given."""

    name: str
    description: str
    timeout: float | None
    idempotent: bool
    retries: int
    retry_on: tuple[type[Exception], ...]
    required_variables: tuple[str, ...]


@overload
def tool(name: _F, /) -> _F: ...


@overload
def tool(
    name: str | None = None,
    *,
    description: str | None = None,
    timeout: float | None = None,
    idempotent: bool = False,
    retries: int = 0,
    retry_on: type[Exception] | Sequence[type[Exception]] = (),
    required_variables: Sequence[str] = (),
) -> Callable[[_F], _F]: ...


def tool(
    name: str | Callable[..., Any] | None = None,
    *,
    description: str | None = None,
    timeout: float | None = None,
    idempotent: bool = False,
    retries: int = 0,
    retry_on: type[Exception] | Sequence[type[Exception]] = (),
    required_variables: Sequence[str] = (),
) -> Any:
    """Mark a method of an `Adapter` as a tool, bare or with arguments; it stays callable.

    ``name`` defaults to the method's, ``description`` to its docstring. ``timeout``: seconds
    a call may take, instead of the pool's. ``idempotent``: the call may be run again if its
    worker dies. ``retries``: how often it may be run again after its worker's death, or after
    an exception of the classes ``retry_on``, each time after a longer wait and within its
    deadline. ``required_variables``: names that the call's session must have.

    A generator function is a streaming tool; ``async def`` works for both kinds. A
    parameter named ``ctx`` receives the call's `SessionContext`. A subclass that overrides
    a tool must mark its own method too. Raises `ConfigError` for anything wrong here.
    """
    if callable(name):
        return tool()(name)
    return partial(
        _mark,
        name=name,
        description=description,
        timeout=timeout,
        idempotent=idempotent,
        retries=retries,
        retry_on=retry_on,
        required_variables=required_variables,
    )


def _mark(
    function: Any,
    *,
    name: Any,
    description: Any,
    timeout: Any,
    idempotent: Any,
    retries: Any,
    retry_on: Any,
    required_variables: Any,
) -> Any:
    if not inspect.isfunction(function):
        raise ConfigError(
            f"@tool must be on a function, not {function!r}; put it below @staticmethod or "
            "@classmethod"
        )
    name = function.__name__ if name is None else name
    if not isinstance(name, str) or not name:
        raise ConfigError(f"@tool: name must be a non-empty str, not {name!r}")
    description = inspect.getdoc(function) or "" if description is None else description
    if not isinstance(description, str):
        raise ConfigError(f"@tool {name!r}: description must be a str, not {description!r}")
    if not isinstance(idempotent, bool):
        raise ConfigError(f"@tool {name!r}: idempotent must be a bool, not {idempotent!r}")
    _check_timeout(name, timeout)
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ConfigError(f"@tool {name!r}: retries must be an int of at least 0, not {retries!r}")
    options = _Options(
        name,
        description,
        timeout,
        idempotent,
        retries,
        _checked_exceptions(name, retry_on),
        _checked_names(name, required_variables),
    )
    setattr(function, _MARK, options)
    return function


def _check_timeout(name: str, timeout: Any) -> None:
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise ConfigError(f"@tool {name!r}: timeout must be a number or None, not {timeout!r}")
    if not (math.isfinite(timeout) and timeout > 0):
        raise ConfigError(f"@tool {name!r}: timeout must be above 0, not {timeout!r}")


def _checked_exceptions(name: str, classes: Any) -> tuple[type[Exception], ...]:
    classes = (classes,) if isinstance(classes, type) else classes
    if isinstance(classes, Sequence) and all(
        isinstance(each, type) and issubclass(each, Exception) for each in classes
    ):
        return tuple(classes)
    raise ConfigError(f"@tool {name!r}: retry_on must be exception classes, not {classes!r}")


def _checked_names(name: str, names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigError(f"@tool {name!r}: required_variables must be a sequence of names")
    if not all(isinstance(variable, str) for variable in names):
        raise ConfigError(f"@tool {name!r}: required_variables must all be str, not {names!r}")
    return tuple(names)


class Adapter:
    """Base class of what a pool's workers offer.

    One instance per worker, made without arguments after the fork. ``self`` may hold
    caches, never state that matters: workers come and go, sessions stay.
    """

    _snakepit_mp_tools: ClassVar[
        dict[str, tuple[str, ToolSpec]]
    ] = {}  # name: attribute, specification

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._snakepit_mp_tools = _collect(cls)

    def start(self) -> None:
        """Called once in each worker, before its first tool: load models, open files."""

    def stop(self) -> None:
        """Called once when a worker ends on purpose."""


def _collect(cls: type[Adapter]) -> dict[str, tuple[str, ToolSpec]]:
    """The tools among a class's attributes, by the ordinary rules of inheritance."""
    attributes: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        attributes.update(vars(base))
    found: dict[str, tuple[str, ToolSpec]] = {}
    for attribute, value in attributes.items():
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        options = getattr(function, _MARK, None) if inspect.isfunction(function) else None
        if not isinstance(options, _Options):
            continue
        if options.name in found:
            raise ConfigError(
                f"{cls.__qualname__} has two tools named {options.name!r}: "
                f"{found[options.name][0]} and {attribute}"
            )
        found[options.name] = (
            attribute,
            _specify(function, options, isinstance(value, staticmethod)),
        )
    return found


def _specify(function: Callable[..., Any], options: _Options, static: bool) -> ToolSpec:
    signature = signature_of(function)
    parameters = list(signature.parameters.values())[0 if static else 1 :]
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise ConfigError(
                f"tool {options.name!r}: parameter {str(parameter)!r} cannot be given by name"
            )
    given = [parameter for parameter in parameters if parameter.name != CONTEXT]
    code = inspect.unwrap(function)
    asynchronous = inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code)
    return ToolSpec(
        name=options.name,
        description=options.description,
        parameters=read_parameters(function, given),
        signature=_signature_text(options.name, given, signature.return_annotation),
        streaming=inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code),
        is_async=asynchronous,
        takes_context=len(given) < len(parameters),
        idempotent=options.idempotent,
        timeout=options.timeout,
        retries=options.retries,
        retry_on=tuple(f"{each.__module__}.{each.__qualname__}" for each in options.retry_on),
        required_variables=options.required_variables,
    )


def _signature_text(name: str, parameters: list[inspect.Parameter], returns: Any) -> str:
    parts = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        text = text_of_annotation(parameter.annotation)
        part = f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else parameter.name
        part += f": {text}" if text else ""
        if parameter.default is not parameter.empty:
            part += f" = {parameter.default!r}" if text else f"={parameter.default!r}"
        parts.append(part)
    arrow = f" -> {text_of_annotation(returns)}" if returns is not inspect.Signature.empty else ""
    return f"{name}({', '.join(parts)}){arrow}"


def tools_of(adapter: type[Adapter]) -> dict[str, ToolSpec]:
    """The tools of an adapter class by name."""
    if not (isinstance(adapter, type) and issubclass(adapter, Adapter)):
        raise ConfigError(f"an adapter must be a subclass of snakepit_mp.Adapter, not {adapter!r}")
    return {name: spec for name, (_, spec) in adapter._snakepit_mp_tools.items()}


def methods_of(adapter: Adapter) -> dict[str, tuple[ToolSpec, Callable[..., Any]]]:
    """The tools of an adapter instance by name, each with what to call."""
    return {
        name: (spec, getattr(adapter, attribute))
        for name, (attribute, spec) in type(adapter)._snakepit_mp_tools.items()
    }


def retried_exceptions(method: Callable[..., Any]) -> tuple[type[Exception], ...]:
    """After which exceptions a tool, as `methods_of` gives it, asks to be run again."""
    options = getattr(method, _MARK, None)
    return options.retry_on if isinstance(options, _Options) else ()


def tool_name_of(command: Callable[..., Any]) -> str | None:
    """The name of the tool that a `@tool` function or method is, else ``None``."""
    options = getattr(command, _MARK, None)
    return options.name if isinstance(options, _Options) else None
