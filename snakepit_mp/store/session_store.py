"""What can be asked of the store? Sessions and their variables, in memory all workers share.

Every call locks one stripe, the session's, for as long as it reads or writes; values are
checked, encoded and decoded outside of that. A process that dies inside a call leaves the
old or the new state, which the next caller finds in order.
"""

from __future__ import annotations

import functools
import math
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from ..config import StoreConfig
from ..errors import (
    ConfigError,
    SessionLimitReached,
    SessionNotFound,
    SnakepitError,
    StoreError,
    StoreFull,
)
from ..values.codec import decode, encode
from .allocator import ALLOCATOR_LOCK, FREE_PAGES, PAGES, SESSIONS, Allocator
from .facts import Facts
from .janitor import Janitor
from .locks import LockFile
from .records import RawSession, RawVariable, SessionInfo, Variable, seconds
from .segment import PAGE_BYTES, Segment, anonymous_file
from .sessions import Place, Sessions
from .stripe import Stripes
from .variables import NewVariable, Update, Variables, not_found

__all__ = ["SessionStore"]

_T = TypeVar("_T")

_SECOND = 10**9
_FACTS_KEPT = 4_096
#: Seconds that a sweep of the janitor, and the search for room in a full store, may take.
_SWEEP_BUDGET, _ROOM_BUDGET = 0.05, 0.5


def _release(segment: Segment, locks: LockFile) -> None:
    identity = segment.identity
    segment.close()
    locks.close(identity)


