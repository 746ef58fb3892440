"""Which session is this, is it alive, and who removes it? Sessions as records in stripes."""

from __future__ import annotations

import time

from . import faults, table
from .blocks import Words, length_of, record_of
from .layout import (
    HIDDEN,
    PAGE_BYTES,
    PAGES,
    S_BELL,
    S_INDEX,
    S_NUMBERS,
    SMALL_MOST,
    STAMP_EVERY,
    STRIPE_COUNT,
    STRIPE_WORDS,
    STRIPES,
    T_LIVE,
    V_ACCESSED,
    V_LENGTHS,
    V_NAME,
    V_PROGRAMS,
    V_TTL,
    V_VARIABLES,
    V_WATCHED,
    V_WORKER,
    WATCH_LEASE,
    Kind,
)
from .places import Place
from .records import session_record
from .segment import Segment
from .stripe import Operation, Stripes

__all__ = [
    "Clock",
    "Sessions",
    "is_expired",
    "is_named",
    "lookup",
    "name_of",
    "session_count",
]

_LOW = (1 << 32) - 1
#: Expired sessions that go in one commit: two entries of the log each.
_SWEPT_AT_ONCE = 32


class Clock:
    """Nanoseconds: `monotonic` of TTLs, which a test may freeze, `wall` of what is shown."""

    def __init__(self) -> None:
        self.frozen: int | None = None

    def monotonic(self) -> int:
        return time.monotonic_ns() if self.frozen is None else self.frozen

    def wall(self) -> int:
        return time.time_ns()


def name_of(segment: Segment, record: int, lengths: int, names: int) -> bytes:
    """The first name in a record, of which these are the words."""
    length = segment.words[record + lengths] & _LOW
    if length > SMALL_MOST:  # in a block of its own: is it so long?
        length = min(length, length_of(segment.words, record), PAGE_BYTES * segment.words[PAGES])
    return segment.read(record + names, length)


def is_named(segment: Segment, record: int, lengths: int, names: int, key: bytes) -> bool:
    """Whether ``key`` is the first name in a record."""
    length = len(key)
    if segment.words[record + lengths] & _LOW != length:
        return False
    return segment.read(record + names, length) == key


def lookup(segment: Segment, words: Words, place: Place) -> tuple[int, int]:
    """Slot and record of a session, expired ones included, or ``(0, 0)``."""

    def is_it(record: int) -> bool:
        return is_named(segment, record, V_LENGTHS, V_NAME, place.key)

    owner = segment.base_of(place.stripe) + S_INDEX
    return table.find(words, owner, place.digest, is_it)


def is_expired(words: memoryview[int], record: int, now: int) -> bool:
    """Whether a session's TTL is over."""
    lifetime = words[record + V_TTL]
    return lifetime != 0 and now - words[record + V_ACCESSED] >= lifetime


def session_count(segment: Segment) -> int:
    """How many there are, expired ones included, without the hidden one."""
    first = STRIPES + S_INDEX + T_LIVE
    end = STRIPES + STRIPE_COUNT * STRIPE_WORDS
    return max(sum(segment.words[first:end:STRIPE_WORDS].tolist()) - 1, 0)


