"""Which gRPC status is which of our errors? One table, whose rows say whose fault it is."""

from __future__ import annotations

from concurrent.futures import CancelledError

import grpc

from ..errors import (
    CircuitOpen,
    CodecError,
    ConfigError,
    ConstraintError,
    ConstraintViolation,
    InvalidArguments,
    PoisonTaskError,
    PoolClosed,
    PoolSaturated,
    QueueTimeout,
    SessionLimitReached,
    SessionNotFound,
    SessionWorkerUnavailable,
    SnakepitError,
    StoreBusy,
    StoreClosed,
    StoreFull,
    TaskTimeout,
    ToolNotFound,
    VariableExists,
    VariableNotFound,
    VariableTypeError,
    VersionConflict,
    WorkerDied,
    WorkerStartError,
)

__all__ = ["code_of", "details", "shown", "text_of"]

_Code = grpc.StatusCode

_CODES: dict[type[BaseException], grpc.StatusCode] = {
    # The caller's.
    CodecError: _Code.INVALID_ARGUMENT,
    ConfigError: _Code.INVALID_ARGUMENT,
    ConstraintError: _Code.INVALID_ARGUMENT,
    ConstraintViolation: _Code.INVALID_ARGUMENT,
    InvalidArguments: _Code.INVALID_ARGUMENT,
    VariableTypeError: _Code.INVALID_ARGUMENT,
    SessionNotFound: _Code.NOT_FOUND,
    ToolNotFound: _Code.NOT_FOUND,
    VariableNotFound: _Code.NOT_FOUND,
    VariableExists: _Code.ALREADY_EXISTS,
    # Nobody's: somebody else was first, or the time is up.
    VersionConflict: _Code.ABORTED,
    QueueTimeout: _Code.DEADLINE_EXCEEDED,
    TaskTimeout: _Code.DEADLINE_EXCEEDED,
    CancelledError: _Code.CANCELLED,
    # The application's: full, closing, or not able to start.
    PoolSaturated: _Code.RESOURCE_EXHAUSTED,
    SessionWorkerUnavailable: _Code.RESOURCE_EXHAUSTED,
    SessionLimitReached: _Code.RESOURCE_EXHAUSTED,
    StoreFull: _Code.RESOURCE_EXHAUSTED,
    CircuitOpen: _Code.UNAVAILABLE,
    PoolClosed: _Code.UNAVAILABLE,
    StoreBusy: _Code.UNAVAILABLE,
    StoreClosed: _Code.UNAVAILABLE,
    WorkerStartError: _Code.UNAVAILABLE,
}

#: Details travel in an HTTP/2 header, percent-encoded; peers refuse headers above 8 KiB.
_LONGEST_DETAILS = 2_000


def code_of(error: BaseException) -> grpc.StatusCode:
    """The status of an error of ours; ``INTERNAL`` for one that should not reach a client."""
    for cls in type(error).__mro__:
        if cls in _CODES:
            return _CODES[cls]
    return _Code.INTERNAL


def details(text: str) -> str:
    """A message as a status can say it: cut to what a header may hold."""
    return shown(text).encode()[:_LONGEST_DETAILS].decode(errors="ignore")


def text_of(error: BaseException) -> str:
    """The message of an error; of a tool's own also its type, since nothing else tells it."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the exception's class is the tool's
        text = "<the message cannot be shown>"
    if isinstance(error, (WorkerDied, PoisonTaskError)):
        return text.partition("\n")[0]  # stacks and standard error stay in the application
    if isinstance(error, SnakepitError):
        return text
    return f"{type(error).__qualname__}: {text}" if text else type(error).__qualname__


def shown(text: str) -> str:
    """The text as Protobuf can carry it: lone surrogates are replaced."""
    return text.encode(errors="replace").decode()
