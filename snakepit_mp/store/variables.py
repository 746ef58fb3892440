"""How is a variable found, read and changed? Records within a session, already encoded."""

from __future__ import annotations

from collections.abc import Sequence

from . import faults, history, table
from .blocks import Words, content, record_of
from .layout import (
    HIDDEN,
    INLINE_BYTES,
    R_FACTS,
    R_FACTS_VERSION,
    R_HISTORY,
    R_INLINE,
    R_LENGTHS,
    R_NAME,
    R_NUMBER,
    R_UPDATED,
    R_VALUE,
    R_VALUE_LENGTH,
    R_VERSION,
    S_NUMBERS,
    T_LIVE,
    V_PROGRAMS,
    V_VARIABLES,
    WORD,
    Kind,
)
from .places import Key, NewVariable, Place, Update, VariableParts
from .records import variable_record
from .segment import Segment
from .sessions import Clock, Sessions, is_named, name_of
from .stripe import Operation, Stripes

__all__ = ["Variables", "parts_of"]


def parts_of(segment: Segment, record: int) -> VariableParts:
    """Copies of a variable's record, facts and value; the caller has its lock."""
    facts = segment.words[record + R_FACTS]
    return VariableParts(
        record_of(segment, record),
        content(segment, facts) if facts else b"",
        _value_of(segment, record),
    )


def _value_of(segment: Segment, record: int) -> bytes:
    block = segment.words[record + R_VALUE]
    if block:
        return content(segment, block)
    length = segment.words[record + R_VALUE_LENGTH]
    if length > INLINE_BYTES:
        raise faults.damaged(f"the value in record {record} is too long")
    return segment.read(record + R_INLINE, length)


