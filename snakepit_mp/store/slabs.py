"""Where does a stripe keep its small blocks? Pages of its own, cut into one size each.

Everything here happens in the stripe's own transaction: which slots are free, which pages
have one, and what a block's header says. A page that is new comes from the page allocator,
in the stripe's pending chain; one that is empty again is handed back as a run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from . import faults
from .blocks import header, kind_of, words_for
from .layout import (
    B_KIND,
    B_LINK,
    CLASSES,
    D_KIND,
    D_OWNER,
    D_STATE,
    PAGE_BYTES,
    PAGE_WORDS,
    PAGES,
    RUN_HEADER,
    S_PARTIAL,
    SMALL_HEADER,
    WORD,
    Kind,
    PageKind,
)
from .pages import link, unlink
from .redo import Transaction
from .segment import Segment

__all__ = ["PAGE_PAYLOAD", "give", "take"]

#: Length of a run of one page.
PAGE_PAYLOAD = PAGE_BYTES - RUN_HEADER * WORD


def _state(head: int, fresh: int, free: int) -> int:
    """First free slot + 1, slots that were ever used, slots that are free."""
    return head | fresh << 16 | free << 32


def take(
    tx: Transaction,
    segment: Segment,
    base: int,
    kind: Kind,
    length: int,
    new_page: Callable[[], int],
) -> int:
    """A block for ``length`` bytes, at most `SMALL_MOST`; ``base`` is the stripe's."""
    number = bisect_left(CLASSES, SMALL_HEADER + words_for(length))
    partial = base + S_PARTIAL + number
    if tx[partial] == 0:
        page = new_page()
        descriptor = segment.descriptor_of(page)
        tx[descriptor + D_KIND] = PageKind.SLAB | number << 8
        tx[descriptor + D_STATE] = _state(0, 0, PAGE_WORDS // CLASSES[number])
        link(tx, segment, partial, page)
    page = tx[partial] - 1
    state_word = segment.descriptor_of(page) + D_STATE
    state = tx[state_word]
    head, fresh, free = state & 0xFFFF, state >> 16 & 0xFFFF, state >> 32
    slot = head - 1 if head else fresh
    if free == 0 or slot >= PAGE_WORDS // CLASSES[number] or not page < tx[PAGES]:
        raise faults.damaged(f"page {page} has no free block")
    block = segment.heap + page * PAGE_WORDS + slot * CLASSES[number]
    if head:
        head = tx[block + B_LINK]
    else:
        fresh += 1
    tx[state_word] = _state(head, fresh, free - 1)
    if free == 1:
        unlink(tx, segment, partial, page)
    tx[block + B_LINK] = 0
    tx[block + B_KIND] = header(kind, length)
    return block


def give(tx: Transaction, segment: Segment, base: int, block: int) -> int:
    """Free a block; the run that its page has become where that is empty now, else 0."""
    page, offset = divmod(block - segment.heap, PAGE_WORDS)
    descriptor = segment.descriptor_of(page)
    entry = tx[descriptor + D_KIND] if 0 <= page < tx[PAGES] else 0
    number = entry >> 8
    if entry & 0xFF != PageKind.SLAB or number >= len(CLASSES):
        raise faults.damaged(f"block {block} lies in no page of blocks")
    slot, rest = divmod(offset, CLASSES[number])
    state = tx[descriptor + D_STATE]
    head, fresh, free = state & 0xFFFF, state >> 16 & 0xFFFF, (state >> 32) + 1
    if rest or slot >= fresh or kind_of(tx, block) == 0:
        raise faults.damaged(f"block {block} is not in use")
    partial = base + S_PARTIAL + number
    tx[block + B_KIND] = 0
    if free == PAGE_WORDS // CLASSES[number]:
        unlink(tx, segment, partial, page)
        tx[descriptor + D_KIND] = PageKind.RUN | 1 << 8
        tx[descriptor + D_OWNER] = 0
        run = segment.heap + page * PAGE_WORDS
        tx[run + B_KIND] = header(Kind.PAGE, PAGE_PAYLOAD)
        return run
    tx[block + B_LINK] = head
    tx[descriptor + D_STATE] = _state(slot + 1, fresh, free)
    if free == 1:
        link(tx, segment, partial, page)
    return 0
