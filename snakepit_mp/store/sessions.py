"""Which session is this, is it alive, and who removes it? Sessions as records in stripes."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

from ..errors import SessionNotFound, StoreError
from . import records, table
from .allocator import Kind
from .records import RawSession
from .segment import STRIPE_COUNT, Segment
from .stripe import INDEX, Stripes

__all__ = ["Place", "Sessions", "digest_of"]

_PLACES_KEPT = 16_384
#: Seconds that the caller of a delete spends on freeing blocks.
_TIDY_BUDGET = 0.02


class Place(NamedTuple):
    """Where a session is looked for, whether it exists or not."""

    name: str
    key: bytes
    digest: int
    stripe: int


def digest_of(seed: bytes, key: bytes) -> int:
    """The 64-bit hash of a name; keyed, so that nobody can choose names that collide."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, key=seed).digest(), "little")


def _place_of(seed: bytes, name: str) -> Place:
    key = records.key(name)
    digest = digest_of(seed, key)
    return Place(name, key, digest, digest % STRIPE_COUNT)


class Sessions:
    """The sessions of one segment.

    ``monotonic`` and ``wall`` are clocks in nanoseconds: of TTLs, and of what is shown.
    """

    def __init__(self, segment: Segment, stripes: Stripes) -> None:
        self._segment = segment
        self._stripes = stripes
        self._next_swept = 0
        self.monotonic: Callable[[], int] = time.monotonic_ns
        self.wall: Callable[[], int] = time.time_ns
        self.place = functools.lru_cache(_PLACES_KEPT)(functools.partial(_place_of, segment.seed))

    def lookup(self, words: table.Words, place: Place) -> tuple[int, int]:
        """Slot and record of a session, expired ones included, or ``(0, 0)``."""
        owner = self._segment.base_of(place.stripe) + INDEX

        def is_it(record: int) -> bool:
            return records.is_session(self._segment, record, place.key)

        return table.find(words, owner, place.digest, is_it)

    def expired(self, record: int, now: int) -> bool:
        words = self._segment.words
        lifetime = words[record + records.TTL]
        return lifetime != 0 and now - words[record + records.ACCESSED] >= lifetime

    def require(self, words: table.Words, place: Place) -> int:
        """The record of a session in use from now on. Raises `SessionNotFound`."""
        _, record = self.lookup(words, place)
        now = self.monotonic()
        if record == 0 or self.expired(record, now):
            raise SessionNotFound(
                f"no session {place.name!r}: it was never created, was deleted or has expired",
                session_id=place.name,
            )
        # One word that says nothing about others, so it needs no log.
        self._segment.words[record + records.ACCESSED] = now
        return record

    def create(self, place: Place, lifetime: int, metadata: bytes, exist_ok: bool) -> RawSession:
        """Create a session unless it exists, in one commit; ``lifetime`` 0 is for ever."""
        with self._stripes.writing(place.stripe) as operation:
            slot, record = self.lookup(operation, place)
            now = self.monotonic()
            if record and self.expired(record, now):
                operation.bury(slot, record)
                record = 0
            if record == 0:
                payload = records.session_record(
                    place.key,
                    metadata,
                    digest=place.digest,
                    ttl=lifetime,
                    now=now,
                    wall=self.wall(),
                )
                record = operation.store(Kind.SESSION, payload)
                operation.insert(operation.base + INDEX, place.digest, record)
                operation.commit()
            elif exist_ok:
                self._segment.words[record + records.ACCESSED] = now
            else:
                raise StoreError(f"session {place.name!r} exists already")
            return RawSession.read(self._segment, record)

    def read(self, place: Place) -> RawSession:
        with self._stripes.reading(place.stripe) as words:
            return RawSession.read(self._segment, self.require(words, place))

    def touch(self, place: Place) -> None:
        with self._stripes.reading(place.stripe) as words:
            self.require(words, place)

    def exists(self, place: Place) -> bool:
        """Whether it is there and alive, without using it."""
        with self._stripes.reading(place.stripe) as words:
            _, record = self.lookup(words, place)
            return record != 0 and not self.expired(record, self.monotonic())

    def note_worker(self, place: Place, worker_id: int) -> None:
        with self._stripes.reading(place.stripe) as words:
            # A single word, so it needs no log.
            self._segment.words[self.require(words, place) + records.WORKER] = worker_id + 1

    def matching(self, pattern: str) -> list[RawSession]:
        """All whose name matches a glob, oldest first, without using them."""
        found = []
        for stripe in range(STRIPE_COUNT):
            with self._stripes.reading(stripe) as words:
                now = self.monotonic()
                for _, record in table.entries(words, self._segment.base_of(stripe) + INDEX):
                    name = records.text(records.session_name(self._segment, record))
                    if fnmatchcase(name, pattern) and not self.expired(record, now):
                        found.append(RawSession.read(self._segment, record))
        return sorted(found, key=lambda raw: (raw.created, raw.name))

    def delete(self, place: Place) -> int:
        """Delete a session in one commit; how many variables went with it."""
        with self._stripes.writing(place.stripe) as operation:
            record = self.require(operation, place)
            slot, _ = self.lookup(operation, place)
            count = operation[record + records.VARIABLES + table.LIVE]
            operation.bury(slot, record)
            operation.commit()
        self._tidy(place.stripe, time.monotonic() + _TIDY_BUDGET)
        return count

    def sweep(self, budget: float) -> int:
        """Remove expired sessions, stripe by stripe, for about ``budget`` seconds.

        Goes on where the last sweep stopped, at most once around; also finishes what dead
        processes left. Returns how many sessions were removed.
        """
        removed = 0
        deadline = time.monotonic() + budget
        for _ in range(STRIPE_COUNT):
            stripe = self._next_swept
            self._next_swept = (stripe + 1) % STRIPE_COUNT
            removed += self._sweep_stripe(stripe)
            self._tidy(stripe, deadline)
            if time.monotonic() > deadline:
                break
        return removed

    def _sweep_stripe(self, stripe: int) -> int:
        owner = self._segment.base_of(stripe) + INDEX
        with self._stripes.reading(stripe) as words:
            now = self.monotonic()
            keys = [
                records.session_name(self._segment, record)
                for _, record in table.entries(words, owner)
                if self.expired(record, now)
            ]
        return sum(self._remove_expired(self.place(records.text(key))) for key in keys)

    def _remove_expired(self, place: Place) -> bool:
        with self._stripes.writing(place.stripe) as operation:
            slot, record = self.lookup(operation, place)
            if record == 0 or not self.expired(record, self.monotonic()):
                return False  # used again, or removed by somebody else, meanwhile
            operation.bury(slot, record)
            operation.commit()
            return True

    def _tidy(self, stripe: int, deadline: float) -> None:
        while self._stripes.tidy(stripe) and time.monotonic() < deadline:
            pass