class Variables:
    """The variables of all sessions of one segment, at most ``limit`` in each."""

    def __init__(
        self, segment: Segment, stripes: Stripes, sessions: Sessions, clock: Clock, limit: int
    ) -> None:
        self._segment = segment
        self._stripes = stripes
        self._sessions = sessions
        self._clock = clock
        self._limit = limit

    # Reading.

    def read(self, place: Place, key: Key) -> VariableParts:
        with self._stripes.reading(place.stripe) as words:
            return parts_of(self._segment, self._used(words, place, key))

    def read_value(self, place: Place, key: Key) -> bytes:
        with self._stripes.reading(place.stripe) as words:
            return _value_of(self._segment, self._used(words, place, key))

    def read_values(self, place: Place, keys: Sequence[Key]) -> list[bytes]:
        with self._stripes.reading(place.stripe) as words:
            session = self._sessions.use(words, place)
            records = [self._existing(words, session, place, key) for key in keys]
            return [_value_of(self._segment, record) for record in records]

    def read_many(self, place: Place, keys: Sequence[Key]) -> list[VariableParts | None]:
        with self._stripes.reading(place.stripe) as words:
            session = self._sessions.use(words, place)
            records = [self._find(words, session, key)[1] for key in keys]
            return [parts_of(self._segment, record) if record else None for record in records]

    def read_all(self, place: Place) -> list[VariableParts]:
        with self._stripes.reading(place.stripe) as words:
            session = self._sessions.use(words, place)
            entries = table.entries(words, session + V_VARIABLES)
            return [parts_of(self._segment, record) for _, record in entries]

    def contains(self, place: Place, key: Key) -> bool:
        with self._stripes.reading(place.stripe) as words:
            return self._find(words, self._sessions.use(words, place), key)[1] != 0

    def names(self, place: Place) -> list[tuple[int, bytes]]:
        with self._stripes.reading(place.stripe) as words:
            session = self._sessions.use(words, place)
            entries = table.entries(words, session + V_VARIABLES)
            return [(words[record + R_NUMBER], self._name(record)) for _, record in entries]

    def versions(self, place: Place, keys: Sequence[Key]) -> list[tuple[int, int]]:
        with self._stripes.reading(place.stripe) as words:
            session = self._sessions.find(words, place)
            records = [self._find(words, session, key)[1] for key in keys]
            return [
                (words[record + R_NUMBER], words[record + R_VERSION]) if record else (0, 0)
                for record in records
            ]

    def history(self, place: Place, key: Key) -> list[tuple[int, int, bytes]]:
        with self._stripes.reading(place.stripe) as words:
            record = self._used(words, place, key)
            now = words[record + R_VERSION], words[record + R_UPDATED]
            value = _value_of(self._segment, record)
            return [(*now, value), *history.kept(self._segment, record)]

    # Changing.

    def register(self, place: Place, key: Key, new: NewVariable, exist_ok: bool) -> VariableParts:
        with self._stripes.writing(place.stripe) as operation:
            session = self._sessions.change(operation, place)
            _, record = self._by_key(operation, session, key)
            if record == 0:
                record = self._create(operation, session, key, new)
                operation.commit()
            elif not exist_ok:
                raise faults.variable_exists(place, key)
            return parts_of(self._segment, record)

    def _create(self, operation: Operation, session: int, key: Key, new: NewVariable) -> int:
        owner = session + V_VARIABLES
        if key.key.startswith(HIDDEN):
            operation[session + V_PROGRAMS] += 1
        elif operation[owner + T_LIVE] - operation[session + V_PROGRAMS] >= self._limit:
            raise faults.variable_limit(self._limit)
        number = operation[operation.base + S_NUMBERS] + 1
        operation[operation.base + S_NUMBERS] = number
        data = _bytes_of(new)
        inline = len(data) <= INLINE_BYTES
        ring = history.new_ring(new.history) if new.history else b""
        payload = variable_record(
            key.key,
            new.type,
            data,
            digest=key.digest,
            number=number,
            wall=self._clock.wall(),
            facts=operation.store(Kind.FACTS, new.facts) if new.facts else 0,
            block=0 if inline else operation.store(Kind.VALUE, data),
            history=operation.store(Kind.HISTORY, ring) if ring else 0,
        )
        record = operation.store(Kind.VARIABLE, payload)
        operation.insert(owner, key.digest, record)
        return record

    def write(self, place: Place, updates: Sequence[Update]) -> list[int] | None:
        with self._stripes.writing(place.stripe) as operation:
            session = self._sessions.change(operation, place)
            words = operation.words  # until something is written, which takes longer to ask
            records = []
            for update in updates:
                record = self._existing(words, session, place, update.key)
                current = words[record + R_VERSION]
                if update.expected not in (0, current):
                    raise faults.version_conflict(place, update.key, current, update.expected)
                if self._identity(words, record) != (update.number, update.facts_version):
                    return None
                records.append(record)
            versions = [
                self._put(operation, record, _bytes_of(update))
                for update, record in zip(updates, records, strict=True)
            ]
            operation.commit()
            return versions

    def _put(self, operation: Operation, record: int, data: bytes) -> int:
        if operation[record + R_HISTORY]:
            history.keep(operation, record)
        else:
            operation.discard(operation[record + R_VALUE])
        block = 0
        if len(data) <= INLINE_BYTES:
            words = memoryview(data.ljust(INLINE_BYTES, b"\0")).cast("Q")
            for index in range(-(-len(data) // WORD)):
                operation[record + R_INLINE + index] = words[index]
        else:
            block = operation.store(Kind.VALUE, data)
        operation[record + R_VALUE] = block
        operation[record + R_VALUE_LENGTH] = len(data)
        version = operation[record + R_VERSION] + 1
        operation[record + R_VERSION] = version
        operation[record + R_UPDATED] = self._clock.wall()
        return version

    def constrain(
        self, place: Place, key: Key, identity: tuple[int, int], version: int, facts: bytes
    ) -> bool:
        with self._stripes.writing(place.stripe) as operation:
            session = self._sessions.change(operation, place)
            record = self._existing(operation, session, place, key)
            known = self._identity(operation, record), operation[record + R_VERSION]
            if known != (identity, version):
                return False
            operation.discard(operation[record + R_FACTS])
            block = operation.store(Kind.FACTS, facts) if facts else 0
            operation[record + R_FACTS] = block
            operation[record + R_FACTS_VERSION] += 1
            operation.commit()
            return True

    def delete(self, place: Place, key: Key) -> None:
        with self._stripes.writing(place.stripe) as operation:
            session = self._sessions.change(operation, place)
            slot, record = self._find(operation, session, key)
            if record == 0:
                raise faults.variable_not_found(place, key)
            table.remove(operation, session + V_VARIABLES, slot)
            if self._name(record).startswith(HIDDEN):
                operation[session + V_PROGRAMS] -= 1
            operation.discard_variable(record)
            operation.commit()

    # Finding.

    def _used(self, words: Words, place: Place, key: Key) -> int:
        return self._existing(words, self._sessions.use(words, place), place, key)

    def _existing(self, words: Words, session: int, place: Place, key: Key) -> int:
        _, record = self._find(words, session, key)
        if record == 0:
            raise faults.variable_not_found(place, key)
        return record

    def _find(self, words: Words, session: int, key: Key) -> tuple[int, int]:
        """Slot and record of a variable by name or id, or ``(0, 0)``."""
        found = self._by_key(words, session, key)
        if found[1] and key.number in (0, words[found[1] + R_NUMBER]):
            return found
        return (0, 0) if key.other is None else self._find(words, session, key.other)

    def _by_key(self, words: Words, session: int, key: Key) -> tuple[int, int]:
        def is_it(record: int) -> bool:
            return is_named(self._segment, record, R_LENGTHS, R_NAME, key.key)

        return table.find(words, session + V_VARIABLES, key.digest, is_it)

    def _name(self, record: int) -> bytes:
        return name_of(self._segment, record, R_LENGTHS, R_NAME)

    @staticmethod
    def _identity(words: Words, record: int) -> tuple[int, int]:
        return words[record + R_NUMBER], words[record + R_FACTS_VERSION]


def _bytes_of(given: NewVariable | Update) -> bytes:
    if not isinstance(given.data, bytes):
        raise TypeError("this store takes bytes: it has no blocks that a caller fills")
    return given.data
