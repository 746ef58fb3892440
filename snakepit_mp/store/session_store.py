"""What can be asked of the store? Sessions and their variables, in memory all workers share.

Every call locks one stripe, the session's, for as long as it reads or writes; values are
checked, encoded and decoded outside of that. A process that dies inside a call leaves the
old or the new state, which the next caller finds in order.
"""

from __future__ import annotations

import functools
import math
import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..config import StoreConfig
from ..errors import SessionLimitReached, StoreBusy, StoreClosed, StoreError
from ..telemetry.events import Announcers, SessionCreated, SessionDeleted
from ..values.codec import decode, encode
from . import arguments, faults, listing, shown, verify
from .access import PyVariableAccess
from .allocation import allocate_array, settle
from .batch import Batch
from .changes import Changes
from .dump import Dumps
from .facts import Facts
from .history import OldValue
from .janitor import Janitor, Sweeper
from .locks import LOCK_FILE_BYTES, LockFile
from .places import Keys, Limits, NewVariable, Place
from .programs import Programs
from .raw_store import PyRawStore, RawStore
from .records import RawSession, RawVariable, SessionInfo, Variable, seconds
from .segment import Segment, anonymous_file
from .stats import StoreStats, stats_of
from .watch import Watch

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SessionStore"]

#: Seconds that a sweep of the janitor, and the caller of a delete, spend on freeing memory.
_SWEEP_BUDGET, _TIDY_BUDGET = 0.05, 0.02


def _release(raw: PyRawStore, segment: Segment, locks: LockFile) -> None:
    identity = segment.identity
    raw.close()
    locks.close(identity)
    segment.close()


