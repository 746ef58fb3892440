"""A small store in which every operation has something to do, and all of its bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from unittest import mock

from snakepit_mp.config import StoreConfig
from snakepit_mp.errors import SessionNotFound, SnakepitError
from snakepit_mp.store.layout import (
    ALLOCATOR,
    DESCRIPTOR_WORDS,
    DESCRIPTORS,
    FREE_PAGES,
    PAGE_WORDS,
    PAGES,
    PROCESS_WORDS,
    PROCESSES,
    PROCESSES_USED,
    STRIPE_COUNT,
    STRIPE_WORDS,
    STRIPES,
)
from snakepit_mp.store.places import NewVariable, Place, Update
from snakepit_mp.store.records import RawSession, RawVariable
from snakepit_mp.store.session_store import SessionStore
from snakepit_mp.values.codec import encode

__all__ = ["CLOCK", "Call", "World"]

CLOCK = 10**12
_CHUNK = 4096
#: Seconds after which a lock that nobody holds was not to be had.
_AT_ONCE = 0.5

Call = Callable[[], object]


class World:
    """A small store in which every operation has something to do, and its bytes."""

    def __init__(self) -> None:
        # The same names lie at the same places in every run.
        with mock.patch("os.urandom", random.Random(4).randbytes):
            self.store = SessionStore(StoreConfig(max_bytes=16 << 20))
        self.raw: Any = self.store._raw
        self.raw.freeze_clock(CLOCK)
        self.store._locks.timeout = _AT_ONCE
        self.segment = self.store._segment
        place = self.store._keys.place
        self.place = place("s")
        neighbours = (place(f"s{n}") for n in range(100_000))
        same = (other for other in neighbours if other.stripe == self.place.stripe)
        self.neighbour, self.new, self.passing = (next(same) for _ in range(3))
        self.key = self.store._keys.variable
        self._fill()
        self._view()

    def _fill(self) -> None:
        for place in (self.place, self.neighbour):
            self.raw.create_session(place, 0, b"metadata", False)
            self.register("small", b"s" * 10, place)
        self.raw.create_session(self.passing, 10**9, b"", False)
        self.register("mortal", b"m" * 300, self.passing)
        self.register("block", b"b" * 500)
        self.register("large", b"l" * 20_000)
        self.register("kept", b"k" * 100, history=2)
        for number in range(3):
            self.write("kept", b"%d" % number * 100)()
        for kind, value in {"float": 1.5, "integer": 3, "string": "text"}.items():
            new = NewVariable(kind.encode(), encode(value), b"")
            self.raw.register(self.place, self.key(kind), new, False)
        for number in range(12):
            self.register(f"v{number}", b"v" * (1 + number * 40))

    def _view(self) -> None:
        """Have a slot among the processes, so that a view changes nothing else."""
        self.allocate(10_000)()

    def register(
        self, name: str, data: bytes, place: Place | None = None, history: int = 0
    ) -> None:
        new = NewVariable(b"any", encode(data), b"facts" if history else b"", history)
        self.raw.register(place or self.place, self.key(name), new, False)

    # Calls with everything prepared.

    def write(self, *pairs: str | bytes) -> Call:
        updates = []
        for name, data in zip(pairs[::2], pairs[1::2], strict=True):
            key = self.key(str(name))
            [(number, _)] = self.raw.versions(self.place, [key])
            updates.append(Update(key, encode(data), number, 0))
        method, place = self.raw.write, self.place
        return lambda: method(place, updates)

    def allocate(self, size: int) -> Call:
        method = self.raw.allocate
        return lambda: method(size)

    def call(self, name: str, *arguments: object) -> Call:
        method = getattr(self.raw, name)
        return lambda: method(*arguments)

    # What can be seen.

    def contents(self) -> object:
        """All that can be read without waiting, save times."""
        places = (self.place, self.neighbour, self.new, self.passing)
        return [self._session(place) for place in places]

    def _session(self, place: Place) -> object:
        try:
            session = RawSession.parse(self.raw.session(place))
            found = map(RawVariable.parse, self.raw.all_variables(place))
        except SessionNotFound:
            return None
        variables = sorted(
            (raw.number, raw.key, raw.type, raw.version, raw.facts, raw.facts_version, raw.value)
            for raw in found
        )
        old = []
        if place is self.place:
            with suppress(SnakepitError):  # deleted
                history = self.raw.history(place, self.key("kept"))
                old = [(version, data) for version, _, data in history]
        return session.number, session.metadata, session.ttl, session.variables, variables, old

    def tidied(self) -> int:
        """Put away all that was left behind; how many pages are in use then."""
        self.raw.collect()
        for stripe in range(STRIPE_COUNT):
            while self.raw.tidy(stripe):
                pass
        words = self.segment.words
        return words[PAGES] - words[FREE_PAGES]

    # Its bytes.

    def _parts(self, pages: int) -> Iterator[slice]:
        """What may change: the fixed parts, the processes, and so many pages."""
        slots = min(self.segment.words[PROCESSES_USED] + 2, 8)
        yield slice(0, (PROCESSES + slots * PROCESS_WORDS) * 8)
        yield slice(DESCRIPTORS * 8, (DESCRIPTORS + pages * DESCRIPTOR_WORDS) * 8)
        start = self.segment.heap
        yield slice(start * 8, (start + pages * PAGE_WORDS) * 8)

    def copy(self, pages: int) -> list[tuple[slice, bytes]]:
        return [(part, bytes(self.segment.data[part])) for part in self._parts(pages)]

    def restore(self, copy: list[tuple[slice, bytes]]) -> None:
        for part, content in copy:
            self.segment.data[part] = content

    def watched(self, before: list[tuple[slice, bytes]]) -> Callable[[], object]:
        """What tells whether a byte has changed where one is another than before."""
        stripes = (place.stripe for place in (self.place, self.passing))
        starts = {(STRIPES + stripe * STRIPE_WORDS) * 8 & -_CHUNK for stripe in stripes}
        starts |= {ALLOCATOR * 8, PROCESSES * 8, (PROCESSES + PROCESS_WORDS) * 8}
        for part, content in before:
            now = self.segment.data[part]
            for at in range(0, len(now), _CHUNK):
                if now[at : at + _CHUNK] != content[at : at + _CHUNK]:
                    starts.add(part.start + at)
        views = [self.segment.data[start : start + _CHUNK] for start in sorted(starts)]
        return lambda: b"".join(views)
