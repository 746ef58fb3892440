"""How does an exception cross a process boundary as itself, and never as something worse?

The sender describes it in plain values and tries the description out; what does not come
back with the same class and text travels as facts, or as `RemoteError`. The receiver looks
classes up in modules that are imported already and imports nothing.
"""

from __future__ import annotations

import io
import pickle
import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, TypeVar, cast

from .. import errors
from ..errors import ConstraintViolation, RemoteError, SnakepitError, VariableTypeError
from ..values import codec
from ..values.shown import shorten

__all__ = ["RemoteTraceback", "describe", "loads_known", "revive", "text_of"]

_T = TypeVar("_T")
_U = TypeVar("_U")
_MAINS = ("__main__", "__mp_main__")
_MAX_DEPTH = 20
#: Characters of a text about an exception; of more, the beginning and the end are told.
_MAX_TEXT = 1 << 20
#: Bytes of an exception that travels as itself.
_MAX_BODY = 16 << 20


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a worker; its text is the traceback."""


class _KnownModulesUnpickler(pickle.Unpickler):
    """Resolves names only in modules that are imported already."""

    def find_class(self, module: str, name: str) -> Any:
        found = _look_up(module, name)
        if found is None:
            raise pickle.UnpicklingError(f"{module}.{name} is not known in this process")
        return found


def loads_known(data: bytes) -> Any:
    """Unpickle without importing anything."""
    return _KnownModulesUnpickler(io.BytesIO(data)).load()


def describe(error: BaseException, *, allow_pickle: bool, depth: int = 0) -> dict[str, Any]:
    """The plain facts of an exception, from which `revive` makes it again.

    Nothing that the exception's own methods raise gets out of here. Texts are cut to about
    1 MiB each; an exception of more than 16 MiB is told in texts only.
    """
    facts: dict[str, Any] = {
        "type": _attempt(lambda: _type_name(type(error)), "<unknown>"),
        "message": _cut(text_of(error)),
        "traceback": _attempt(lambda: _traceback(error), "<the traceback cannot be shown>"),
        "notes": _attempt(lambda: _notes(error), ()),
    }
    if isinstance(error, Exception):  # SystemExit and its like must not be raised elsewhere
        body: dict[str, Any] | None = _attempt(lambda: _body(error, allow_pickle, depth), None)
        facts.update(body or {})
    return facts


def revive(facts: dict[str, Any], *, allow_pickle: bool) -> Exception:
    """The exception that `describe` was given, with its remote traceback as cause.

    ``KeyboardInterrupt`` gets out of here, since it may be a Ctrl-C.
    """
    try:
        error = _rebuild(facts, allow_pickle)
    except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001 - but no Ctrl-C
        error = None
    if not isinstance(error, Exception):
        error = RemoteError(
            str(facts.get("message", "")),
            type_name=str(facts.get("type", "")),
            traceback=str(facts.get("traceback", "")),
        )
    # The class may refuse attributes, or have hidden these by its own.
    notes = [str(note) for note in facts.get("notes", ())]
    if notes:
        BaseException.__setattr__(error, "__notes__", notes)
    cause = RemoteTraceback(str(facts.get("traceback", "")))
    BaseException.__setattr__(error, "__cause__", cause)
    return error


def text_of(error: BaseException) -> str:
    """``str(error)``, also where that raises."""
    return _attempt(lambda: _exact(str(error)), "<the message cannot be shown>")


def _cut(text: str) -> str:
    left_out = len(text) - _MAX_TEXT
    if left_out <= 0:
        return text
    half = _MAX_TEXT // 2
    return f"{text[:half]}\n[... {left_out} characters are left out ...]\n{text[-half:]}"


def _attempt(step: Callable[[], _T], otherwise: _U) -> _T | _U:
    try:
        return step()
    except BaseException:  # noqa: BLE001 - foreign __reduce__, __str__, __setstate__
        return otherwise


def _traceback(error: BaseException) -> str:
    return _cut(_exact("".join(traceback.format_exception(error))))


def _type_name(cls: type[BaseException]) -> str:
    if cls.__module__ == "builtins":
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


def _exact(text: str) -> str:
    """Without whatever subclass of str somebody's __str__ returned."""
    return str.__str__(text)


def _notes(error: BaseException) -> tuple[str, ...]:
    return tuple(_cut(_exact(str(note))) for note in getattr(error, "__notes__", ()))


def _body(error: Exception, allow_pickle: bool, depth: int) -> dict[str, Any]:
    """How to make the exception again: the first way that gives the same class and text."""
    if type(error) is ExceptionGroup:
        return _by_members(error, allow_pickle, depth)
    for way in _WAYS if allow_pickle else _WAYS_WITHOUT_PICKLE:
        body = _attempt(partial(way, error), None)
        if body is not None and _attempt(partial(_gives_back, body, error), False):
            return body
    return {}


