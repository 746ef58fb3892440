"""How is a variable found, read and changed? Records within a session, already encoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from ..errors import SessionLimitReached, VariableExists, VariableNotFound, VersionConflict
from . import records, table
from .allocator import Kind
from .records import RawVariable
from .segment import Segment
from .sessions import Place, Sessions, digest_of
from .stripe import NUMBERS, Operation, Stripes

__all__ = [
    "NewVariable",
    "Update",
    "Variables",
    "not_found",
]


class NewVariable(NamedTuple):
    """What a variable is registered with, encoded."""

    name: str
    type: str
    data: bytes
    facts: bytes


class Update(NamedTuple):
    """A new value for a variable of which ``identity`` was known when it was checked."""

    name: str
    data: bytes
    identity: tuple[int, int]


class Variables:
    """The variables of all sessions of one segment."""

    def __init__(self, segment: Segment, stripes: Stripes, sessions: Sessions, limit: int) -> None:
        self._segment = segment
        self._stripes = stripes
        self._sessions = sessions
        self._limit = limit
        self._seed = segment.seed

    def read(self, place: Place, name: str) -> RawVariable:
        with self._stripes.reading(place.stripe) as words:
            return RawVariable.read(self._segment, self._record(words, place, name))

    def read_value(self, place: Place, name: str) -> bytes:
        with self._stripes.reading(place.stripe) as words:
            return records.read_value(self._segment, self._record(words, place, name))

    def read_many(self, place: Place, names: Iterable[str]) -> dict[str, RawVariable | None]:
        """Several at one moment; ``None`` for those that do not exist."""
        with self._stripes.reading(place.stripe) as words:
            session = self._sessions.require(words, place)
            found: dict[str, RawVariable | None] = {}
            for name in names:
                _, record = self._find(words, session, name)
                found[name] = RawVariable.read(self._segment, record) if record else None
            return found

    def contains(self, place: Place, name: str) -> bool:
        with self._stripes.reading(place.stripe) as words:
            _, record = self._find(words, self._sessions.require(words, place), name)
            return record != 0

    def names(self, place: Place) -> list[str]:
        """All names, in the order of creation."""
        with self._stripes.reading(place.stripe) as words:
            session = self._sessions.require(words, place)
            found = [
                (words[record + records.NUMBER], records.variable_name(self._segment, record))
                for _, record in table.entries(words, session + records.VARIABLES)
            ]
        return [records.text(key) for _, key in sorted(found)]

    def matching(self, place: Place, pattern: str) -> list[RawVariable]:
        """All whose name matches a glob, in the order of creation, at one moment."""
        found = []
        with self._stripes.reading(place.stripe) as words:
            session = self._sessions.require(words, place)
            for _, record in table.entries(words, session + records.VARIABLES):
                name = records.text(records.variable_name(self._segment, record))
                if fnmatchcase(name, pattern):
                    found.append(RawVariable.read(self._segment, record))
        return sorted(found, key=lambda raw: raw.number)

    def register(self, place: Place, new: NewVariable, exist_ok: bool) -> RawVariable:
        """Create a variable, or with ``exist_ok`` return the one of that name."""
        key = records.key(new.name)
        digest = digest_of(self._seed, key)
        with self._stripes.writing(place.stripe) as operation:
            session = self._sessions.require(operation, place)
            _, record = self._by_name(operation, session, key, digest)
            if record == 0:
                record = self._create(operation, session, key, digest, new)
                operation.commit()
            elif not exist_ok:
                raise VariableExists(
                    f"session {place.name!r} has a variable {new.name!r} already",
                    session_id=place.name,
                    name=new.name,
                )
            return RawVariable.read(self._segment, record)

    def _create(
        self, operation: Operation, session: int, key: bytes, digest: int, new: NewVariable
    ) -> int:
        owner = session + records.VARIABLES
        if operation[owner + table.LIVE] >= self._limit:
            raise SessionLimitReached(
                f"the session has {self._limit} variables, and max_variables_per_session is that",
                limit=self._limit,
            )
        number = operation[operation.base + NUMBERS] + 1
        operation[operation.base + NUMBERS] = number
        inline = len(new.data) <= records.INLINE_BYTES
        payload = records.variable_record(
            key,
            records.key(new.type),
            new.data,
            block=0 if inline else operation.store(Kind.VALUE, new.data),
            digest=digest,
            number=number,
            wall=self._sessions.wall(),
            facts=operation.store(Kind.FACTS, new.facts) if new.facts else 0,
        )
        record = operation.store(Kind.VARIABLE, payload)
        operation.insert(owner, digest, record)
        return record

    def write(
        self, place: Place, updates: Sequence[Update], expected: Mapping[str, int | None]
    ) -> dict[str, int] | None:
        """Give variables new values in one commit; their new versions by name.

        ``None``, and nothing is changed, where one is no longer what its value was checked
        against. Raises `VersionConflict`, `VariableNotFound`, `StoreFull`.
        """
        with self._stripes.writing(place.stripe) as operation:
            session = self._sessions.require(operation, place)
            found = []
            for update in updates:
                record = self._existing(operation, session, place, update.name)
                self._check_version(operation, record, place, update.name, expected)
                if self._identity(operation, record) != update.identity:
                    return None
                found.append(record)
            versions = {}
            for update, record in zip(updates, found, strict=True):
                versions[update.name] = self._put(operation, record, update.data)
            operation.commit()
            return versions

    def _put(self, operation: Operation, record: int, data: bytes) -> int:
        block = 0
        if len(data) <= records.INLINE_BYTES:
            for index, word in enumerate(records.inline_words(data), record + records.INLINE):
                operation[index] = word
        else:
            block = operation.store(Kind.VALUE, data)
        operation.discard(operation[record + records.VALUE])
        operation[record + records.VALUE] = block
        operation[record + records.VALUE_LENGTH] = len(data)
        version = operation[record + records.VERSION] + 1
        operation[record + records.VERSION] = version
        operation[record + records.UPDATED] = self._sessions.wall()
        return version

    def constrain(self, place: Place, seen: RawVariable, facts: bytes) -> bool:
        """Replace constraints and metadata, unless the variable has changed since ``seen``."""
        with self._stripes.writing(place.stripe) as operation:
            session = self._sessions.require(operation, place)
            record = self._existing(operation, session, place, seen.name)
            version = operation[record + records.VERSION]
            if (self._identity(operation, record), version) != (seen.identity, seen.version):
                return False
            operation.discard(operation[record + records.FACTS])
            block = operation.store(Kind.FACTS, facts) if facts else 0
            operation[record + records.FACTS] = block
            operation[record + records.FACTS_VERSION] += 1
            operation.commit()
            return True

    def delete(self, place: Place, name: str) -> None:
        with self._stripes.writing(place.stripe) as operation:
            session = self._sessions.require(operation, place)
            slot, record = self._find(operation, session, name)
            if record == 0:
                raise not_found(place, name)
            table.remove(operation, session + records.VARIABLES, slot)
            operation.discard_variable(record)
            operation.commit()

    def _record(self, words: table.Words, place: Place, name: str) -> int:
        return self._existing(words, self._sessions.require(words, place), place, name)

    def _existing(self, words: table.Words, session: int, place: Place, name: str) -> int:
        _, record = self._find(words, session, name)
        if record == 0:
            raise not_found(place, name)
        return record

    def _find(self, words: table.Words, session: int, name: str) -> tuple[int, int]:
        """Slot and record of a variable by name or id, or ``(0, 0)``."""
        key = records.key(name)
        found = self._by_name(words, session, key, digest_of(self._seed, key))
        parts = None if found[1] else records.number_in(name)
        if parts is None:
            return found
        key = records.key(parts[0])
        slot, record = self._by_name(words, session, key, digest_of(self._seed, key))
        if record and words[record + records.NUMBER] == parts[1]:
            return slot, record
        return 0, 0

    def _by_name(
        self, words: table.Words, session: int, key: bytes, digest: int
    ) -> tuple[int, int]:
        def is_it(record: int) -> bool:
            return records.is_variable(self._segment, record, key)

        return table.find(words, session + records.VARIABLES, digest, is_it)

    @staticmethod
    def _identity(words: table.Words, record: int) -> tuple[int, int]:
        return words[record + records.NUMBER], words[record + records.FACTS_VERSION]

    @staticmethod
    def _check_version(
        words: table.Words,
        record: int,
        place: Place,
        name: str,
        expected: Mapping[str, int | None],
    ) -> None:
        wanted, current = expected.get(name), words[record + records.VERSION]
        if wanted is not None and wanted != current:
            raise VersionConflict(
                f"variable {name!r} of session {place.name!r} is at version {current}, "
                f"not {wanted}",
                current=current,
                expected=wanted,
            )


def not_found(place: Place, name: str) -> VariableNotFound:
    return VariableNotFound(
        f"session {place.name!r} has no variable {name!r}", session_id=place.name, name=name
    )
