"""How does a store survive its last process? As a file, which another store can load.

The file is a magic word and items, each a length and an encoded tuple; the last one counts
the others and has their checksum. Values travel as they are stored, without being decoded.

Kept are ids, metadata, TTLs (with what was left of them), names, types, constraints, values
with their history, and programs. New are the times of creation and update, the ids of
variables, and their versions: the oldest value that is kept has version 1.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..errors import SessionNotFound, SnakepitError, StoreError, VariableNotFound
from ..values import constraints as constraint_sets
from ..values import types
from ..values.codec import decode, encode
from . import faults, history, table
from .blocks import record_of
from .janitor import Sweeper
from .layout import (
    HIDDEN,
    HISTORY_MOST,
    R_NUMBER,
    S_INDEX,
    STRIPE_COUNT,
    V_ACCESSED,
    V_CREATED,
    V_VARIABLES,
)
from .places import Key, Keys, NewVariable, Place, Update
from .raw_store import PyRawStore
from .records import RawSession, RawVariable
from .segment import Segment
from .sessions import is_expired, lookup
from .variables import parts_of

__all__ = ["Dumps"]

_MAGIC = b"SNAKEPIT"
_VERSION = 1
_LENGTH = struct.Struct("<Q")
_LONGEST_TTL = (1 << 63) - 1


class _Session(NamedTuple):
    """An item; ``name`` is ``None`` for the programs that belong to no session."""

    name: str | None
    metadata: bytes
    ttl: int
    left: int


class _Variable(NamedTuple):
    """An item that belongs to the session before it; ``values``: oldest first."""

    name: str
    is_program: bool
    type: str
    facts: bytes
    history: int
    values: list[bytes]


class Dumps:
    """Writes a store to files, and reads it back."""

    def __init__(self, raw: PyRawStore, segment: Segment, keys: Keys, room: Sweeper) -> None:
        self._raw = raw
        self._segment = segment
        self._keys = keys
        self._room = room

    # Writing.

    def dump(self, path: str | os.PathLike[str], now: int) -> int:
        """Write everything as it is at one moment; how many sessions that are."""
        target = Path(path)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                with faults.ToldAsDamage(), self._raw.hold():
                    count = self._write(file, now)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
        return count

    def _write(self, file: BinaryIO, now: int) -> int:
        file.write(_MAGIC)
        items, sessions, checksum = 0, 0, 0
        for item in self._stored(now):
            sessions += isinstance(item, _Session) and item.name is not None
            checksum = _put(file, (type(item).__name__, *item), checksum)
            items += 1
        _put(file, ("end", _VERSION, items, checksum), 0)
        return sessions

    def _stored(self, now: int) -> Iterator[_Session | _Variable]:
        """What the segment holds, of which the caller has all locks."""
        words = self._segment.words
        tables = (self._segment.base_of(stripe) + S_INDEX for stripe in range(STRIPE_COUNT))
        sessions = sorted(
            (words[record + V_CREATED], record)
            for owner in tables
            for _, record in table.entries(words, owner)
            if not is_expired(words, record, now)
        )
        for _, record in sessions:
            raw = RawSession.parse(record_of(self._segment, record))
            # At most all of it: a use may be younger than ``now``.
            left = min(max(raw.accessed + raw.ttl - now, 1), raw.ttl)
            yield _Session(None if raw.hidden else raw.name, raw.metadata, raw.ttl, left)
            variables = sorted(
                (words[variable + R_NUMBER], variable)
                for _, variable in table.entries(words, record + V_VARIABLES)
            )
            for _, variable in variables:
                yield self._variable(variable)

    def _variable(self, record: int) -> _Variable:
        raw = RawVariable.parse(parts_of(self._segment, record))
        old = [data for _, _, data in history.kept(self._segment, record)]
        capacity = history.capacity_of(self._segment.words, record)
        values = [*reversed(old), raw.value]
        return _Variable(raw.name, raw.is_program, raw.type, raw.facts, capacity, values)

    # Reading.

    def load(self, path: str | os.PathLike[str], now: int) -> int:
        """Create everything that a file holds, or nothing; how many sessions that are.

        The file is read twice: nothing is changed before all of it was understood.
        """
        self._check(Path(path))
        done: list[tuple[Place, _Session]] = []
        programs: list[Key] = []
        try:
            self._create(Path(path), done, programs)
        except BaseException:
            self._undo([place for place, _ in done], programs)
            raise
        self._set_ages(done, now)
        return len(done)

    def _check(self, path: Path) -> None:
        session: _Session | None = None
        for item in _items(path):
            if isinstance(item, _Session):
                session = item
                if item.name is not None:
                    place = self._keys.place(item.name)
                    if self._raw.session_exists(place):
                        raise faults.session_exists_already(place)
            elif session is None or (session.name is None and not item.is_program):
                raise _unreadable(path, "a variable belongs to no session")
            elif session.name is None:
                hidden, key = self._keys.hidden_place(), self._keys.program(item.name)
                if self._raw.contains(hidden, key):
                    raise StoreError(f"the store has a program {item.name!r} already")

    def _create(self, path: Path, done: list[tuple[Place, _Session]], programs: list[Key]) -> None:
        place = self._keys.hidden_place()
        for item in _items(path):
            if isinstance(item, _Session):
                place = self._keys.hidden_place()
                if item.name is not None:
                    place = self._keys.place(item.name)
                    attempt = functools.partial(
                        self._raw.create_session, place, item.ttl, item.metadata, False
                    )
                    self._room.with_room(attempt)
                    done.append((place, item))
                continue
            make = self._keys.program if item.is_program else self._keys.variable
            key = make(item.name)
            self._register(place, key, item)
            if place.key == HIDDEN:
                programs.append(key)

    def _register(self, place: Place, key: Key, item: _Variable) -> None:
        first, *later = item.values
        new = NewVariable(item.type.encode(), first, item.facts, item.history)
        attempt = functools.partial(self._raw.register, place, key, new, False)
        number = RawVariable.parse(self._room.with_room(attempt)).number
        for data in later:
            update = Update(key, data, number, 0)
            self._room.with_room(functools.partial(self._raw.write, place, [update]))

    def _undo(self, places: list[Place], programs: list[Key]) -> None:
        for place in places:
            with contextlib.suppress(SessionNotFound):
                self._raw.delete_session(place)
        for key in programs:
            with contextlib.suppress(VariableNotFound):
                self._raw.delete_variable(self._keys.hidden_place(), key)

    def _set_ages(self, sessions: list[tuple[Place, _Session]], now: int) -> None:
        """Let a TTL go on where it was, as far as the clock goes back."""
        words = self._segment.words
        with self._raw.hold():
            for place, item in sessions:
                _, record = lookup(self._segment, words, place)
                if record and item.ttl:
                    words[record + V_ACCESSED] = max(now - (item.ttl - item.left), 0)


def _put(file: BinaryIO, item: tuple[Any, ...], checksum: int) -> int:
    """Write an item; the checksum with it."""
    data = encode(item)
    file.write(_LENGTH.pack(len(data)))
    file.write(data)
    return zlib.crc32(data, checksum)


def _items(path: Path) -> Iterator[_Session | _Variable]:
    """The items of a file. Raises `StoreError`, at the latest at the end, if it is no dump."""
    items, checksum = 0, 0
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise _unreadable(path, "it is no dump of a store")
        size = path.stat().st_size
        while True:
            head = file.read(_LENGTH.size)
            length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else size
            if length > size - file.tell():
                raise _unreadable(path, "it is cut off")
            data = file.read(length)
            try:
                item = _understood(decode(data))
            except SnakepitError as error:
                raise _unreadable(path, str(error)) from error
            if item is None:
                break
            yield item
            items, checksum = items + 1, zlib.crc32(data, checksum)
        if decode(data) != ("end", _VERSION, items, checksum):
            raise _unreadable(path, "its version or its checksum is wrong")


def _understood(item: Any) -> _Session | _Variable | None:
    """An item of the file, checked; ``None`` for the last one."""
    match item:
        case ("end", *_):
            return None
        case ("_Session", str() | None as name, bytes() as metadata, int() as ttl, int() as left):
            if name != "" and 0 <= left <= ttl <= _LONGEST_TTL:
                _mapping(metadata)
                return _Session(name, metadata, ttl, left)
        case (
            "_Variable",
            str() as name,
            bool() as is_program,
            str() as kind,
            bytes() as facts,
            int() as capacity,
            list() as values,
        ):
            fits = 0 <= capacity <= HISTORY_MOST and 0 < len(values) <= capacity + 1
            if name and fits and all(isinstance(value, bytes) and value for value in values):
                _check_facts(types.type_name(kind), facts)
                return _Variable(name, is_program, kind, facts, capacity, values)
    raise StoreError("an item is none of a dump")


def _mapping(data: bytes) -> None:
    if data and not isinstance(decode(data), dict):
        raise StoreError("metadata are no mapping")


def _check_facts(kind: str, facts: bytes) -> None:
    match decode(facts) if facts else ({}, {}):
        case (dict() as constraints, dict()):
            constraint_sets.validate_constraints(kind, constraints)
        case _:
            raise StoreError("constraints and metadata are no mappings")


def _unreadable(path: Path, why: str) -> StoreError:
    return StoreError(f"cannot load {path}: {why}")
