"""Where is the record of this name? Open addressing over one block of words.

A table belongs to three words of its owner: the block (0 while there is none), the slots
that are not empty, and the live entries. A slot holds 0 (empty), 1 (removed), or the upper
16 bits of the hash over the record's word index. A table that grows is built anew and
takes the old one's place with one word.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from . import faults
from .blocks import Words, header_words, length_of, payload_of
from .layout import (
    HASH,
    INDEX_SHIFT,
    LEAST_CAPACITY,
    PAGE_WORDS,
    PAGES,
    T_BLOCK,
    T_LIVE,
    T_USED,
    TAG_SHIFT,
    WORD,
)
from .redo import Transaction

__all__ = ["entries", "find", "insert", "rebuilt", "remove", "replace"]

_REMOVED = 1
_RECORD_MASK = (1 << TAG_SHIFT) - 1


def _shape(words: Words, block: int) -> tuple[int, int]:
    """The first slot, and how many there are."""
    length = length_of(words, block)
    capacity = length // WORD
    if capacity == 0 or capacity & (capacity - 1) or capacity > words[PAGES] * PAGE_WORDS:
        raise faults.damaged(f"block {block} is no table")
    return block + header_words(length), capacity


def _slots(words: Words, block: int) -> list[int]:
    """All slots at once: reading a long table word by word would take a while."""
    first, count = _shape(words, block)
    if not isinstance(words, Transaction):
        return words[first : first + count].tolist()
    slots = words.words[first : first + count].tolist()
    for index, value in words.writes.items():
        if first <= index < first + count:
            slots[index - first] = value
    return slots


def find(words: Words, owner: int, digest: int, is_it: Callable[[int], bool]) -> tuple[int, int]:
    """The slot and the record of a hash for which ``is_it(record)``, or ``(0, 0)``."""
    block = words[owner + T_BLOCK]
    if block == 0:
        return 0, 0
    first, capacity = _shape(words, block)
    mask, tag = capacity - 1, digest >> TAG_SHIFT
    place = digest >> INDEX_SHIFT & mask
    for _ in range(capacity):
        entry = words[first + place]
        if entry == 0:
            break
        if entry >> TAG_SHIFT == tag and entry != _REMOVED:
            record = entry & _RECORD_MASK
            if words[record + HASH] == digest and is_it(record):
                return first + place, record
        place = place + 1 & mask
    return 0, 0


def insert(words: Transaction, owner: int, digest: int, record: int) -> None:
    """Add a record that is not there; the table must have room (see `rebuilt`)."""
    block = words[owner + T_BLOCK]
    first, capacity = _shape(words, block)
    start, mask = digest >> INDEX_SHIFT, capacity - 1
    places = (start + step & mask for step in range(capacity))
    place = next((place for place in places if words[first + place] <= _REMOVED), None)
    if place is None:
        raise faults.damaged(f"table {block} is full")
    if words[first + place] == 0:
        words[owner + T_USED] += 1
    words[owner + T_LIVE] += 1
    words[first + place] = digest >> TAG_SHIFT << TAG_SHIFT | record


def remove(words: Transaction, owner: int, slot: int) -> None:
    """Remove the entry of a slot that `find` gave."""
    words[slot] = _REMOVED
    words[owner + T_LIVE] -= 1


def entries(words: Words, owner: int) -> list[tuple[int, int]]:
    """Slot and record of every live entry, in no order."""
    block = words[owner + T_BLOCK]
    if block == 0:
        return []
    slots = enumerate(_slots(words, block), payload_of(words, block))
    return [(slot, entry & _RECORD_MASK) for slot, entry in slots if entry > _REMOVED]


def rebuilt(words: Words, owner: int) -> bytes | None:
    """The content of a roomier table if one more entry would crowd this one.

    The caller stores it as a block, then calls `replace`.
    """
    block = words[owner + T_BLOCK]
    old = _shape(words, block)[1] if block else 0
    if block and 3 * (words[owner + T_USED] + 1) <= 2 * old:
        return None
    if words[owner + T_LIVE] > old:
        raise faults.damaged(f"table {block} has more records than slots")
    capacity = LEAST_CAPACITY
    while capacity < 2 * (words[owner + T_LIVE] + 1):
        capacity *= 2
    slots = array("Q", bytes(8 * capacity))
    mask = capacity - 1
    for slot, record in entries(words, owner):
        place = words[record + HASH] >> INDEX_SHIFT & mask
        while slots[place]:
            place = place + 1 & mask
        slots[place] = words[slot]
    return slots.tobytes()


def replace(words: Transaction, owner: int, block: int) -> int:
    """Put a block that holds what `rebuilt` gave into place, and return the old block."""
    old = words[owner + T_BLOCK]
    words[owner + T_BLOCK] = block
    words[owner + T_USED] = words[owner + T_LIVE]
    return old
