"""What does a block say of itself, and where is its content? Headers of blocks.

A record is addressed by its block, and its words follow the two of the header also in a run.
"""

from __future__ import annotations

from typing import TypeAlias

from . import faults
from .layout import (
    B_KIND,
    KIND_SHIFT,
    PAGE_WORDS,
    PAGES,
    RUN_HEADER,
    SMALL_HEADER,
    SMALL_MOST,
    WORD,
)
from .redo import Transaction
from .segment import Segment

__all__ = [
    "Words",
    "content",
    "header",
    "header_words",
    "kind_of",
    "length_of",
    "payload_of",
    "record_of",
    "words_for",
]

_LENGTH_MASK = (1 << KIND_SHIFT) - 1

#: Shared memory, or a transaction over it.
Words: TypeAlias = "Transaction | memoryview[int]"


def words_for(length: int) -> int:
    """How many words ``length`` bytes take."""
    return -(-length // WORD)


def header(kind: int, length: int) -> int:
    """A block's second word."""
    return kind << KIND_SHIFT | length


def kind_of(words: Words, block: int) -> int:
    return words[block + B_KIND] >> KIND_SHIFT


def length_of(words: Words, block: int) -> int:
    """Bytes of its payload."""
    return words[block + B_KIND] & _LENGTH_MASK


def header_words(length: int) -> int:
    """Words before the payload of that length."""
    return RUN_HEADER if length > SMALL_MOST else SMALL_HEADER


def payload_of(words: Words, block: int) -> int:
    """The word where the payload begins."""
    return block + header_words(length_of(words, block))


def content(segment: Segment, block: int) -> bytes:
    """A private copy of the payload."""
    length = length_of(segment.words, block)
    return _copy(segment, block + header_words(length), length)


def record_of(segment: Segment, block: int) -> bytes:
    """A private copy of a record, header included."""
    return _copy(segment, block, SMALL_HEADER * WORD + length_of(segment.words, block))


def _copy(segment: Segment, start: int, length: int) -> bytes:
    words = segment.words
    end = segment.heap + words[PAGES] * PAGE_WORDS
    if not segment.heap <= start <= start + words_for(length) <= min(end, len(words)):
        raise faults.damaged(f"{length} bytes at word {start} lie outside of the pages")
    return segment.read(start, length)
