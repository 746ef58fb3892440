"""Every exception of the library, in one tree; the branch says whose fault it is.

::

    SnakepitError
    ├── ConfigError (ValueError)            a setting is wrong
    ├── PoolError                           the pool refused
    │   ├── CircuitOpen
    │   ├── PoolClosed (RuntimeError)
    │   ├── PoolSaturated
    │   ├── QueueTimeout (TimeoutError)
    │   ├── SessionWorkerUnavailable
    │   └── WorkerStartError
    ├── TaskError                           the call failed
    │   ├── ToolNotFound (LookupError)
    │   ├── InvalidArguments (TypeError)
    │   ├── TaskTimeout (TimeoutError)
    │   ├── RemoteError
    │   ├── WorkerDied (BrokenProcessPool)
    │   └── PoisonTaskError
    ├── StoreError                          the store refused
    │   ├── SessionNotFound (KeyError)
    │   ├── VariableNotFound (KeyError)
    │   ├── VariableExists
    │   ├── VariableTypeError (TypeError)
    │   ├── ConstraintViolation (ValueError)
    │   ├── ConstraintError (ValueError)    the constraint set itself is wrong
    │   ├── VersionConflict
    │   ├── SessionLimitReached
    │   ├── StoreFull (MemoryError)
    │   ├── StoreBusy (TimeoutError)
    │   ├── StoreClosed
    │   └── StoreMismatch
    └── CodecError (ValueError)             a value cannot be encoded or decoded

Facts are attributes, the sentence is ``str(error)``, and every class can be pickled.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import Any

__all__ = [
    "CircuitOpen",
    "CodecError",
    "ConfigError",
    "ConstraintError",
    "ConstraintViolation",
    "InvalidArguments",
    "PoisonTaskError",
    "PoolClosed",
    "PoolError",
    "PoolSaturated",
    "QueueTimeout",
    "RemoteError",
    "SessionLimitReached",
    "SessionNotFound",
    "SessionWorkerUnavailable",
    "SnakepitError",
    "StoreBusy",
    "StoreClosed",
    "StoreError",
    "StoreFull",
    "StoreMismatch",
    "TaskError",
    "TaskTimeout",
    "ToolNotFound",
    "VariableExists",
    "VariableNotFound",
    "VariableTypeError",
    "VersionConflict",
    "WorkerDied",
    "WorkerStartError",
]


def _restore(
    cls: type[SnakepitError], args: tuple[Any, ...], facts: dict[str, Any]
) -> SnakepitError:
    # Every constructor works with the message alone. Not cls.__new__: with two builtin bases
    # it is not always the one that Python accepts.
    error = cls(*args)
    error.__dict__.update(facts)
    return error


class SnakepitError(Exception):
    """The root of the tree: catches everything that is ours."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take facts as keywords, which the default would lose.
        return _restore, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        # KeyError would show the repr of its message.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class ConfigError(SnakepitError, ValueError):
    """A setting is wrong; the message names it."""


class PoolError(SnakepitError):
    """The pool refused the call; nothing was run."""


