"""What is in a request, and what is in a reply? The frames that every lane carries.

A frame is a fixed header and a body. The header can be read, and the request be noted,
before anything of the body is decoded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from ..errors import CodecError
from ..telemetry.trace import TraceContext
from ..values import codec, tuples
from .exceptions import describe, revive, text_of

__all__ = [
    "HEADER_SIZE",
    "LONG",
    "REQUEST_ID_AT",
    "Call",
    "Frame",
    "Header",
    "Kind",
    "Outbound",
    "Pieces",
    "Reply",
    "decode_call",
    "decode_reply",
    "encode_apart",
    "encode_batched",
    "encode_call",
    "encode_end",
    "encode_error",
    "encode_function",
    "encode_together",
    "encode_value",
    "frame",
    "header_of",
    "is_value",
    "outbound",
    "request_id_of",
    "whole",
]

_VERSION = 0xA1
# version, kind, attempt, flags, request id, deadline
_HEADER = struct.Struct("<BBHIQd")
# lengths of the first two of three parts: head, args, kwargs
_PARTS = struct.Struct("<QQ")
_BODY_AT = _HEADER.size + _PARTS.size
HEADER_SIZE, REQUEST_ID_AT = _HEADER.size, struct.calcsize("<BBHI")
_REQUEST_ID = struct.Struct("<Q")
_MAX_ATTEMPT = 0xFFFF
_RETRYABLE = 1


class Kind(IntEnum):
    """What a frame is."""

    CALL = 1
    VALUE = 2
    ERROR = 3
    ITEM = 4
    END = 5
    BATCH = 6  # a call with several items, each of which is run as a call of its own
    BATCHED = 7  # its end; the results are in the mailbox's journal


#: A frame that was received; as a memoryview it is never changed, as `bytes` are not.
Frame = bytes | memoryview


class Pieces:
    """A long frame, or its body, that is not put together: that would cost a copy or two."""

    __slots__ = ("parts",)

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))


#: A frame to be sent.
Outbound = bytes | Pieces

#: Bytes from which on a frame stays in pieces.
LONG = 256 << 10

#: Bytes of a call's head, or of its arguments, that may travel with others.
_LARGEST_ITEM = 4096
_NO_ARGS, _NO_KWARGS = codec.encode(()), codec.encode({})

_VALUE = int(Kind.VALUE)
_KINDS = {int(kind): kind for kind in Kind}


class Header(NamedTuple):
    """The fixed part of a frame.

    ``attempt`` counts from 1; ``deadline`` is on `time.monotonic`, whose clock all
    processes of a machine share, or ``None``. ``retryable``: of an ERROR, the tool asks to be
    retried after it.
    """

    kind: Kind
    request_id: int
    attempt: int
    deadline: float | None
    retryable: bool = False


@dataclass(slots=True)  # not frozen, which would take three times as long to make
class Call:
    """A request: ``command`` names a tool, or else ``function`` is a callable's cloudpickle.

    ``context``: values of the caller's context variables, by name.
    """

    command: str | None = None
    function: bytes | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    streaming: bool = False
    context: dict[str, Any] = field(default_factory=dict)
    trace: TraceContext | None = None


class Reply(NamedTuple):
    """A reply: ``value`` belongs to VALUE and ITEM, ``error`` to ERROR."""

    kind: Kind
    request_id: int
    value: Any = None
    error: Exception | None = None


def frame(
    kind: Kind,
    request_id: int,
    attempt: int,
    body: bytes,
    deadline: float | None = None,
    *,
    flags: int = 0,
) -> bytes:
    """Put a header before a body; a later attempt frames the same body again."""
    at = math.inf if deadline is None else deadline
    return _HEADER.pack(_VERSION, kind, min(attempt, _MAX_ATTEMPT), flags, request_id, at) + body


def outbound(
    kind: Kind, request_id: int, attempt: int, body: Outbound, deadline: float | None = None
) -> Outbound:
    """As `frame`, but a long one stays in pieces."""
    if isinstance(body, Pieces):
        return Pieces(frame(kind, request_id, attempt, b"", deadline), *body.parts)
    if len(body) >= LONG:
        return Pieces(frame(kind, request_id, attempt, b"", deadline), body)
    return frame(kind, request_id, attempt, body, deadline)


def whole(data: Outbound) -> bytes:
    """The frame in one piece."""
    return data if isinstance(data, bytes) else b"".join(data.parts)


def header_of(data: Frame) -> Header:
    """Read the header; `CodecError` for anything that is not a frame of this version."""
    if len(data) < HEADER_SIZE or data[0] != _VERSION:
        raise CodecError("these bytes are not a frame of this version of the library")
    _, number, attempt, flags, request_id, deadline = _HEADER.unpack_from(data)
    kind = _KINDS.get(number)
    if kind is None:
        raise CodecError(f"unknown kind of frame: {number}")
    until = None if deadline == math.inf else deadline
    return Header(kind, request_id, attempt, until, bool(flags & _RETRYABLE))


def request_id_of(data: Frame | Pieces) -> int:
    """The number of a frame's request, as `header_of` tells it, and in less time."""
    if isinstance(data, Pieces):
        data = data.parts[0]
    if len(data) < HEADER_SIZE or data[0] != _VERSION:
        raise CodecError("these bytes are not a frame of this version of the library")
    number: int = _REQUEST_ID.unpack_from(data, REQUEST_ID_AT)[0]
    return number