class SessionStore:
    """Sessions with typed variables, shared by the application and its workers.

    ``config`` holds the limits and the default TTL. The memory is anonymous: it is gone
    with the last process that has it. Usable from any thread and after a fork; a context
    manager that closes it.
    """

    def __init__(self, config: StoreConfig | None = None) -> None:
        config = StoreConfig() if config is None else config
        segment = Segment.create(config.max_bytes or 0)
        self._set_up(segment, anonymous_file("snakepit_mp-locks", PAGE_BYTES), config)

    @classmethod
    def attach(cls, descriptors: Iterable[int], config: StoreConfig) -> SessionStore:
        """The same store in a process that got its `descriptors`, which it takes over.

        Raises `StoreMismatch` where they are no store, or one of another layout.
        """
        memory, locks = descriptors
        try:
            segment = Segment.attach(memory)
        except BaseException:
            os.close(locks)
            raise
        store = cls.__new__(cls)
        store._set_up(segment, locks, config)
        return store

    def _set_up(self, segment: Segment, lock_descriptor: int, config: StoreConfig) -> None:
        self.config = config
        self._segment = segment
        self._lock_descriptor = lock_descriptor
        self._locks = LockFile.open(segment.identity, lock_descriptor, ALLOCATOR_LOCK + 1)
        self._finalizer = weakref.finalize(self, _release, segment, self._locks)
        self._finalizer.atexit = False
        allocator = Allocator(segment, self._locks, config.max_bytes or 0, config.max_sessions)
        stripes = Stripes(segment, self._locks, allocator)
        self._sessions = Sessions(segment, stripes)
        self._variables = Variables(
            segment, stripes, self._sessions, config.max_variables_per_session
        )
        self._facts: dict[tuple[str, str], Facts] = {}
        self._janitor: Janitor | None = None

    # Processes.

    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors that `attach` needs in another process."""
        self._segment.require_open()
        return self._segment.descriptor, self._lock_descriptor

    def after_fork(self) -> None:
        """Drop what belongs to threads of the parent; the first call in a forked process."""
        self._locks.renew()
        self._janitor = None

    def start_sweeping(self) -> None:
        """Remove expired sessions every ``sweep_interval`` seconds, in a thread, until `close`.

        Without it they are as good as gone as well, but their memory returns only when it
        is needed or on `cleanup_expired_sessions`.
        """
        self._segment.require_open()
        if self._janitor is None:
            sweep = functools.partial(self._sessions.sweep, _SWEEP_BUDGET)
            self._janitor = Janitor(sweep, self.config.sweep_interval)

    def close(self) -> None:
        """Leave the store; other processes keep it. A second call does nothing."""
        janitor, self._janitor = self._janitor, None
        if janitor is not None:
            janitor.stop()
        if self._finalizer.alive:
            self._segment.closed = True  # whoever comes now is told
            self._locks.wait_until_unused()
            self._finalizer()

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._segment.closed:
            return "<SessionStore: closed>"
        words = self._segment.words
        used = (words[PAGES] - words[FREE_PAGES]) * PAGE_BYTES
        return (
            f"<SessionStore: {words[SESSIONS]} sessions, {used:,} of at most "
            f"{self.config.max_bytes:,} bytes>"
        )

    # Sessions.

    def create_session(
        self,
        session_id: str | None = None,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        exist_ok: bool = True,
    ) -> SessionInfo:
        """Create a session, or return the one that exists, as it is; one atomic step.

        ``session_id``: ``None`` makes one up. ``ttl``: seconds of life after the last use;
        ``None`` is the store's ``session_ttl``, ``math.inf`` for ever. Raises `StoreError`
        if it exists and not ``exist_ok``, `SessionLimitReached`, `StoreFull`.
        """
        place = self._place(os.urandom(16).hex() if session_id is None else session_id)
        lifetime = self._lifetime(ttl)
        extra = encode(dict(metadata), root="metadata") if metadata else b""
        raw = self._with_room(
            lambda: self._sessions.create(place, lifetime, extra, exist_ok), SessionLimitReached
        )
        return self._info(raw)

    def get_session(self, session_id: str) -> SessionInfo:
        """What is known of a session; counts as a use. Raises `SessionNotFound`."""
        return self._info(self._sessions.read(self._place(session_id)))

    def touch_session(self, session_id: str) -> None:
        """Begin its TTL anew. Raises `SessionNotFound`."""
        self._sessions.touch(self._place(session_id))

    def exists(self, session_id: str) -> bool:
        """Whether there is such a session; does not count as a use."""
        return self._sessions.exists(self._place(session_id))

    def note_worker(self, session_id: str, worker_id: int) -> None:
        """Record which worker runs the session's call. Raises `SessionNotFound`."""
        self._sessions.note_worker(self._place(session_id), worker_id)

    def list_sessions(self, pattern: str = "*") -> list[SessionInfo]:
        """Sessions whose id matches a glob, oldest first; does not count as a use."""
        return [self._info(raw) for raw in self._sessions.matching(pattern)]

    def delete_session(self, session_id: str) -> int:
        """Delete a session with its variables, and return how many these were.

        One atomic step however much it holds. Raises `SessionNotFound`.
        """
        return self._sessions.delete(self._place(session_id))

    def cleanup_expired_sessions(self) -> int:
        """Remove every session whose TTL is over now, and return how many these were."""
        return self._sessions.sweep(math.inf)

    # Variables.

    def register_variable(
        self,
        session_id: str,
        name: str,
        type: str | type[Any] | None,  # noqa: A002  the protocol's word
        value: Any,
        *,
        constraints: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
    ) -> Variable:
        """Create a variable of version 1; with ``exist_ok`` return one that is there, as it is.

        ``type``: a name, a Python type, or ``None`` to infer it. Raises `VariableExists`,
        `VariableTypeError`, `ConstraintError`, `ConstraintViolation`, `CodecError`,
        `SessionNotFound`, `SessionLimitReached`, `StoreFull`.
        """
        place = self._place(session_id)
        facts = Facts.given(_checked("variable name", name), type, value, constraints, metadata)
        new = NewVariable(name, facts.type, facts.prepare(value), facts.encoded())
        return _variable(self._with_room(lambda: self._variables.register(place, new, exist_ok)))

    def get_variable(self, session_id: str, name: str) -> Variable:
        """A variable by name or id. Raises `SessionNotFound`, `VariableNotFound`."""
        return _variable(self._variables.read(self._place(session_id), name))

    def get_value(self, session_id: str, name: str) -> Any:
        """The value alone; arrays are read-only. Raises as `get_variable`."""
        return decode(self._variables.read_value(self._place(session_id), name))

    def get_variables(
        self, session_id: str, names: Iterable[str], *, missing_ok: bool = False
    ) -> dict[str, Variable]:
        """Several variables, all of one moment, by the name or id they were asked for.

        One that does not exist raises `VariableNotFound`; with ``missing_ok`` it is left out.
        """
        place = self._place(session_id)
        found = self._variables.read_many(place, list(names))
        missing = next((name for name, raw in found.items() if raw is None), None)
        if missing is not None and not missing_ok:
            raise not_found(place, missing)
        return {name: _variable(raw) for name, raw in found.items() if raw is not None}

    def has_variable(self, session_id: str, name: str) -> bool:
        """Whether there is a variable of that name or id. Raises `SessionNotFound`."""
        return self._variables.contains(self._place(session_id), name)

    def variable_names(self, session_id: str) -> list[str]:
        """The names of all variables, in the order of creation. Raises `SessionNotFound`."""
        return self._variables.names(self._place(session_id))

    def list_variables(self, session_id: str, pattern: str = "*") -> list[Variable]:
        """Variables whose name matches a glob, in the order of creation, of one moment."""
        return [
            _variable(raw) for raw in self._variables.matching(self._place(session_id), pattern)
        ]

    def update_variable(
        self, session_id: str, name: str, value: Any, *, expected_version: int | None = None
    ) -> int:
        """Give a variable a new value, and return its new version.

        Raises `VersionConflict` where its version is not the expected one, and otherwise as
        `register_variable` and `get_variable`; the old value stays then.
        """
        place = self._place(session_id)
        return self._update(place, {name: value}, {name: expected_version})[name]

    def update_variables(
        self, session_id: str, values: Mapping[str, Any], *, atomic: bool = True
    ) -> dict[str, Any]:
        """Update several variables, and return their new versions by name.

        ``atomic``: all of them in one step, or none and an exception. Otherwise each on its
        own, and what would have been raised for a name stands in the place of its version.
        """
        place = self._place(session_id)
        if atomic:
            return dict(self._update(place, values, {}))
        self._sessions.touch(place)
        return {name: self._outcome(place, name, value) for name, value in values.items()}

    def _outcome(self, place: Place, name: str, value: Any) -> int | SnakepitError:
        try:
            return self._update(place, {name: value}, {})[name]
        except SessionNotFound:
            raise
        except SnakepitError as error:
            return error

    def _update(
        self, place: Place, values: Mapping[str, Any], expected: Mapping[str, int | None]
    ) -> dict[str, int]:
        while True:
            updates = [self._prepare(place, name, value) for name, value in values.items()]
            done = self._with_room(
                functools.partial(self._variables.write, place, updates, expected)
            )
            if done is not None:
                return done
            for name in values:  # somebody replaced a variable or its constraints: check again
                self._facts.pop((place.name, name), None)

    def _prepare(self, place: Place, name: str, value: Any) -> Update:
        """Check and encode a value against what is known of its variable."""
        facts = self._facts.get((place.name, name))
        if facts is not None:
            try:
                return Update(name, facts.prepare(value), facts.identity)
            except SnakepitError:
                pass  # perhaps only by what was known: the true facts decide
        facts = Facts.of(self._variables.read(place, name))
        if len(self._facts) >= _FACTS_KEPT:
            self._facts.clear()
        self._facts[place.name, name] = facts
        return Update(name, facts.prepare(value), facts.identity)

    def set_constraints(
        self, session_id: str, name: str, constraints: Mapping[str, Any] | None
    ) -> Variable:
        """Replace a variable's constraints, which its value must satisfy; version unchanged.

        Raises `ConstraintError`, `ConstraintViolation`, and as `get_variable`.
        """
        place = self._place(session_id)
        while True:
            seen = self._variables.read(place, name)
            facts = Facts.of(seen).under(constraints)
            facts.prepare(decode(seen.value))
            encoded = facts.encoded()
            if self._with_room(functools.partial(self._variables.constrain, place, seen, encoded)):
                return _variable(seen, facts)

    def delete_variable(self, session_id: str, name: str) -> None:
        """Delete a variable by name or id. Raises `SessionNotFound`, `VariableNotFound`."""
        self._variables.delete(self._place(session_id), name)

    # What the calls share.

    def _place(self, session_id: str) -> Place:
        return self._sessions.place(_checked("session id", session_id))

    def _lifetime(self, ttl: float | None) -> int:
        ttl = self.config.session_ttl if ttl is None else ttl
        if ttl is None or ttl == math.inf:
            return 0
        if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not ttl > 0:
            raise ConfigError(f"ttl must be a number of seconds above 0, not {ttl!r}")
        return min(max(int(ttl * _SECOND), 1), (1 << 63) - 1)

    def _with_room(self, attempt: Callable[[], _T], refusal: type[StoreError] = StoreFull) -> _T:
        """Try once more after removing what has expired, where there was no room."""
        try:
            return attempt()
        except (StoreFull, refusal):
            self._sessions.sweep(_ROOM_BUDGET)
        return attempt()

    def _info(self, raw: RawSession) -> SessionInfo:
        age = seconds(self._sessions.monotonic() - raw.accessed)
        return SessionInfo(
            id=raw.name,
            metadata=decode(raw.metadata) if raw.metadata else {},
            ttl=seconds(raw.ttl) if raw.ttl else None,
            created_at=seconds(raw.created),
            last_accessed=seconds(self._sessions.wall()) - age,
            variable_count=raw.variables,
            last_worker_id=raw.worker - 1 if raw.worker else None,
        )


def _checked(what: str, name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a {what} must be a str, not {type(name).__name__}")
    if not name:
        raise ConfigError(f"a {what} must not be empty")
    return name


def _variable(raw: RawVariable, facts: Facts | None = None) -> Variable:
    facts = Facts.of(raw) if facts is None else facts
    return Variable(
        id=raw.id,
        name=raw.name,
        type=raw.type,
        value=decode(raw.value),
        constraints=facts.constraints,
        metadata=facts.metadata,
        version=raw.version,
        created_at=seconds(raw.created),
        updated_at=seconds(raw.updated),
    )