def _by_members(group: ExceptionGroup[Any], allow_pickle: bool, depth: int) -> dict[str, Any]:
    if depth >= _MAX_DEPTH:
        return {}
    members = [
        describe(member, allow_pickle=allow_pickle, depth=depth + 1) for member in group.exceptions
    ]
    return {"members": members, "args": (_exact(group.message),)}


def _by_pickle(error: Exception) -> dict[str, Any] | None:
    data = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
    return {"pickle": data} if len(data) <= _MAX_BODY else None


def _by_pickled_facts(error: Exception) -> dict[str, Any] | None:
    """For a class whose `__init__` takes other arguments than it hands to its base, or
    that cannot be found by name here: arguments and attributes, without calling it."""
    cls = type(error)
    if isinstance(cls.__reduce__, FunctionType) or isinstance(cls.__reduce_ex__, FunctionType):
        return None  # its author has a say in how it travels
    facts = pickle.dumps((error.args, error.__dict__), pickle.HIGHEST_PROTOCOL)
    if len(facts) > _MAX_BODY:
        return None
    return {"class": (cls.__module__, cls.__qualname__), "facts": facts}


def _by_plain_facts(error: Exception) -> dict[str, Any] | None:
    """Our own errors and the built-in ones need no pickle, if what they hold does not."""
    cls = type(error)
    if not _is_plain_class(cls):
        return None
    args: Any
    state: Any
    if isinstance(error, SnakepitError):
        args, state = error.args, error.__dict__
    else:
        _, args, state, *_ = (*cast("tuple[Any, ...]", error.__reduce__()), None)
    return _plain_body(cls, args, state or {})


def _by_shown_value(error: Exception) -> dict[str, Any] | None:
    """What a variable refused may be anything, and is told as text where it cannot travel."""
    if type(error) not in (VariableTypeError, ConstraintViolation):
        return None
    state = {**error.__dict__, "value": shorten(error.__dict__["value"])}
    return _plain_body(type(error), error.args, state)


def _plain_body(cls: type, args: Any, state: dict[str, Any]) -> dict[str, Any] | None:
    state = {name: fact for name, fact in state.items() if name != "__notes__"}
    body = {"class": (cls.__module__, cls.__qualname__), "args": args, "state": state}
    size = len(codec.encode(body))  # which fails where the facts hold what is not plain
    return body if size <= _MAX_BODY else None


_Way = Callable[[Any], dict[str, Any] | None]
_WAYS: tuple[_Way, ...] = (_by_plain_facts, _by_pickle, _by_pickled_facts, _by_shown_value)
_WAYS_WITHOUT_PICKLE: tuple[_Way, ...] = (_by_plain_facts, _by_shown_value)


def _is_plain_class(cls: type) -> bool:
    return cls.__module__ in ("builtins", errors.__name__) and issubclass(cls, Exception)


def _gives_back(body: dict[str, Any], error: Exception) -> bool:
    again = _rebuild(body, allow_pickle=True, cls=type(error))
    return type(again) is type(error) and _text(again) == _text(error)


def _text(error: Exception) -> str | None:
    return _attempt(lambda: str(error), None)


def _rebuild(
    facts: dict[str, Any], allow_pickle: bool, cls: type[Exception] | None = None
) -> Exception | None:
    if "members" in facts:
        members = [revive(member, allow_pickle=allow_pickle) for member in facts["members"]]
        return ExceptionGroup(facts["args"][0], members)
    if "pickle" in facts and allow_pickle:
        return cast("Exception", loads_known(facts["pickle"]))
    if "class" not in facts:
        return None
    cls = cls or _look_up(*facts["class"])
    if not (isinstance(cls, type) and issubclass(cls, Exception)):
        return None
    if "facts" in facts:
        return _restored(cls, *loads_known(facts["facts"])) if allow_pickle else None
    return _from_plain_facts(cls, facts["args"], facts["state"])


def _from_plain_facts(
    cls: type[Exception], args: tuple[Any, ...], state: dict[str, Any]
) -> Exception | None:
    if not _is_plain_class(cls):
        return None
    error = cls(*args)
    if state:
        error.__setstate__(state)
    return error


def _restored(cls: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    error = cls.__new__(cls, *args)
    BaseException.__setattr__(error, "args", args)
    error.__dict__.update(state)
    return error


def _look_up(module: str, qualified_name: str) -> Any:
    """What that name means in the modules of this process, or ``None``."""
    # A script's module has another name in processes that prepared it for their own use.
    modules = (module, *_MAINS) if module in _MAINS else (module,)
    first, *rest = qualified_name.split(".")
    for name in modules:
        # Not getattr: a module may have one that imports.
        found = vars(sys.modules[name]).get(first) if name in sys.modules else None
        for part in rest:
            found = getattr(found, part, None)
        if found is not None:
            return found
    return None