def is_value(data: Frame) -> bool:
    """Whether a frame is a VALUE, as `header_of` tells it, and in less time."""
    return len(data) >= HEADER_SIZE and data[0] == _VERSION and data[1] == _VALUE


def encode_call(call: Call, *, allow_pickle: bool = False, plain_args: bool = False) -> Outbound:
    """The body of a CALL frame; a `CodecError` names the path within ``args``.

    ``plain_args``: of these nothing may travel by pickle, whatever else may.
    """
    head = _encode_head(call, allow_pickle)
    args = codec.encode(call.args, allow_pickle=allow_pickle and not plain_args, root="args")
    kwargs = codec.encode(call.kwargs, allow_pickle=allow_pickle, root="args")
    parts = (_PARTS.pack(len(head), len(args)), head, args, kwargs)
    if len(args) + len(kwargs) >= LONG:
        return Pieces(*parts)
    return b"".join(parts)


def _encode_head(call: Call, allow_pickle: bool) -> bytes:
    """All but the arguments."""
    if call.function is not None and not allow_pickle:
        raise CodecError(
            "a callable travels by pickle, but allow_pickle is False; make it a @tool",
            path="command",
        )
    context = b""
    if call.context:
        context = codec.encode(call.context, allow_pickle=allow_pickle, root="context")
    trace = None if call.trace is None else (call.trace.traceparent, call.trace.tracestate)
    return codec.encode(
        (call.command, call.function, call.session_id, call.streaming, context, trace)
    )


def encode_apart(call: Call, *, allow_pickle: bool = False) -> tuple[bytes, bytes, bytes] | None:
    """The body of a CALL frame that may also travel with others; what it has in common with them,
    and what of it is its own, for `encode_together`.

    ``None`` if it can only travel alone: it is large, or streams, or something of its arguments
    would travel by pickle, which is for its own decoder to meet; or `encode_call` would raise.
    """
    of_function = call.function is not None
    if call.streaming or (of_function and (call.kwargs or not allow_pickle)):
        return None
    try:
        item = codec.encode((call.args if of_function else call.kwargs,))
        if len(item) > _LARGEST_ITEM:
            return None
        head = _encode_head(call, allow_pickle)
    except CodecError:
        return None
    if len(head) > _LARGEST_ITEM:
        return None
    own = tuples.item_of(item)
    args, kwargs = (own, _NO_KWARGS) if of_function else (_NO_ARGS, own)
    return b"".join((_PARTS.pack(len(head), len(args)), head, args, kwargs)), head, item


def encode_together(head: bytes, items: list[bytes]) -> bytes:
    """The body of a BATCH frame, of what `encode_apart` gave for each."""
    args = tuples.tuple_of(items)
    return b"".join((_PARTS.pack(len(head), len(args)), head, args, _NO_KWARGS))


