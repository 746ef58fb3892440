"""Is the segment in order? Every page and every block accounted for, every table consistent.

Used by the tests. It reads without locks, so nobody else may be writing.
"""

from __future__ import annotations

from collections import Counter

from . import records, table
from .allocator import (
    CLASSES,
    FREE_PAGES,
    PAGES,
    PARTIAL,
    SESSIONS,
    Kind,
    PageKind,
)
from .segment import PAGE_WORDS, STRIPE_COUNT, Segment
from .sessions import digest_of
from .stripe import COMMIT, GARBAGE, GRAVES, INDEX, PENDING

__all__ = ["problems"]

_LENGTH_BITS = 56


def problems(segment: Segment) -> list[str]:
    """What is wrong, a sentence each; empty where all is well.

    Every stripe must have been tidied, so that logs and chains are empty.
    """
    check = _Check(segment)
    check.pages()
    check.stripes()
    check.ownership()
    return check.found


class _Check:
    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.words = segment.words
        self.found: list[str] = []
        #: Blocks in use according to the pages, and according to whoever refers to them.
        self.allocated: dict[int, int] = {}
        self.reached: Counter[int] = Counter()
        self.sessions = 0

    def expect(self, truth: bool, sentence: str) -> None:
        if not truth:
            self.found.append(sentence)

    # Pages tile the committed area; free and used ones add up.

    def pages(self) -> None:
        page, free, slabs = 0, 0, set()
        previous = PageKind.INSIDE
        while page < self.words[PAGES]:
            entry = self.words[self.segment.descriptor_of(page)]
            kind, size = entry & 0xFF, entry >> 8
            if kind == PageKind.SLAB:
                slabs.add(page)
                self._slab(page, size)
                size = 1
            elif kind == PageKind.RUN:
                self._note(self.segment.heap + page * PAGE_WORDS)
            elif kind == PageKind.FREE:
                self.expect(previous != PageKind.FREE, f"free runs before {page} are not joined")
                self._free_run(page, size)
                free += size
            else:
                self.found.append(f"page {page} begins nothing")
                return
            previous = PageKind(kind)
            page += size
        self.expect(page == self.words[PAGES], "runs reach beyond the committed pages")
        self.expect(free == self.words[FREE_PAGES], f"{free} pages free, not as counted")
        self._lists(slabs)

    def _free_run(self, page: int, size: int) -> None:
        tail = self.words[self.segment.descriptor_of(page + size - 1)]
        kind = PageKind.FREE if size == 1 else PageKind.TAIL
        self.expect(tail == kind | size << 8, f"free run {page} has no tail")

    def _slab(self, page: int, number: int) -> None:
        start = self.segment.heap + page * PAGE_WORDS
        state = self.words[self.segment.descriptor_of(page) + 3]
        head, fresh, free = state & 0xFFFF, state >> 16 & 0xFFFF, state >> 32
        slots = PAGE_WORDS // CLASSES[number]
        empty = set(range(fresh, slots))
        while head and head - 1 not in empty and head <= slots:
            empty.add(head - 1)
            head = self.words[start + (head - 1) * CLASSES[number]]
        self.expect(head == 0, f"the free list of page {page} is not one")
        self.expect(len(empty) == free, f"page {page} has {len(empty)} free blocks, not {free}")
        for slot in set(range(slots)) - empty:
            self._note(start + slot * CLASSES[number])

    def _note(self, block: int) -> None:
        self.allocated[block] = self.words[block + 1] >> _LENGTH_BITS

    def _lists(self, slabs: set[int]) -> None:
        """Partial pages are in their class's list, and no others."""
        listed: list[int] = []
        for number in range(len(CLASSES)):
            page = self.words[PARTIAL + number] - 1
            while page >= 0 and len(listed) <= len(slabs):
                entry = self.words[self.segment.descriptor_of(page)]
                wanted = PageKind.SLAB | number << 8
                self.expect(entry == wanted, f"page {page} is in a wrong list")
                listed.append(page)
                page = self.words[self.segment.descriptor_of(page) + 2] - 1
        partial = {p for p in slabs if self.words[self.segment.descriptor_of(p) + 3] >> 32}
        self.expect(sorted(listed) == sorted(partial), "pages are listed wrongly")

    # Tables lead to records, records to blocks.

    def stripes(self) -> None:
        for stripe in range(STRIPE_COUNT):
            base = self.segment.base_of(stripe)
            for at in (COMMIT, PENDING, GARBAGE, GRAVES):
                self.expect(self.words[base + at] == 0, f"stripe {stripe} is not tidied")
            for session in self._table(base + INDEX, f"stripe {stripe}"):
                self._reach(session, Kind.SESSION)
                self._session(session)
                name = records.session_name(self.segment, session)
                self._hash(session, name)
                place = self.words[session + table.HASH] % STRIPE_COUNT
                self.expect(place == stripe, f"session {session} is in a wrong stripe")

    def _session(self, session: int) -> None:
        self.sessions += 1
        for variable in self._table(session + records.VARIABLES, f"session {session}"):
            self._reach(variable, Kind.VARIABLE)
            self._hash(variable, records.variable_name(self.segment, variable))
            self._reach(self.words[variable + records.VALUE], Kind.VALUE)
            self._reach(self.words[variable + records.FACTS], Kind.FACTS)

    def _table(self, owner: int, whose: str) -> list[int]:
        self._reach(self.words[owner + table.BLOCK], Kind.TABLE)
        entries = table.entries(self.words, owner)
        self.expect(len(entries) == self.words[owner + table.LIVE], f"{whose}: a wrong count")
        for slot, record in entries:
            digest = self.words[record + table.HASH]
            found = table.find(self.words, owner, digest, record.__eq__)
            self.expect(found == (slot, record), f"{whose}: record {record} is not found")
        return [record for _, record in entries]

    def _hash(self, record: int, name: bytes) -> None:
        true = digest_of(self.segment.seed, name)
        self.expect(self.words[record + table.HASH] == true, f"record {record}: a wrong hash")

    def _reach(self, block: int, kind: Kind) -> None:
        if block:
            self.reached[block] += 1
            self.expect(self.allocated.get(block) == kind, f"block {block} is no {kind.name}")

    # Every block in use has exactly one owner.

    def ownership(self) -> None:
        for block in self.allocated.keys() - self.reached.keys():
            self.found.append(f"block {block} (kind {self.allocated[block]}) is lost")
        for block, count in self.reached.items():
            self.expect(block in self.allocated, f"block {block} is used, and free")
            self.expect(count == 1, f"block {block} has {count} owners")
        counted = self.words[SESSIONS]
        self.expect(counted == self.sessions, f"{self.sessions} sessions, not {counted}")
