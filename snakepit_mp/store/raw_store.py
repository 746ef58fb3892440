"""What can be done with encoded sessions and variables? The twins' common surface.

Bytes go in and come out; types, constraints and codec are the business of `SessionStore`.
Each call is one atomic step. The compiled twin reads without locks and writes under robust
mutexes, this one reads and writes under byte-range locks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from .. import _accel
from ..values.codec import decode
from ..values.wire import TAG_BYTES
from . import faults
from .layout import FAMILY_LOCKED, S_BELL, SMALL_MOST
from .locks import LockFile
from .pages import Pages
from .places import Allocation, Key, Limits, NewVariable, Place, Update, VariableParts
from .segment import Segment
from .sessions import Clock, Sessions
from .stripe import Stripes
from .variables import Variables

__all__ = ["PyRawStore", "RawStore"]

#: Seconds between two looks at a bell.
_LOOK_EVERY = 0.002


class PyRawStore:
    """The sessions of one segment, under byte-range locks.

    Everything may raise `StoreBusy` and `StoreClosed`; what takes a ``place`` raises
    `SessionNotFound`, what takes a ``key`` `VariableNotFound`, where nothing else is said.
    """

    #: Who may share its segments; see `layout`.
    family = FAMILY_LOCKED

    def __init__(self, segment: Segment, locks: LockFile, limits: Limits) -> None:
        self._segment = segment
        self._locks = locks
        self._clock = clock = Clock()
        self._stripes = stripes = Stripes(segment, locks, Pages(segment, locks, limits.max_bytes))
        self._sessions = Sessions(segment, stripes, clock, limits.max_sessions)
        self._variables = Variables(segment, stripes, self._sessions, clock, limits.max_variables)

    # Clocks.

    def freeze_clock(self, monotonic: int | None) -> None:
        """For tests: the time of TTLs stands still at so many nanoseconds, or goes on."""
        self._clock.frozen = monotonic

    # Sessions.

    def create_session(self, place: Place, lifetime: int, metadata: bytes, exist_ok: bool) -> bytes:
        """Create a session unless it exists (a use of it), and return its record.

        ``lifetime``: ns, 0 is for ever. Raises `StoreError` where it exists and must not,
        `SessionLimitReached`, `StoreFull`.
        """
        return self._sessions.create(place, lifetime, metadata, exist_ok)

    def session(self, place: Place) -> bytes:
        """The session's record; a use."""
        return self._sessions.read(place)

    def session_exists(self, place: Place) -> bool:
        """Whether it is there and alive; not a use."""
        return self._sessions.exists(place)

    def touch(self, place: Place) -> None:
        """A use."""
        self._sessions.touch(place)

    def note_worker(self, place: Place, worker_id: int) -> None:
        """Record which worker runs the session's call; a use."""
        self._sessions.note_worker(place, worker_id)

    def sessions(self, stripe: int) -> list[bytes]:
        """The records of all living sessions of a stripe, hidden ones included; no use."""
        return self._sessions.living(stripe)

    def delete_session(self, place: Place) -> int:
        """Delete a session in one step; how many variables (not programs) went with it."""
        return self._sessions.delete(place)

    def sweep(self, stripe: int) -> int:
        """Remove a stripe's expired sessions; how many. Also `tidy`s."""
        removed = self._sessions.sweep(stripe)
        self._stripes.tidy(stripe)
        return removed

    def tidy(self, stripe: int) -> bool:
        """Repair a stripe and free some of what waits for it; whether there is more to do."""
        return self._stripes.tidy(stripe)

    # Variables.

    def register(self, place: Place, key: Key, new: NewVariable, exist_ok: bool) -> VariableParts:
        """Create a variable, or with ``exist_ok`` return the one of that name (not id).

        Raises `VariableExists`, `SessionLimitReached`, `StoreFull`. Programs do not count
        towards the limit of variables.
        """
        return self._variables.register(place, key, new, exist_ok)

    def variable(self, place: Place, key: Key) -> VariableParts:
        """The variable of that name or id."""
        return self._variables.read(place, key)

    def value(self, place: Place, key: Key) -> Any:
        """The decoded value; long bytes as a read-only memoryview."""
        return _decoded(self._variables.read_value(place, key))

    def values(self, place: Place, keys: Sequence[Key]) -> list[Any]:
        """Several decoded values of one moment."""
        return [_decoded(data) for data in self._variables.read_values(place, keys)]

    def variables(self, place: Place, keys: Sequence[Key]) -> list[VariableParts | None]:
        """Several of one moment; ``None`` for those that do not exist."""
        return self._variables.read_many(place, keys)

    def all_variables(self, place: Place) -> list[VariableParts]:
        """All of one moment, programs included, in no order."""
        return self._variables.read_all(place)

    def contains(self, place: Place, key: Key) -> bool:
        """Whether there is a variable of that name or id."""
        return self._variables.contains(place, key)

    def names(self, place: Place) -> list[tuple[int, bytes]]:
        """Number and key of every variable and program, in no order."""
        return self._variables.names(place)

    def versions(self, place: Place, keys: Sequence[Key]) -> list[tuple[int, int]]:
        """Number and version of each, of one moment; ``(0, 0)`` for those that do not exist.

        Not a use of the session.
        """
        return self._variables.versions(place, keys)

    def write(self, place: Place, updates: Sequence[Update]) -> list[int] | None:
        """Give variables new values in one step; their new versions.

        ``None``, and nothing is changed, where one is no longer what its value was checked
        against. Raises `VersionConflict`, `StoreFull`. A key may come twice: then so do its
        values, one after the other.
        """
        return self._variables.write(place, updates)

    def constrain(
        self,
        place: Place,
        key: Key,
        number: int,
        facts_version: int,
        version: int,
        facts: bytes,
    ) -> bool:
        """Replace the facts of a variable of which number and both versions are these."""
        return self._variables.constrain(place, key, (number, facts_version), version, facts)

    def delete_variable(self, place: Place, key: Key) -> None:
        """Delete it with its history."""
        self._variables.delete(place, key)

    def history(self, place: Place, key: Key) -> list[tuple[int, int, bytes]]:
        """Version, time (wall ns) and encoded value of the present and of all kept old values,
        newest first, of one moment."""
        return self._variables.history(place, key)

    # Waiting.

    def watch(self, place: Place) -> int:
        """Announce a watcher for the next `WATCH_LEASE`, and return the stripe's bell."""
        return self._sessions.watch(place)

    def wait(self, place: Place, bell: int, timeout: float) -> None:
        """Return when the bell is another one, or after ``timeout`` seconds at most.

        It may return early. This twin looks every few milliseconds.
        """
        word = self._segment.base_of(place.stripe) + S_BELL
        give_up = time.monotonic() + timeout
        while self._bell(word) == bell and (left := give_up - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_EVERY))

    def _bell(self, word: int) -> int:
        self._segment.require_open()
        try:
            return self._segment.words[word]
        except ValueError as error:  # closed this instant: nobody waits for those who wait
            raise faults.closed() from error

    # Memory and processes.

    def allocate(self, size: int) -> Allocation | None:
        """A block to fill in place, for ``data`` of a later call; ``None``: this twin has none."""
        self._segment.require_open()
        return None

    def collect(self) -> int:
        """Take back what dead processes held; how many processes that were."""
        return 0  # the kernel drops their locks, and nothing else is theirs

    def hold(self) -> AbstractContextManager[None]:
        """All stripes and the allocator, repaired, belong to this thread meanwhile."""
        return self._stripes.hold()

    def after_fork(self) -> None:
        """Forget what belongs to the parent; called in the child."""
        self._locks.renew()

    def close(self) -> None:
        """Nobody may be inside an operation."""


def _decoded(data: bytes) -> Any:
    value = decode(data)
    # What lies in a run comes as a view, as from the other twin.
    return memoryview(value) if len(data) > SMALL_MOST and data[1] == TAG_BYTES else value


RawStore: type[PyRawStore] = (
    PyRawStore
    if _accel.speedups is None
    else getattr(_accel.speedups, "RawStore", PyRawStore)  # macOS: the compiled part has none
)