def encode_function(function: Callable[..., Any]) -> bytes:
    """A callable as bytes, for `Call.function`; `CodecError` where it cannot be sent."""
    import cloudpickle  # not needed by those who only name tools

    try:
        return bytes(cloudpickle.dumps(function))
    except Exception as error:  # whatever the pickling of a captured object raises
        raise CodecError(
            f"the callable {function!r} cannot be sent to a worker: {text_of(error)}",
            path="command",
        ) from error


def decode_call(data: Frame, *, allow_pickle: bool = False) -> Call:
    """The call of a CALL frame. `CodecError`, or whatever unpickling an argument raises."""
    if len(data) < _BODY_AT:
        raise CodecError("the body of the call is too short")
    head_size, args_size = _PARTS.unpack_from(data, HEADER_SIZE)
    args_at = _BODY_AT + head_size
    kwargs_at = args_at + args_size
    if kwargs_at > len(data):
        raise CodecError("the body of the call is too short")
    head = codec.decode(data, copy=False, offset=_BODY_AT, size=head_size)
    command, function, session_id, streaming, variables, trace = head
    if function is not None and not allow_pickle:
        raise CodecError("a callable is only accepted where pickle is allowed", path="command")
    args = codec.decode(data, allow_pickle=allow_pickle, copy=False, offset=args_at, size=args_size)
    kwargs = codec.decode(data, allow_pickle=allow_pickle, copy=False, offset=kwargs_at)
    context = codec.decode(variables, allow_pickle=allow_pickle) if variables else {}
    parsed = None if trace is None else TraceContext.parse(*trace)
    return Call(command, function, args, kwargs, session_id, streaming, context, parsed)


def encode_value(
    request_id: int, value: Any, *, allow_pickle: bool = False, kind: Kind = Kind.VALUE
) -> Outbound:
    """A VALUE or ITEM frame; a `CodecError` names the path within ``result``."""
    body = codec.encode(value, allow_pickle=allow_pickle, root="result")
    return outbound(kind, request_id, 0, body)


def encode_batched(request_id: int, done: int, busy: int) -> bytes:
    """The BATCHED frame of a batch of which ``done`` items are done, in ``busy`` nanoseconds."""
    return frame(Kind.BATCHED, request_id, 0, codec.encode((done, busy)))


def encode_end(request_id: int) -> bytes:
    """The END frame of a stream."""
    return frame(Kind.END, request_id, 0, b"")


def encode_error(
    request_id: int, error: BaseException, *, allow_pickle: bool = False, retryable: bool = False
) -> bytes:
    """An ERROR frame; never fails, whatever the exception's own methods do."""
    facts = describe(error, allow_pickle=allow_pickle)
    try:
        body = codec.encode(facts)
    except CodecError:  # nested too deeply: its text is what can be told
        texts = {name: facts[name] for name in ("type", "message", "traceback")}
        body = codec.encode(texts)
    return frame(Kind.ERROR, request_id, 0, body, flags=_RETRYABLE if retryable else 0)


def decode_reply(data: Frame, *, allow_pickle: bool = False) -> Reply:
    """What a reply frame says; `CodecError` if it cannot be decoded.

    Unpickling runs code of the result's classes; what that raises, even `SystemExit`, is
    the cause of the `CodecError`. Only `KeyboardInterrupt` gets through: it cannot be told
    from a Ctrl-C, so a hostile result can at most raise what a Ctrl-C raises.
    """
    try:
        if is_value(data):  # as most are
            value = codec.decode(data, allow_pickle=allow_pickle, copy=False, offset=HEADER_SIZE)
            return Reply(Kind.VALUE, _REQUEST_ID.unpack_from(data, REQUEST_ID_AT)[0], value)
        header = header_of(data)
        if header.kind is Kind.ERROR:
            facts = codec.decode(data, copy=False, offset=HEADER_SIZE)
            error = revive(facts, allow_pickle=allow_pickle)
            return Reply(header.kind, header.request_id, error=error)
        value = None
        if header.kind is not Kind.END:
            value = codec.decode(data, allow_pickle=allow_pickle, copy=False, offset=HEADER_SIZE)
        return Reply(header.kind, header.request_id, value)
    except CodecError as error:
        error.path = "result"
        raise
    except (Exception, SystemExit, GeneratorExit) as error:  # a result must not exit the host
        raise CodecError(
            f"the result cannot be decoded: {type(error).__name__}: {text_of(error)}", path="result"
        ) from error