class Sessions:
    """The sessions of one segment, at most ``limit``."""

    def __init__(self, segment: Segment, stripes: Stripes, clock: Clock, limit: int) -> None:
        self._segment = segment
        self._stripes = stripes
        self._clock = clock
        self._limit = limit

    # What others need, too: under a lock.

    def find(self, words: Words, place: Place, now: int | None = None) -> int:
        """The record of a session that is there and alive. Raises `SessionNotFound`."""
        _, record = lookup(self._segment, words, place)
        now = self._clock.monotonic() if now is None else now
        if record == 0 or is_expired(self._segment.words, record, now):
            raise faults.session_not_found(place)
        return record

    def use(self, words: Words, place: Place, *, always: bool = False) -> int:
        """The same, and its TTL begins anew, which is noted not too often, or ``always``."""
        now, known = self._clock.monotonic(), self._segment.words
        record = self.find(words, place, now)
        lifetime = known[record + V_TTL]
        rarely = min(lifetime // 8, STAMP_EVERY) if lifetime else STAMP_EVERY
        if now - known[record + V_ACCESSED] >= rarely or always:
            known[record + V_ACCESSED] = now  # one word, so it needs no log
        return record

    def change(self, operation: Operation, place: Place) -> int:
        """The same for an operation that will change its variables, and has done nothing yet."""
        now, known = self._clock.monotonic(), operation.words
        record = self.find(known, place, now)
        known[record + V_ACCESSED] = now
        if known[record + V_WATCHED] > now:
            operation.will_ring()
        return record

    def _ring_if_watched(self, operation: Operation, record: int) -> None:
        if self._segment.words[record + V_WATCHED] > self._clock.monotonic():
            operation.will_ring()

    def _expired(self, record: int, now: int) -> bool:
        return is_expired(self._segment.words, record, now)

    # The calls of the raw store.

    def create(self, place: Place, lifetime: int, metadata: bytes, exist_ok: bool) -> bytes:
        with self._stripes.writing(place.stripe) as operation:
            slot, record = lookup(self._segment, operation, place)
            if record and self._expired(record, self._clock.monotonic()):
                self._bury(operation, slot, record)
                record = 0
            if record == 0:
                record = self._create(operation, place, lifetime, metadata)
            elif exist_ok:
                self.use(operation, place, always=True)
            else:
                raise faults.session_exists_already(place)
            return record_of(self._segment, record)

    def _create(self, operation: Operation, place: Place, lifetime: int, metadata: bytes) -> int:
        owner = operation.base + S_INDEX
        # One that expired here was counted, and goes with the same commit.
        gone = self._segment.words[owner + T_LIVE] - operation[owner + T_LIVE]
        if place.key != HIDDEN and session_count(self._segment) - gone >= self._limit:
            raise faults.session_limit(self._limit)
        number = operation[operation.base + S_NUMBERS] + 1
        operation[operation.base + S_NUMBERS] = number
        payload = session_record(
            place.key,
            metadata,
            digest=place.digest,
            number=number,
            ttl=lifetime,
            now=self._clock.monotonic(),
            wall=self._clock.wall(),
        )
        record = operation.store(Kind.SESSION, payload)
        operation.insert(owner, place.digest, record)
        operation.commit()
        return record

    def read(self, place: Place) -> bytes:
        with self._stripes.reading(place.stripe) as words:
            return record_of(self._segment, self.use(words, place))

    def exists(self, place: Place) -> bool:
        with self._stripes.reading(place.stripe) as words:
            _, record = lookup(self._segment, words, place)
            return record != 0 and not self._expired(record, self._clock.monotonic())

    def touch(self, place: Place) -> None:
        with self._stripes.reading(place.stripe) as words:
            self.use(words, place, always=True)

    def note_worker(self, place: Place, worker_id: int) -> None:
        with self._stripes.reading(place.stripe) as words:
            # A single word, so it needs no log.
            self._segment.words[self.use(words, place, always=True) + V_WORKER] = worker_id + 1

    def living(self, stripe: int) -> list[bytes]:
        with self._stripes.reading(stripe) as words:
            now = self._clock.monotonic()
            return [
                record_of(self._segment, record)
                for _, record in table.entries(words, self._segment.base_of(stripe) + S_INDEX)
                if not self._expired(record, now)
            ]

    def delete(self, place: Place) -> int:
        with self._stripes.writing(place.stripe) as operation:
            record = self.find(operation, place)
            slot, _ = lookup(self._segment, operation, place)
            live = operation[record + V_VARIABLES + T_LIVE]
            count = live - operation[record + V_PROGRAMS]
            self._bury(operation, slot, record)
            operation.commit()
            return count

    def sweep(self, stripe: int) -> int:
        removed = 0
        while some := self._sweep_some(stripe):
            removed += some
        return removed

    def _sweep_some(self, stripe: int) -> int:
        """Remove a few expired sessions in one commit; how many."""
        with self._stripes.reading(stripe) as words:
            if not self._expired_in(words, stripe):
                return 0
        with self._stripes.writing(stripe) as operation:
            # Not those of before: one may have been used meanwhile.
            found = self._expired_in(operation, stripe)[:_SWEPT_AT_ONCE]
            for slot, record in found:
                self._bury(operation, slot, record)
            operation.commit()
            return len(found)

    def _expired_in(self, words: Words, stripe: int) -> list[tuple[int, int]]:
        now = self._clock.monotonic()
        entries = table.entries(words, self._segment.base_of(stripe) + S_INDEX)
        return [(slot, record) for slot, record in entries if self._expired(record, now)]

    def _bury(self, operation: Operation, slot: int, record: int) -> None:
        self._ring_if_watched(operation, record)
        operation.bury(slot, record)

    def watch(self, place: Place) -> int:
        with self._stripes.writing(place.stripe) as operation:
            record = self.find(operation, place)
            self._segment.words[record + V_WATCHED] = self._clock.monotonic() + WATCH_LEASE
            return self._segment.words[operation.base + S_BELL]
