"""Where is the record of this name? Open addressing over one block of words.

A table belongs to three words of its owner: the block (0 while there is none), the slots
that are not empty, and the live entries. A slot holds 0 (empty), 1 (removed), or the upper
16 bits of the hash over the record's word index. A table that grows is built anew and
takes the old one's place with one word.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TypeAlias

from .redo import Transaction

__all__ = [
    "BLOCK",
    "HASH",
    "LIVE",
    "USED",
    "Words",
    "entries",
    "find",
    "insert",
    "rebuilt",
    "remove",
    "replace",
]

#: The word of every record that holds its hash.
HASH = 2

# The owner's words.
BLOCK, USED, LIVE = 0, 1, 2

_SLOTS = 2  # a block's header comes first
_REMOVED = 1
_TAG_SHIFT = 48
_RECORD_MASK = (1 << _TAG_SHIFT) - 1
_LEAST_CAPACITY = 8
# The lowest bits of a session's hash choose its stripe, so they say nothing in its table.
_INDEX_SHIFT = 8


#: Shared memory, or a transaction over it.
Words: TypeAlias = "Transaction | memoryview[int]"


def _capacity(words: Words, block: int) -> int:
    return (words[block + 1] & 0xFFFFFFFFFFFF) // 8


def _slots(words: Words, block: int) -> list[int]:
    """All slots at once: reading a long table word by word would take a while."""
    first, count = block + _SLOTS, _capacity(words, block)
    if not isinstance(words, Transaction):
        return words[first : first + count].tolist()
    slots = words.words[first : first + count].tolist()
    for index, value in words.writes.items():
        if first <= index < first + count:
            slots[index - first] = value
    return slots


def find(words: Words, owner: int, digest: int, is_it: Callable[[int], bool]) -> tuple[int, int]:
    """The slot and the record of a hash for which ``is_it(record)``, or ``(0, 0)``."""
    block = words[owner + BLOCK]
    if block == 0:
        return 0, 0
    capacity = _capacity(words, block)
    first, mask, tag = block + _SLOTS, capacity - 1, digest >> _TAG_SHIFT
    place = digest >> _INDEX_SHIFT & mask
    for _ in range(capacity):
        entry = words[first + place]
        if entry == 0:
            break
        if entry >> _TAG_SHIFT == tag and entry != _REMOVED:
            record = entry & _RECORD_MASK
            if words[record + HASH] == digest and is_it(record):
                return first + place, record
        place = place + 1 & mask
    return 0, 0


def insert(words: Transaction, owner: int, digest: int, record: int) -> None:
    """Add a record that is not there; the table must have room (see `rebuilt`)."""
    block = words[owner + BLOCK]
    first, mask = block + _SLOTS, _capacity(words, block) - 1
    place = digest >> _INDEX_SHIFT & mask
    while words[first + place] > _REMOVED:
        place = place + 1 & mask
    if words[first + place] == 0:
        words[owner + USED] += 1
    words[owner + LIVE] += 1
    words[first + place] = digest >> _TAG_SHIFT << _TAG_SHIFT | record


def remove(words: Transaction, owner: int, slot: int) -> None:
    """Remove the entry of a slot that `find` gave."""
    words[slot] = _REMOVED
    words[owner + LIVE] -= 1


def entries(words: Words, owner: int) -> list[tuple[int, int]]:
    """Slot and record of every live entry, in no order."""
    block = words[owner + BLOCK]
    if block == 0:
        return []
    slots = enumerate(_slots(words, block), block + _SLOTS)
    return [(slot, entry & _RECORD_MASK) for slot, entry in slots if entry > _REMOVED]


def rebuilt(words: Words, owner: int) -> bytes | None:
    """The content of a roomier table if one more entry would crowd this one.

    The caller stores it as a block, then calls `replace`.
    """
    block = words[owner + BLOCK]
    if block and 3 * (words[owner + USED] + 1) <= 2 * _capacity(words, block):
        return None
    capacity = _LEAST_CAPACITY
    while capacity < 2 * (words[owner + LIVE] + 1):
        capacity *= 2
    slots = array("Q", bytes(8 * capacity))
    mask = capacity - 1
    for slot, record in entries(words, owner):
        place = words[record + HASH] >> _INDEX_SHIFT & mask
        while slots[place]:
            place = place + 1 & mask
        slots[place] = words[slot]
    return slots.tobytes()


def replace(words: Transaction, owner: int, block: int) -> int:
    """Put a block that holds what `rebuilt` gave into place, and return the old block."""
    old = words[owner + BLOCK]
    words[owner + BLOCK] = block
    words[owner + USED] = words[owner + LIVE]
    return old