class CircuitOpen(PoolError):
    """The tool has failed too often of late; nothing was run.

    Attributes: ``tool``, ``retry_after`` (seconds after which a call is worth a try).
    """

    def __init__(self, message: str, *, tool: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.tool = tool
        self.retry_after = retry_after


class PoolClosed(PoolError, RuntimeError):
    """A call after ``shutdown``, or in a forked copy of the application."""


class PoolSaturated(PoolError):
    """The line is full and the pool was made with ``on_full="raise"``."""


class QueueTimeout(PoolError, TimeoutError):
    """No worker became free within ``queue_timeout``; nothing was run."""


class SessionWorkerUnavailable(PoolError):
    """``affinity="strict_fail_fast"``, and the session's worker is busy; nothing was run.

    Attributes: ``session_id``, ``worker_id``.
    """

    def __init__(
        self, message: str, *, session_id: str | None = None, worker_id: int | None = None
    ) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.worker_id = worker_id


class WorkerStartError(PoolError):
    """Workers cannot start; ``__cause__`` is what the start raised, where known."""


class TaskError(SnakepitError):
    """The call itself failed."""


class ToolNotFound(TaskError, LookupError):
    """No tool of that name. Attributes: ``name``, ``known`` (the names that exist)."""

    def __init__(self, message: str, *, name: str = "", known: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.known = known


class InvalidArguments(TaskError, TypeError):
    """The arguments do not fit the tool's signature; raised before it is run."""


class TaskTimeout(TaskError, TimeoutError):
    """The call's deadline passed. Attributes: ``timeout`` (seconds), ``entered``."""

    def __init__(
        self, message: str, *, timeout: float | None = None, entered: bool = False
    ) -> None:
        super().__init__(message)
        self.timeout = timeout
        self.entered = entered


class RemoteError(TaskError):
    """A tool raised something that cannot be raised here as itself.

    Attributes: ``type_name`` (qualified), ``message``, ``traceback`` (text).
    """

    def __init__(self, message: str, *, type_name: str = "", traceback: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if type_name else message)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback


class WorkerDied(TaskError, BrokenProcessPool):
    """The worker died while it held this call.

    Attributes: ``worker_id``, ``pid``, ``exit_code`` (``None`` if killed by a signal or
    unknown), ``signal`` (its name, or ``None``), ``oom`` (whether the kernel killed for want of
    memory just then), ``peak_rss`` (bytes, ``None`` if unknown), ``stack`` (Python's, of a fatal
    signal), ``stderr`` (the last of it), ``entered`` (whether the tool had been called),
    ``attempt`` (1 for the first), ``duration`` (seconds since the tool was called, or the call
    was taken; ``None`` if it never was).
    """

    def __init__(
        self,
        message: str,
        *,
        worker_id: int | None = None,
        pid: int | None = None,
        exit_code: int | None = None,
        signal: str | None = None,
        oom: bool = False,
        peak_rss: int | None = None,
        stack: str = "",
        stderr: str = "",
        entered: bool = False,
        attempt: int = 1,
        duration: float | None = None,
    ) -> None:
        super().__init__(message)
        self.worker_id = worker_id
        self.pid = pid
        self.exit_code = exit_code
        self.signal = signal
        self.oom = oom
        self.peak_rss = peak_rss
        self.stack = stack
        self.stderr = stderr
        self.entered = entered
        self.attempt = attempt
        self.duration = duration


class PoisonTaskError(TaskError):
    """Worker after worker died under this call. Attribute: ``deaths``."""

    def __init__(self, message: str, *, deaths: tuple[WorkerDied, ...] = ()) -> None:
        super().__init__(message)
        self.deaths = deaths


class StoreError(SnakepitError):
    """The store refused; what was stored is intact."""


class SessionNotFound(StoreError, KeyError):
    """No session of that id, or it has expired. Attribute: ``session_id``."""

    def __init__(self, message: str, *, session_id: str | None = None) -> None:
        super().__init__(message)
        self.session_id = session_id


class VariableNotFound(StoreError, KeyError):
    """No variable of that name or id. Attributes: ``session_id``, ``name``."""

    def __init__(
        self, message: str, *, session_id: str | None = None, name: str | None = None
    ) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.name = name


class VariableExists(StoreError):
    """A variable of that name is registered already. Attributes: ``session_id``, ``name``."""

    def __init__(
        self, message: str, *, session_id: str | None = None, name: str | None = None
    ) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.name = name


class VariableTypeError(StoreError, TypeError):
    """The value does not have the variable's type, or the type is unknown.

    Attributes: ``variable`` (its name, where it has one yet), ``value`` (what was refused).
    """

    def __init__(self, message: str, *, variable: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.variable = variable
        self.value = value


class ConstraintViolation(StoreError, ValueError):
    """The value breaks a constraint.

    Attributes: ``variable`` (its name), ``constraint`` (its name), ``limit`` (what that asks
    for), ``value`` (what was refused).
    """

    def __init__(
        self,
        message: str,
        *,
        variable: str | None = None,
        constraint: str | None = None,
        limit: Any = None,
        value: Any = None,
    ) -> None:
        super().__init__(message)
        self.variable = variable
        self.constraint = constraint
        self.limit = limit
        self.value = value


class ConstraintError(StoreError, ValueError):
    """The constraint set itself is wrong: an unknown key, a bad bound, ``min`` over ``max``."""


class VersionConflict(StoreError):
    """Somebody else wrote first. Attributes: ``current``, ``expected`` (versions)."""

    def __init__(
        self, message: str, *, current: int | None = None, expected: int | None = None
    ) -> None:
        super().__init__(message)
        self.current = current
        self.expected = expected


class SessionLimitReached(StoreError):
    """``max_sessions`` or ``max_variables_per_session`` is reached. Attribute: ``limit``."""

    def __init__(self, message: str, *, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit


class StoreFull(StoreError, MemoryError):
    """``max_bytes``, or the machine's memory, is used up."""


class StoreBusy(StoreError, TimeoutError):
    """A process that is stopped, not dead, holds the lock of that stripe."""


class StoreClosed(StoreError):
    """The store has been closed in this process."""


class StoreMismatch(StoreError):
    """The segment was made by another layout or by the other twin."""


class CodecError(SnakepitError, ValueError):
    """A value cannot be encoded, or bytes cannot be decoded. Attribute: ``path``."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path
