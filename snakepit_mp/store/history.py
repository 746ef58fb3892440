"""Which values did a variable have before? A ring of old values for those that asked for it.

The ring is a block of its variable: capacity, values ever put in, then entries of version,
time, block and length. A write moves the old value there, in the same transaction.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from . import faults
from .blocks import Words, content, length_of, payload_of
from .layout import (
    H_CAPACITY,
    H_COUNT,
    H_ENTRIES,
    HISTORY_ENTRY,
    HISTORY_MOST,
    INLINE_WORDS,
    R_HISTORY,
    R_INLINE,
    R_UPDATED,
    R_VALUE,
    R_VALUE_LENGTH,
    R_VERSION,
    WORD,
    Kind,
)
from .segment import Segment

if TYPE_CHECKING:
    from .stripe import Operation

__all__ = ["OldValue", "block_words", "capacity_of", "keep", "kept", "new_ring"]

#: Words of an entry.
_VERSION, _UPDATED, _BLOCK, _LENGTH = range(HISTORY_ENTRY)


class OldValue(NamedTuple):
    """A value that a variable has or had. The time is in seconds since the epoch."""

    version: int
    value: Any
    updated_at: float


def new_ring(capacity: int) -> bytes:
    """The content of an empty ring."""
    return struct.pack("=QQ", capacity, 0) + bytes(HISTORY_ENTRY * capacity * WORD)


def keep(operation: Operation, record: int) -> None:
    """Move a variable's value into its ring; the caller writes a new one."""
    ring, capacity = _ring(operation, record)
    count = operation[ring + H_COUNT]
    entry = ring + H_ENTRIES + HISTORY_ENTRY * (count % capacity)
    operation.discard(operation[entry + _BLOCK])
    length = operation[record + R_VALUE_LENGTH]
    block = operation[record + R_VALUE]
    if block == 0:
        words = [operation[record + R_INLINE + index] for index in range(INLINE_WORDS)]
        block = operation.store(Kind.VALUE, struct.pack(f"={INLINE_WORDS}Q", *words)[:length])
    operation[entry + _VERSION] = operation[record + R_VERSION]
    operation[entry + _UPDATED] = operation[record + R_UPDATED]
    operation[entry + _BLOCK] = block
    operation[entry + _LENGTH] = length
    operation[ring + H_COUNT] = count + 1


def kept(segment: Segment, record: int) -> list[tuple[int, int, bytes]]:
    """Version, time and encoded value of every old value, newest first."""
    words = segment.words
    if words[record + R_HISTORY] == 0:
        return []
    ring, capacity = _ring(words, record)
    count = words[ring + H_COUNT]
    found = []
    for number in range(count, max(count - capacity, 0), -1):
        entry = ring + H_ENTRIES + HISTORY_ENTRY * ((number - 1) % capacity)
        version, updated, block, _ = words[entry : entry + HISTORY_ENTRY]
        found.append((version, updated, content(segment, block)))
    return found


def capacity_of(words: Words, record: int) -> int:
    """How many old values a variable keeps."""
    return _ring(words, record)[1] if words[record + R_HISTORY] else 0


def block_words(words: memoryview[int], record: int) -> list[int]:
    """The words of a variable's ring that name blocks; of a deleted one some do no more."""
    if words[record + R_HISTORY] == 0:
        return []
    ring, capacity = _ring(words, record)
    first = ring + H_ENTRIES + _BLOCK
    end = first + HISTORY_ENTRY * min(words[ring + H_COUNT], capacity)
    # All at once: a long ring is looked through with every few blocks that are freed.
    blocks = words[first:end:HISTORY_ENTRY].tolist()
    places = range(first, end, HISTORY_ENTRY)
    return [word for word, block in zip(places, blocks, strict=True) if block]


def _ring(words: Words, record: int) -> tuple[int, int]:
    block = words[record + R_HISTORY]
    ring = payload_of(words, block)
    capacity = words[ring + H_CAPACITY]
    room = length_of(words, block) // WORD - H_ENTRIES
    if not 0 < capacity <= HISTORY_MOST or HISTORY_ENTRY * capacity > room:
        raise faults.damaged(f"block {block} is no ring of old values")
    return ring, capacity
