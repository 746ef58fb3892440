"""What does a command mean? A tool of the adapter, or a function that travels by value.

Everything that can be wrong with a call is found here, in the caller's thread, before a
worker is taken: an unknown tool, arguments that do not fit, a value that cannot be encoded.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..adapter import ToolSpec, tool_name_of
from ..errors import InvalidArguments, TaskTimeout, ToolNotFound, WorkerStartError
from ..lanes.context import ContextVariables
from ..lanes.envelope import Call, Outbound, encode_apart, encode_call, encode_function
from ..parameters import bind_arguments
from ..telemetry.trace import current_trace
from .engine import Engine

__all__ = ["Command", "Commands", "Shared"]


class Command(NamedTuple):
    """A call that is known to be good: its name for messages, its encoded body, its tool.

    ``kin`` and ``item``: if it may travel with others, what they have in common, and its own."""

    name: str
    body: Outbound
    spec: ToolSpec | None
    kin: bytes | None = None
    item: bytes = b""

    @property
    def idempotent(self) -> bool:
        return self.spec is not None and self.spec.idempotent

    @property
    def retries(self) -> int:
        return 0 if self.spec is None else self.spec.retries

    @property
    def timeout(self) -> float | None:
        return None if self.spec is None else self.spec.timeout


class Shared(NamedTuple):
    """What the calls of a map have in common. ``bind`` checks an item: it gives the keywords of a
    tool, or the positionals of a function, and raises `InvalidArguments`."""

    name: str
    spec: ToolSpec | None
    function: bytes | None
    session_id: str | None
    bind: Callable[[Any], Any]


class Commands:
    """Turns what users write into encoded calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._allow_pickle = engine.config.allow_pickle
        self._context = ContextVariables(engine.config.context)

    def tools(self, timeout: float | None = None) -> Mapping[str, ToolSpec]:
        """The adapter's tools; waits, where only the fork server can tell them."""
        engine = self._engine
        tools = engine.tools()
        if tools is None:
            known = engine.wait_until(
                lambda: engine.tools() is not None or engine.failure() is not None,
                engine.config.start_timeout if timeout is None else timeout,
            )
            tools = engine.tools()
            if tools is None and not known:
                raise TaskTimeout("the adapter was not imported in time", timeout=timeout)
        if tools is None:
            raise WorkerStartError("the adapter could not be imported") from engine.failure()
        return tools

    def prepare(
        self,
        command: str | Callable[..., Any],
        args: object,
        *,
        session_id: str | None,
        streaming: bool = False,
        timeout: float | None = None,
        apart: bool = False,
    ) -> Command:
        """Check and encode one call. ``apart``: it may travel with others."""
        positional, keywords = _split(args)
        name = command if isinstance(command, str) else tool_name_of(command)
        if name is not None:
            spec = self._find(name, timeout)
            spec.check_streaming(streaming)
            arguments = spec.bind(positional, keywords)
            call = self._call(name, None, (), arguments, session_id, streaming)
            return self._encoded(name, call, spec, apart)
        if not callable(command):
            raise InvalidArguments(
                f"a command is a tool's name or a callable, not {type(command).__name__}"
            )
        _check_signature(command, positional, keywords)
        label = getattr(command, "__qualname__", None) or repr(command)
        function = encode_function(command)
        call = self._call(None, function, positional, keywords, session_id, streaming)
        return self._encoded(label, call, None, apart)

    def _encoded(self, name: str, call: Call, spec: ToolSpec | None, apart: bool) -> Command:
        if apart and (encoded := encode_apart(call, allow_pickle=self._allow_pickle)) is not None:
            body, kin, item = encoded
            return Command(name, body, spec, kin, item)
        return Command(name, encode_call(call, allow_pickle=self._allow_pickle), spec)

    def share(
        self,
        command: str | Callable[..., Any],
        *,
        session_id: str | None,
        timeout: float | None = None,
    ) -> Shared | None:
        """What calls of the command have in common; ``None`` for what is no command at all."""
        name = command if isinstance(command, str) else tool_name_of(command)
        if name is not None:
            spec = self._find(name, timeout)
            return Shared(name, spec, None, session_id, functools.partial(_bind, spec))
        if not callable(command):
            return None
        _check_signature(command, (None,), {})
        label = getattr(command, "__qualname__", None) or repr(command)
        return Shared(label, None, encode_function(command), session_id, _alone)

    def call_of(self, shared: Shared) -> Call:
        """A call without arguments, of here and now."""
        command = None if shared.spec is None else shared.name
        return self._call(command, shared.function, (), {}, shared.session_id, False)

    def _call(
        self,
        command: str | None,
        function: bytes | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        session_id: str | None,
        streaming: bool,
    ) -> Call:
        """The call, with what it takes along of the context in which it is made."""
        context, trace = self._context.captured(), current_trace()
        return Call(command, function, args, kwargs, session_id, streaming, context, trace)

    def _find(self, name: str, timeout: float | None) -> ToolSpec:
        tools = self.tools(timeout)
        if name in tools:
            return tools[name]
        known = tuple(sorted(tools))
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        listed = ", ".join(known) if known else "none: the pool has no adapter with tools"
        raise ToolNotFound(f"no tool {name!r}{hint} Known: {listed}", name=name, known=known)


def _bind(spec: ToolSpec, item: object) -> dict[str, Any]:
    bound = spec.plain(item)
    if bound is None:
        return spec.bind(*_split(item))
    return bound.copy() if bound is item else bound


def _alone(item: object) -> tuple[object]:
    return (item,)


def _split(args: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A mapping gives keywords, a tuple or list positionals."""
    if type(args) is tuple:  # what is usual first, since to ask for a Mapping takes long
        return args, {}
    if args is None:
        return (), {}
    if isinstance(args, Mapping):
        if not all(isinstance(key, str) for key in args):
            raise InvalidArguments("the keys of args are parameter names, so they must be str")
        return (), dict(args)
    if isinstance(args, (tuple, list)):
        return tuple(args), {}
    raise InvalidArguments(
        "args must be a mapping (keywords), or a tuple or list (positionals), "
        f"not {type(args).__name__}"
    )


def _check_signature(
    function: Callable[..., Any], positional: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    try:
        bind_arguments(function, positional, keywords)
    except TypeError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise InvalidArguments(f"{name}{error}") from None