class SessionStore:
    """Sessions with typed variables, shared by the application and its workers.

    ``config`` holds the limits and the default TTL. The memory is anonymous: it is gone
    with the last process that has it. Usable from any thread and after a fork; a context
    manager that closes it.
    """

    def __init__(self, config: StoreConfig | None = None) -> None:
        config = StoreConfig() if config is None else config
        segment = Segment.create(config.max_bytes or 0, RawStore.family)
        self._set_up(segment, anonymous_file("snakepit_mp-locks", LOCK_FILE_BYTES), config)
        self._raw.create_session(self._keys.hidden_place(), 0, b"", True)

    @classmethod
    def attach(cls, descriptors: Iterable[int], config: StoreConfig) -> SessionStore:
        """The same store in a process that got its `descriptors`, which it takes over.

        Raises `StoreMismatch` where they are no store, or one of another layout.
        """
        memory, locks = descriptors
        try:
            segment = Segment.attach(memory, RawStore.family)
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
        self._locks = LockFile.open(segment.identity, lock_descriptor)
        limits = Limits(
            config.max_bytes or 0, config.max_sessions, config.max_variables_per_session
        )
        self._raw = RawStore(segment, self._locks, limits)
        self._finalizer = weakref.finalize(self, _release, self._raw, segment, self._locks)
        self._finalizer.atexit = False
        self._keys = Keys(segment.seed)
        #: Who is told of sessions that this handle creates, deletes or finds expired.
        self.announcers = Announcers()
        self._sweeper = Sweeper(self._raw, self.announcers)
        self._changes = Changes(self._raw, self._keys, self._sweeper)
        self._programs = Programs(self._raw, self._keys, self._sweeper)
        self._dumps = Dumps(self._raw, segment, self._keys, self._sweeper)
        #: Of `start_sweeping`, where that was called.
        self.janitor: Janitor | None = None
        self._frozen: int | None = None

    # Processes.

    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors that `attach` needs in another process."""
        self._segment.require_open()
        return self._segment.descriptor, self._lock_descriptor

    def after_fork(self) -> None:
        """Drop what belongs to threads of the parent; the first call in a forked process."""
        self._raw.after_fork()
        self.janitor = None

    def start_sweeping(self) -> None:
        """Remove expired sessions every ``sweep_interval`` seconds, in a thread, until `close`.

        Without it they are as good as gone as well, but their memory returns only when it
        is needed or on `cleanup_expired_sessions`. Of several processes that do this with
        one store, one sweeps, and another takes over when it is gone.
        """
        self._segment.require_open()
        if self.janitor is None:
            sweep = functools.partial(self._sweeper.sweep, _SWEEP_BUDGET)
            self.janitor = Janitor(sweep, self.config.sweep_interval, self._locks.leads)

    def close(self) -> None:
        """Leave the store; other processes keep it. A second call does nothing."""
        janitor, self.janitor = self.janitor, None
        if janitor is not None:
            janitor.stop()
            self._locks.resign()  # also where this process has another handle
        if self._finalizer.alive:
            self._segment.closed = True  # whoever comes now is told
            self._locks.wait_until_unused()
            self._finalizer()

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._segment.closed:
            return "<SessionStore: closed>"
        stats = self.stats()
        return (
            f"<SessionStore: {stats.sessions} sessions, {stats.bytes_used:,} of at most "
            f"{stats.bytes_limit:,} bytes>"
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
        lifetime = arguments.lifetime(self.config.session_ttl if ttl is None else ttl)
        extra = encode(dict(metadata), root="metadata") if metadata else b""
        attempt = functools.partial(self._raw.create_session, place, lifetime, extra, exist_ok)
        new = self.announcers.active and not self._raw.session_exists(place)
        info = self._info(self._sweeper.with_room(attempt, SessionLimitReached))
        if new:
            self.announcers.publish(SessionCreated(info.id))
        return info

    def get_session(self, session_id: str) -> SessionInfo:
        """What is known of a session; counts as a use. Raises `SessionNotFound`."""
        return self._info(self._raw.session(self._place(session_id)))

    def touch_session(self, session_id: str) -> None:
        """Begin its TTL anew. Raises `SessionNotFound`."""
        self._raw.touch(self._place(session_id))

    def exists(self, session_id: str) -> bool:
        """Whether there is such a session; does not count as a use."""
        return self._raw.session_exists(self._place(session_id))

    def note_worker(self, session_id: str, worker_id: int) -> None:
        """Record which worker runs the session's call. Raises `SessionNotFound`."""
        number = arguments.worker_number(worker_id)
        self._raw.note_worker(self._place(session_id), number)

    def list_sessions(self, pattern: str = "*") -> list[SessionInfo]:
        """Sessions whose id matches a glob, oldest first; does not count as a use."""
        found = listing.sessions(self._raw, arguments.glob(pattern))
        return [shown.session_info(record, self._now()) for record in found]

    def delete_session(self, session_id: str) -> int:
        """Delete a session with its variables, and return how many these were.

        One atomic step however much it holds. Raises `SessionNotFound`.
        """
        place = self._place(session_id)
        count = self._raw.delete_session(place)
        self.announcers.publish(SessionDeleted(session_id))
        self._sweeper.tidy(place.stripe, _TIDY_BUDGET)
        return count

    def cleanup_expired_sessions(self) -> int:
        """Remove every session whose TTL is over now, and return how many these were."""
        return self._sweeper.sweep(math.inf)

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
        history: int = 0,
        exist_ok: bool = False,
    ) -> Variable:
        """Create a variable of version 1; with ``exist_ok`` return one that is there, as it is.

        ``type``: a name, a Python type, or ``None`` to infer it. ``history``: how many old
        values to keep, at most 10,000; see `rollback`. Raises `VariableExists`,
        `VariableTypeError`, `ConstraintError`, `ConstraintViolation`, `CodecError`,
        `SessionNotFound`, `SessionLimitReached`, `StoreFull`.
        """
        place = self._place(session_id)
        key = self._keys.variable(arguments.name_of("variable name", name))
        facts = Facts.given(name, type, value, constraints, metadata)
        keep = arguments.history_count(history)
        data = facts.prepare_in(value, self._changes.allocate)
        new = NewVariable(facts.type.encode(), data, facts.encoded(), keep)
        attempt = functools.partial(self._raw.register, place, key, new, exist_ok)
        made = self._sweeper.with_room(attempt)
        settle(value)
        return shown.variable(RawVariable.parse(made))

    def allocate(self, shape: int | tuple[int, ...], dtype: Any = "f8") -> np.ndarray[Any, Any]:
        """An array to be filled and then given to a variable, which copies nothing.

        With that it becomes read-only: views of it that were made before must not be
        written to any more. An array that no variable gets is given back when it is no
        longer referred to. Raises `CodecError` for a dtype that cannot be stored, `StoreFull`.
        """
        return allocate_array(self._changes.allocate, shape, dtype, self.config.max_bytes or 0)

    def get_variable(self, session_id: str, name: str) -> Variable:
        """A variable by name or id. Raises `SessionNotFound`, `VariableNotFound`."""
        key = self._keys.variable(name)
        return shown.variable(self._changes.read(self._place(session_id), key))

    def get_value(self, session_id: str, name: str) -> Any:
        """The value alone; arrays are read-only, and so are long bytes, as a memoryview.

        Raises as `get_variable`.
        """
        return self._raw.value(self._place(session_id), self._keys.variable(name))

    def get_variables(
        self, session_id: str, names: Iterable[str], *, missing_ok: bool = False
    ) -> dict[str, Variable]:
        """Several variables, all of one moment, by the name or id they were asked for.

        One that does not exist raises `VariableNotFound`; with ``missing_ok`` it is left out.
        """
        place = self._place(session_id)
        keys = [self._keys.variable(name) for name in names]
        found = {}
        for key, parts in zip(keys, self._raw.variables(place, keys), strict=True):
            if parts is not None:
                found[key.name] = shown.variable(RawVariable.parse(parts))
            elif not missing_ok:
                raise faults.variable_not_found(place, key)
        return found

    def get_values(self, session_id: str, names: Iterable[str]) -> dict[str, Any]:
        """Several values, all of one moment, by the name or id they were asked for.

        Each is what `get_value` gives. Raises as `get_variable`.
        """
        keys = [self._keys.variable(name) for name in names]
        values = self._raw.values(self._place(session_id), keys)
        return {key.name: value for key, value in zip(keys, values, strict=True)}

    def has_variable(self, session_id: str, name: str) -> bool:
        """Whether there is a variable of that name or id. Raises `SessionNotFound`."""
        return self._raw.contains(self._place(session_id), self._keys.variable(name))

    def variable_names(self, session_id: str) -> list[str]:
        """The names of all variables, in the order of creation. Raises `SessionNotFound`."""
        return listing.variable_names(self._raw, self._place(session_id))

    def list_variables(self, session_id: str, pattern: str = "*") -> list[Variable]:
        """Variables whose name matches a glob, in the order of creation, of one moment."""
        wanted = arguments.glob(pattern)
        found = listing.variables(self._raw, self._place(session_id), wanted)
        return [shown.variable(record) for record in found]

    def update_variable(
        self, session_id: str, name: str, value: Any, *, expected_version: int | None = None
    ) -> int:
        """Give a variable a new value, and return its new version.

        Raises `VersionConflict` where its version is not the expected one, and otherwise as
        `register_variable` and `get_variable`; the old value stays then.
        """
        place = self._place(session_id)
        if expected_version is not None:
            expected_version = arguments.version_of("expected_version", expected_version)
        return self._changes.update(place, {name: value}, {name: expected_version})[name]

    def update_variables(
        self, session_id: str, values: Mapping[str, Any], *, atomic: bool = True
    ) -> dict[str, Any]:
        """Update several variables, and return their new versions by name.

        ``atomic``: all of them in one step, or none and an exception. Otherwise each on its
        own, and what would have been raised for a name stands in the place of its version.
        """
        place, values = self._place(session_id), arguments.new_values(values)
        if atomic:
            return dict(self._changes.update(place, values, {}))
        self._raw.touch(place)
        return {name: self._changes.outcome(place, name, value) for name, value in values.items()}

    def increment(self, session_id: str, name: str, by: Any = 1) -> Any:
        """Add to a number, and return the new value; no increment of anybody is lost.

        Raises `VariableTypeError` where one of the two is no number, and as `update_variable`.
        """
        return self._changes.increment(self._place(session_id), self._keys.variable(name), by)

    def compare_and_set(self, session_id: str, name: str, expected_value: Any, value: Any) -> bool:
        """Give a variable a new value if it has the expected one; whether it had.

        Equal is what is stored alike: 1 is neither 1.0 nor ``True`` where the type tells them
        apart. Raises as `update_variable`.
        """
        key = self._keys.variable(name)
        return self._changes.compare_and_set(self._place(session_id), key, expected_value, value)

    def update(self, session_id: str, name: str, fn: Callable[[Any], Any]) -> Any:
        """Put ``fn(value)`` in a value's place, and return the new one.

        ``fn`` may be called again where somebody else wrote first, and may use the store.
        Raises what ``fn`` raises, and as `update_variable`.
        """
        return self._changes.apply(self._place(session_id), self._keys.variable(name), fn)

    def batch(self, session_id: str) -> Batch:
        """Several new values, collected in a ``with`` block and written in one step."""
        self._raw.touch(self._place(session_id))
        return Batch(self, session_id)

    def history(self, session_id: str, name: str) -> list[OldValue]:
        """The present value and the old ones that are kept, newest first, of one moment."""
        found = self._raw.history(self._place(session_id), self._keys.variable(name))
        return [OldValue(version, decode(data), seconds(at)) for version, at, data in found]

    def rollback(self, session_id: str, name: str, version: int) -> int:
        """Give a variable an old value once more, and return its new version.

        Raises `VersionConflict` where that version is not kept, and as `update_variable`.
        """
        place, key = self._place(session_id), self._keys.variable(name)
        return self._changes.roll_back(place, key, arguments.version_of("version", version))

    def watch(
        self,
        session_id: str,
        names: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> Watch:
        """An iterator of changes from now on: of these variables, or of all in the session.

        A step waits for a change, or gives the next of those that came together; a variable
        that changed several times since comes once. It ends after ``timeout`` seconds without
        one. A watched session is in use. A step raises `SessionNotFound` when it is gone.
        """
        return Watch(self._raw, self._keys, self._place(session_id), names, timeout)

    def set_constraints(
        self, session_id: str, name: str, constraints: Mapping[str, Any] | None
    ) -> Variable:
        """Replace a variable's constraints, which its value must satisfy; version unchanged.

        Raises `ConstraintError`, `ConstraintViolation`, and as `get_variable`.
        """
        key = self._keys.variable(name)
        return self._changes.constrain(self._place(session_id), key, constraints)

    def bind(self, access: PyVariableAccess, session_id: str) -> None:
        """Let a mapping work on a session."""
        access._bind(self._raw, self._place(session_id), self._keys.variable)

    def facts(self, session_id: str, name: str) -> Facts:
        """What a variable takes. Raises as `get_variable`."""
        return self._changes.facts(self._place(session_id), name)

    def delete_variable(self, session_id: str, name: str) -> None:
        """Delete a variable by name or id, with its old values, in one atomic step.

        Raises `SessionNotFound`, `VariableNotFound`.
        """
        place = self._place(session_id)
        self._raw.delete_variable(place, self._keys.variable(name))
        self._sweeper.tidy(place.stripe, _TIDY_BUDGET)

    # Programs.

    def put_program(self, session_id: str | None, name: str, value: Any) -> int:
        """Store a program, a named value that is no variable, and return its version.

        One of that name is replaced. ``session_id`` ``None``: it belongs to no session. Raises
        `CodecError`, `SessionNotFound`, `StoreFull`.
        """
        return self._programs.put(session_id, name, value)

    def get_program(self, session_id: str | None, name: str) -> Any:
        """A program, as `get_value`. Raises `SessionNotFound`, `VariableNotFound`."""
        return self._programs.get(session_id, name)

    def list_programs(self, session_id: str | None, pattern: str = "*") -> list[str]:
        """The names that match a glob, in the order of creation. Raises `SessionNotFound`."""
        return self._programs.names(session_id, arguments.glob(pattern))

    def delete_program(self, session_id: str | None, name: str) -> None:
        """Delete a program. Raises `SessionNotFound`, `VariableNotFound`."""
        self._programs.delete(session_id, name)

    # The whole store.

    def stats(self) -> StoreStats:
        """How much it holds. Raises `StoreClosed`."""
        self._segment.require_open()
        return stats_of(self._segment, self.config.max_bytes or 0)

    def dump(self, path: str | os.PathLike[str]) -> int:
        """Write all sessions and programs to a file, and return how many sessions these are.

        They are of one moment: nobody else reads or writes meanwhile. The file appears when it
        is complete. Raises `StoreBusy`, `OSError`.
        """
        return self._dumps.dump(path, self._now())

    def load(self, path: str | os.PathLike[str]) -> int:
        """Create what a file of `dump` holds, and return how many sessions these are.

        All of it or nothing: a session or global program that is there already is a
        `StoreError`. Creation times, ids of variables and versions begin anew. Raises `OSError`,
        and as `create_session` and `register_variable`.
        """
        return self._dumps.load(path, self._now())

    def verify(self) -> list[str]:
        """What is wrong with the memory, a sentence each; empty where all is well.

        Nobody else reads or writes meanwhile. Raises `StoreBusy`, `StoreClosed`.
        """
        try:
            with self._raw.hold():
                return verify.problems(self._segment)
        except (StoreBusy, StoreClosed):
            raise
        except StoreError as error:  # it cannot even be repaired
            return [str(error)]

    # What the calls share.

    def _place(self, session_id: str) -> Place:
        return self._keys.place(arguments.name_of("session id", session_id))

    def _info(self, record: bytes) -> SessionInfo:
        return shown.session_info(RawSession.parse(record), self._now())

    def _now(self) -> int:
        return time.monotonic_ns() if self._frozen is None else self._frozen

    def _freeze_clock(self, now: int | None) -> None:
        """For tests: the time of TTLs stands still at so many nanoseconds, or goes on."""
        self._frozen = now
        self._raw.freeze_clock(now)
