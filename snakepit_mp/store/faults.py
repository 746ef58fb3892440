"""What does the store say when it refuses? The errors of both twins, one function each.

They return what is to be raised, so that a message is written once.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import (
    SessionLimitReached,
    SessionNotFound,
    SnakepitError,
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreFull,
    VariableExists,
    VariableNotFound,
    VersionConflict,
)

if TYPE_CHECKING:
    from .places import Key, Place

__all__ = [
    "ToldAsDamage",
    "busy",
    "closed",
    "damaged",
    "inside",
    "no_memory",
    "no_mutexes",
    "program_not_found",
    "session_exists_already",
    "session_limit",
    "session_not_found",
    "store_full",
    "tell_damage",
    "variable_exists",
    "variable_limit",
    "variable_not_found",
    "version_conflict",
    "version_not_kept",
]


def session_not_found(place: Place) -> SessionNotFound:
    """There is none of that id, or its TTL is over."""
    return SessionNotFound(
        f"no session {place.name!r}: it was never created, was deleted or has expired",
        session_id=place.name,
    )


def session_exists_already(place: Place) -> StoreError:
    """It was to be created, and is there."""
    return StoreError(f"session {place.name!r} exists already")


def session_limit(limit: int) -> SessionLimitReached:
    """The store may hold no more sessions."""
    return SessionLimitReached(
        f"the store holds as many sessions as it may: max_sessions is {limit}", limit=limit
    )


def variable_limit(limit: int) -> SessionLimitReached:
    """The session may hold no more variables."""
    return SessionLimitReached(
        f"the session has as many variables as it may: max_variables_per_session is {limit}",
        limit=limit,
    )


def variable_not_found(place: Place, key: Key) -> VariableNotFound:
    """The session has none of that name or id."""
    return VariableNotFound(
        f"session {place.name!r} has no variable {key.name!r}",
        session_id=place.name,
        name=key.name,
    )


def program_not_found(session_id: str | None, name: str) -> VariableNotFound:
    """The session, or the store where it is ``None``, has no program of that name."""
    whose = "the store" if session_id is None else f"session {session_id!r}"
    return VariableNotFound(f"{whose} has no program {name!r}", session_id=session_id, name=name)


def variable_exists(place: Place, key: Key) -> VariableExists:
    """It was to be registered, and is there."""
    return VariableExists(
        f"session {place.name!r} has a variable {key.name!r} already",
        session_id=place.name,
        name=key.name,
    )


def version_conflict(place: Place, key: Key, current: int, expected: int) -> VersionConflict:
    """Somebody else wrote first."""
    return VersionConflict(
        f"variable {key.name!r} of session {place.name!r} is at version {current}, not {expected}",
        current=current,
        expected=expected,
    )


def version_not_kept(
    place: Place, key: Key, wanted: int, kept: list[int], current: int
) -> VersionConflict:
    """A rollback to a version that nobody has any more, or never had."""
    versions = ", ".join(map(str, kept)) or "none"
    return VersionConflict(
        f"version {wanted} of variable {key.name!r} of session {place.name!r} is not kept; "
        f"kept are: {versions}",
        current=current,
        expected=wanted,
    )


def store_full(bytes_wanted: int, max_bytes: int, bytes_free: int) -> StoreFull:
    """No free piece is large enough, and no more may be taken."""
    return StoreFull(
        f"no room for {bytes_wanted} bytes: max_bytes is {max_bytes}, and "
        f"{bytes_free} bytes are free, none of the pieces large enough"
    )


def no_memory() -> StoreFull:
    """The machine, not the limit, refuses more."""
    return StoreFull("the machine has no memory left for the store")


def no_mutexes() -> StoreError:
    """The C library has none that survive their owner's death."""
    return StoreError(
        "this system has no robust mutexes that processes can share: "
        "set SNAKEPIT_MP_IMPL=python, whose store needs none"
    )


def damaged(what: str) -> StoreError:
    """The segment holds something that nobody writes."""
    return StoreError(f"the session store is damaged: {what}")


def busy(index: int, seconds: float) -> StoreBusy:
    """Lock ``index`` was not given up in that time."""
    return StoreBusy(
        f"lock {index} of the session store was not given up within {seconds:g} s: "
        "a process that is stopped, not dead, holds it"
    )


def inside(index: int) -> StoreBusy:
    """Lock ``index`` is this thread's own: waiting for it would be in vain."""
    return StoreBusy(
        f"lock {index} of the session store is held by this very thread: a signal handler or "
        "finalizer has interrupted a call of the store, and calls it once more"
    )


def closed() -> StoreClosed:
    """A call after `close`."""
    return StoreClosed("the session store is closed")


def tell_damage(error: BaseException) -> None:
    """Raise as damage what only a word that nobody writes can lead to."""
    if isinstance(error, (IndexError, ValueError, OverflowError)) and not isinstance(
        error, SnakepitError
    ):
        raise damaged(str(error)) from error


class ToldAsDamage:
    """The same for what a ``with`` block raises."""

    # No generator: this is entered by every operation.
    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            tell_damage(error)
