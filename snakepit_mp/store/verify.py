"""Is the segment in order? Every page and every block accounted for, every table consistent.

It reads what `hold` has repaired and keeps still. Whatever stands in the segment, it ends,
and says what is wrong instead of raising: nothing is followed before it was compared with
what the pages say, and no chain further than there are blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .blocks import kind_of, length_of, payload_of, words_for
from .layout import (
    ALLOCATOR_COMMIT,
    B_LINK,
    H_CAPACITY,
    H_COUNT,
    H_ENTRIES,
    HASH,
    HIDDEN,
    HISTORY_ENTRY,
    HISTORY_MOST,
    INDEX_SHIFT,
    INLINE_BYTES,
    LEAST_CAPACITY,
    R_FACTS,
    R_HISTORY,
    R_LENGTHS,
    R_NAME,
    R_NUMBER,
    R_VALUE,
    R_VALUE_LENGTH,
    R_VERSION,
    S_COMMIT,
    S_GARBAGE,
    S_GRAVES,
    S_INDEX,
    S_LIMBO,
    S_NUMBERS,
    S_PENDING,
    SMALL_HEADER,
    STRIPE_COUNT,
    T_BLOCK,
    T_LIVE,
    T_USED,
    TAG_SHIFT,
    V_LENGTHS,
    V_NAME,
    V_NUMBER,
    V_PROGRAMS,
    V_TTL,
    V_VARIABLES,
    WORD,
    Kind,
)
from .places import digest_of
from .segment import Segment
from .verify_pages import CheckOfPages, Findings

__all__ = ["problems"]

_LOW = (1 << 32) - 1
_RECORD_MASK = (1 << TAG_SHIFT) - 1


def problems(segment: Segment) -> list[str]:
    """What is wrong, a sentence each; empty where all is well. The caller holds all locks."""
    found = Findings()
    pages = CheckOfPages(segment, found)
    if pages.run():
        _CheckOfContents(segment, found, pages).run()
    return found.sentences


class _CheckOfContents:
    """Tables lead to records, records to blocks, and every block has exactly one owner."""

    def __init__(self, segment: Segment, found: Findings, pages: CheckOfPages) -> None:
        self._segment = segment
        self._words = segment.words
        self._seed = segment.seed
        self._found = found
        self._pages = pages
        self._owners: Counter[int] = Counter()

    def run(self) -> None:
        self._found.expect(self._words[ALLOCATOR_COMMIT] & 1 == 0, "the allocator's log is open")
        for stripe in range(STRIPE_COUNT):
            self._stripe(stripe)
        self._ownership()

    # Stripes.

    def _stripe(self, stripe: int) -> None:
        base, who = self._segment.base_of(stripe), f"stripe {stripe}"
        self._found.expect(self._words[base + S_COMMIT] & 1 == 0, f"{who}: its log is open")
        for name, chain in (("pending", S_PENDING), ("garbage", S_GARBAGE)):
            self._found.expect(self._words[base + chain] == 0, f"{who}: {name} runs are left")
        for run in self._chain(base + S_LIMBO, who):
            is_run = run in self._pages.runs
            self._found.expect(is_run, f"{who}: block {run} is in limbo, and is no run")
            self._reach(run, None, stripe)
        for grave in self._chain(base + S_GRAVES, who):
            self._grave(grave, stripe)
        numbers: set[int] = set()
        for session in self._table(base + S_INDEX, stripe, Kind.SESSION, dead=False):
            self._session(session, stripe, dead=False)
            self._session_itself(session, stripe)
            self._number(session + V_NUMBER, base, numbers)
            for variable in self._records_of(session):
                self._number(variable + R_NUMBER, base, numbers)

    def _grave(self, grave: int, stripe: int) -> None:
        """A deleted session, or a variable whose old values are freed bit by bit."""
        if self._pages.blocks.get(grave) != Kind.VARIABLE:
            if self._reach(grave, Kind.SESSION, stripe):
                self._session(grave, stripe, dead=True)
        elif self._reach(grave, Kind.VARIABLE, stripe) and self._record(grave, Kind.VARIABLE):
            self._variable(grave, stripe, dead=True)
            has_ring = self._words[grave + R_HISTORY] != 0
            self._found.expect(has_ring, f"variable {grave} was to be freed at once")

    def _chain(self, head: int, who: str) -> Iterator[int]:
        seen: set[int] = set()
        block = self._words[head]
        while block:
            if block not in self._pages.blocks or block in seen:
                self._found.add(f"{who}: the chain at word {head} leads astray")
                return
            seen.add(block)
            yield block
            block = self._words[block + B_LINK]

    def _number(self, word: int, base: int, numbers: set[int]) -> None:
        number = self._words[word]
        fits = 0 < number <= self._words[base + S_NUMBERS] and number not in numbers
        self._found.expect(fits, f"the number {number} at word {word} is not its own")
        numbers.add(number)

    # Sessions and variables.

    def _session_itself(self, session: int, stripe: int) -> None:
        hidden = self._name(session, V_LENGTHS, V_NAME).startswith(HIDDEN)
        mortal = self._words[session + V_TTL] != 0
        self._found.expect(not (hidden and mortal), f"the hidden session {session} has a TTL")
        home = self._words[session + HASH] % STRIPE_COUNT
        self._found.expect(home == stripe, f"session {session} is in a wrong stripe")

    def _session(self, session: int, stripe: int, *, dead: bool) -> None:
        programs = 0
        owner = session + V_VARIABLES
        for variable in self._table(owner, stripe, Kind.VARIABLE, dead=dead):
            programs += self._name(variable, R_LENGTHS, R_NAME).startswith(HIDDEN)
            self._variable(variable, stripe, dead)
        if not dead:
            counted = self._words[session + V_PROGRAMS]
            self._found.expect(counted == programs, f"session {session} miscounts its programs")

    def _variable(self, variable: int, stripe: int, dead: bool) -> None:
        words = self._words
        self._value(words[variable + R_VALUE], words[variable + R_VALUE_LENGTH], variable, stripe)
        if facts := words[variable + R_FACTS]:
            self._reach(facts, Kind.FACTS, stripe)
        self._found.expect(words[variable + R_VERSION] > 0, f"variable {variable} has no version")
        ring = words[variable + R_HISTORY]
        if ring and self._reach(ring, Kind.HISTORY, stripe):
            self._ring(ring, words[variable + R_VERSION], stripe, dead)

    def _value(self, block: int, length: int, whose: int, stripe: int) -> None:
        if block == 0:
            self._found.expect(length <= INLINE_BYTES, f"the value in {whose} is too long")
        elif self._reach(block, Kind.VALUE, stripe):
            fits = length_of(self._words, block) == length
            self._found.expect(fits, f"value {block} has not the length that {whose} says")

    def _ring(self, block: int, version: int, stripe: int, dead: bool) -> None:
        words, ring = self._words, payload_of(self._words, block)
        capacity, count = words[ring + H_CAPACITY], words[ring + H_COUNT]
        length = (H_ENTRIES + HISTORY_ENTRY * capacity) * WORD
        if not 0 < capacity <= HISTORY_MOST or length_of(words, block) != length:
            self._found.add(f"history {block} has not the size that it says")
            return
        last = version
        for number in range(count, max(count - capacity, 0), -1):
            entry = ring + H_ENTRIES + HISTORY_ENTRY * ((number - 1) % capacity)
            self._found.expect(words[entry] < last, f"history {block} is not in order")
            last = words[entry]
            value = words[entry + 2]
            if value or not dead:  # the dead are emptied bit by bit
                self._value(value, words[entry + 3], block, stripe)
                self._found.expect(value != 0, f"history {block} lacks a value")

    # Tables.

    def _table(self, owner: int, stripe: int, kind: Kind, *, dead: bool) -> list[int]:
        """The records of a table, all of which are what they should be."""
        block = self._words[owner + T_BLOCK]
        slots: list[int] = []
        if block and self._reach(block, Kind.TABLE, stripe):
            slots = self._slots(block)
        entries = [(place, entry) for place, entry in enumerate(slots) if entry > 1]
        live = self._words[owner + T_LIVE]
        self._found.expect(live == len(entries), f"table {block} has {len(entries)} records")
        if not dead:  # there that word says how far the table is emptied
            used = len(slots) - slots.count(0)
            right = self._words[owner + T_USED] == used
            self._found.expect(right, f"table {block} miscounts its slots")
        records = []
        names: set[bytes] = set()
        for place, entry in entries:
            record = entry & _RECORD_MASK
            if self._reach(record, kind, stripe) and self._record(record, kind):
                records.append(record)
                self._entry(slots, place, entry, dead)
                names.add(self._name_of(record, kind))
        self._found.expect(len(names) == len(records), f"table {block} has a name twice")
        return records

    def _slots(self, block: int) -> list[int]:
        capacity = length_of(self._words, block) // WORD
        if capacity < LEAST_CAPACITY or capacity & (capacity - 1):
            self._found.add(f"table {block} has no size of one")
            return []
        first = payload_of(self._words, block)
        slots = self._words[first : first + capacity].tolist()
        self._found.expect(0 in slots, f"table {block} has no empty slot")
        return slots

    def _entry(self, slots: list[int], place: int, entry: int, dead: bool) -> None:
        """Whether a record is found where its hash says."""
        record = entry & _RECORD_MASK
        digest = self._words[record + HASH]
        mask = len(slots) - 1
        at = digest >> INDEX_SHIFT & mask
        for _ in slots:
            if at == place or slots[at] == 0:
                break
            at = at + 1 & mask
        found = at == place and entry >> TAG_SHIFT == digest >> TAG_SHIFT
        self._found.expect(found or dead, f"record {record} is not found by its hash")

    def _record(self, record: int, kind: Kind) -> bool:
        """Whether it is as long as its names say, and has their hash."""
        lengths_at, names_at = _NAMES[kind]
        lengths = self._words[record + lengths_at]
        fixed = names_at - SMALL_HEADER + words_for(lengths & _LOW)
        if length_of(self._words, record) != fixed * WORD + (lengths >> 32):
            self._found.add(f"record {record} is not as long as it says")
            return False
        true = digest_of(self._seed, self._name(record, lengths_at, names_at))
        self._found.expect(self._words[record + HASH] == true, f"record {record} has a wrong hash")
        return True

    def _name_of(self, record: int, kind: Kind) -> bytes:
        return self._name(record, *_NAMES[kind])

    def _name(self, record: int, lengths: int, names: int) -> bytes:
        """Only of a record that `_record` has seen."""
        return self._segment.read(record + names, self._words[record + lengths] & _LOW)

    def _records_of(self, session: int) -> list[int]:
        """The variables of a session that were looked at before."""
        block = self._words[session + V_VARIABLES + T_BLOCK]
        if self._pages.blocks.get(block) != Kind.TABLE:
            return []
        first, capacity = payload_of(self._words, block), length_of(self._words, block) // WORD
        entries = self._words[first : first + capacity].tolist()
        records = (entry & _RECORD_MASK for entry in entries if entry > 1)
        return [record for record in records if self._pages.blocks.get(record) == Kind.VARIABLE]

    # Owners.

    def _reach(self, block: int, kind: Kind | None, stripe: int) -> bool:
        """Note an owner of a block; whether it is one of that kind, seen for the first time."""
        self._owners[block] += 1
        if block not in self._pages.blocks:
            self._found.add(f"block {block} is used, and free or none")
            return False
        if kind is not None and kind_of(self._words, block) != kind:
            self._found.add(f"block {block} is no {kind.name}")
            return False
        home = self._pages.slabs.get(self._pages.page_of(block))
        if home is not None:
            right = home.belongs_to(stripe)
            self._found.expect(right, f"block {block} lies in a page of another stripe")
        return self._owners[block] == 1

    def _ownership(self) -> None:
        filled = self._pages.filled
        for block, kind in self._pages.blocks.items():
            if block not in self._owners and block not in filled:
                self._found.add(f"block {block} (kind {kind}) is lost")
        for block, count in self._owners.items():
            self._found.expect(count == 1, f"block {block} has {count} owners")
            self._found.expect(block not in filled, f"block {block} is used, and still filled")


#: Where the words of a record's names are.
_NAMES = {Kind.SESSION: (V_LENGTHS, V_NAME), Kind.VARIABLE: (R_LENGTHS, R_NAME)}
