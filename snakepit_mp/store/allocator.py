"""Which memory is free? Blocks from pages, pages from runs, runs from the growing file.

Small blocks come from pages cut into one size; larger ones are runs of whole pages. Free
runs join their neighbours, so memory of one size serves every other again. All state is in
the segment, under one lock, and changes through one redo log, so it is consistent after a
kill at any instruction.

A block belongs to a chain from its first instant on: it is allocated into the *pending*
chain of the stripe that asked, and freed from that stripe's *garbage* chain, moving over in
the allocator's own commit. So no block is ever known to nobody.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import IntEnum

from ..errors import SessionLimitReached, StoreError, StoreFull
from . import crashpoints
from .locks import LockFile
from .redo import RedoLog, Transaction
from .segment import (
    ALLOCATOR,
    PAGE_BYTES,
    PAGE_WORDS,
    STRIPE_COUNT,
    STRIPES,
    WORD,
    Segment,
)

__all__ = ["BLOCK_HEADER_WORDS", "CLASSES", "Allocator", "Kind", "PageKind"]

#: Sizes of small blocks in words, header included.
CLASSES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 682, 1024)

#: A block begins with a link to the next one of its chain and its kind and length.
BLOCK_HEADER_WORDS = 2
_LENGTH_BITS = 56
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1

# Words of the allocator.
_COMMIT, PAGES, FREE_PAGES, SESSIONS = (ALLOCATOR + i for i in range(4))
PARTIAL = ALLOCATOR + 8  # per class: the first page with a free block, plus one
_BINS = PARTIAL + len(CLASSES)  # per power of two: the first free run, plus one
_BIN_COUNT = 32
_LOG = ALLOCATOR + 128
_LOG_CAPACITY = (STRIPES - _LOG - 1) // 2
#: Writes after which a long release commits what it has.
_LOG_ENOUGH = _LOG_CAPACITY - 64

# Words of a page's descriptor, after its first: kind | size << 8.
_PREVIOUS, _NEXT, _STATE = 1, 2, 3

_GROWTH_LEAST = 64  # pages
_GROWTH_MOST = 4096
_TRIES_IN_BIN = 16

#: The lock byte after those of the stripes.
ALLOCATOR_LOCK = STRIPE_COUNT


class Kind(IntEnum):
    """What a block holds; 0 means that it is free."""

    SESSION = 1
    VARIABLE = 2
    VALUE = 3
    FACTS = 4
    TABLE = 5
    LOG = 6


class PageKind(IntEnum):
    """What a page is; only first and last pages of a run carry a true descriptor."""

    INSIDE = 0  # the last page of a run of blocks
    FREE = 1  # the first page of a free run; size in pages
    TAIL = 2  # the last page of a free run; size in pages
    RUN = 3  # the first page of a block's run; size in pages
    SLAB = 4  # a page of small blocks; size is the class


def _bin_of(count: int) -> int:
    return _BINS + count.bit_length() - 1


class Allocator:
    """Blocks for the stripes of one segment.

    ``max_bytes`` bounds the memory of all blocks, ``max_sessions`` the blocks of that kind.
    """

    def __init__(
        self, segment: Segment, locks: LockFile, max_bytes: int, max_sessions: int
    ) -> None:
        self._segment = segment
        self._locks = locks
        self._max_bytes = max_bytes
        self._max_pages = min(segment.max_pages, max(max_bytes // PAGE_BYTES, 1))
        self._max_sessions = max_sessions
        self._log = RedoLog(segment, "allocator", _COMMIT, _LOG, _LOG_CAPACITY)

    def allocate(self, chain: int, kind: Kind, length: int) -> int:
        """Put a new block at the head of a chain, and return its word index.

        ``chain`` is the word that holds the chain's head; ``length`` is in bytes, without
        the block's header. Raises `StoreFull`, or `SessionLimitReached` for a session.
        """
        with self._locks.exclusive(ALLOCATOR_LOCK):
            self._log.replay()
            crashpoints.step("allocator.entered")
            tx = Transaction(self._segment.words)
            if kind is Kind.SESSION:
                self._count_session(tx)
            block = self._take(tx, BLOCK_HEADER_WORDS + -(-length // WORD))
            tx[block] = tx[chain]
            tx[block + 1] = kind << _LENGTH_BITS | length
            tx[chain] = block
            self._log.run(tx.writes)
        return block

    def release(self, chain: int) -> None:
        """Free all blocks of a chain."""
        with self._locks.exclusive(ALLOCATOR_LOCK):
            self._log.replay()
            crashpoints.step("allocator.entered")
            tx = Transaction(self._segment.words)
            while block := tx[chain]:
                tx[chain] = tx[block]
                self._give(tx, block)
                if len(tx.writes) > _LOG_ENOUGH:
                    self._log.run(tx.writes)
                    tx = Transaction(self._segment.words)
            if tx.writes:
                self._log.run(tx.writes)

    def recover(self) -> None:
        """Finish what a dead process had committed, if anything."""
        if self._log.pending:
            with self._locks.exclusive(ALLOCATOR_LOCK):
                self._log.replay()

    def kind_of(self, block: int) -> int:
        return self._segment.words[block + 1] >> _LENGTH_BITS

    def length_of(self, block: int) -> int:
        """Bytes that were asked for."""
        return self._segment.words[block + 1] & _LENGTH_MASK

    def _count_session(self, tx: Transaction) -> None:
        if tx[SESSIONS] >= self._max_sessions:
            raise SessionLimitReached(
                f"the store holds {tx[SESSIONS]} sessions, and max_sessions is "
                f"{self._max_sessions}",
                limit=self._max_sessions,
            )
        tx[SESSIONS] += 1

    # Blocks.

    def _take(self, tx: Transaction, size: int) -> int:
        """A block of at least ``size`` words."""
        if size > CLASSES[-1]:
            page = self._take_pages(tx, -(-size // PAGE_WORDS))
            return self._segment.heap + page * PAGE_WORDS
        number = bisect_left(CLASSES, size)
        page = tx[PARTIAL + number] - 1
        if page < 0:
            page = self._new_slab(tx, number)
        state_word = self._segment.descriptor_of(page) + _STATE
        state = tx[state_word]
        head, fresh, free = state & 0xFFFF, state >> 16 & 0xFFFF, state >> 32
        slot = head - 1 if head else fresh
        block = self._segment.heap + page * PAGE_WORDS + slot * CLASSES[number]
        if head:
            head = tx[block]
        else:
            fresh += 1
        tx[state_word] = head | fresh << 16 | free - 1 << 32
        if free == 1:
            self._unlink(tx, PARTIAL + number, page)
        return block

    def _new_slab(self, tx: Transaction, number: int) -> int:
        page = self._take_pages(tx, 1)
        descriptor = self._segment.descriptor_of(page)
        tx[descriptor] = PageKind.SLAB | number << 8
        tx[descriptor + _STATE] = PAGE_WORDS // CLASSES[number] << 32
        self._link(tx, PARTIAL + number, page)
        return page

    def _give(self, tx: Transaction, block: int) -> None:
        """Free one block, and its page when that was the last of it."""
        kind = tx[block + 1] >> _LENGTH_BITS
        page, offset = divmod(block - self._segment.heap, PAGE_WORDS)
        if kind == 0 or not 0 <= page < tx[PAGES]:
            raise StoreError(f"the session store is damaged: block {block} is not in use")
        if kind == Kind.SESSION:
            tx[SESSIONS] -= 1
        tx[block + 1] = 0
        descriptor = self._segment.descriptor_of(page)
        size = tx[descriptor] >> 8
        if tx[descriptor] & 0xFF == PageKind.RUN:
            self._give_pages(tx, page, size)
            return
        state = tx[descriptor + _STATE]
        head, fresh, free = state & 0xFFFF, state >> 16 & 0xFFFF, (state >> 32) + 1
        if free == PAGE_WORDS // CLASSES[size]:
            self._unlink(tx, PARTIAL + size, page)
            self._give_pages(tx, page, 1)
            return
        tx[block] = head
        tx[descriptor + _STATE] = offset // CLASSES[size] + 1 | fresh << 16 | free << 32
        if free == 1:
            self._link(tx, PARTIAL + size, page)

    # Runs of pages.

    def _take_pages(self, tx: Transaction, count: int) -> int:
        page = self._fit(tx, count, _TRIES_IN_BIN)
        if page is None and self._grow(tx, count):
            page = self._fit(tx, count, None)
        if page is None:
            page = self._fit(tx, count, None)
        if page is None:
            raise StoreFull(
                f"no room for {count * PAGE_BYTES} bytes: max_bytes is {self._max_bytes}, and "
                f"{tx[FREE_PAGES] * PAGE_BYTES} bytes are free, none of the pieces large enough"
            )
        return self._carve(tx, page, count)

    def _fit(self, tx: Transaction, count: int, tries: int | None) -> int | None:
        """A free run of at least ``count`` pages, looking at ``tries`` of its own bin."""
        first = _bin_of(count)
        page = tx[first] - 1
        while page >= 0 and tries != 0:
            descriptor = self._segment.descriptor_of(page)
            if tx[descriptor] >> 8 >= count:
                return page
            page = tx[descriptor + _NEXT] - 1
            tries = None if tries is None else tries - 1
        larger = (tx[word] for word in range(first + 1, _BINS + _BIN_COUNT))
        return next((head - 1 for head in larger if head), None)

    def _carve(self, tx: Transaction, page: int, count: int) -> int:
        """Cut ``count`` pages from the front of a free run."""
        descriptor = self._segment.descriptor_of(page)
        size = tx[descriptor] >> 8
        self._unlink(tx, _bin_of(size), page)
        tx[FREE_PAGES] -= count
        if size > count:
            self._put_run(tx, page + count, size - count)
        tx[self._segment.descriptor_of(page + count - 1)] = PageKind.INSIDE
        tx[descriptor] = PageKind.RUN | count << 8
        return page

    def _give_pages(self, tx: Transaction, page: int, count: int) -> None:
        """Make pages free, joined with the free runs before and after them."""
        tx[FREE_PAGES] += count
        after = page + count
        if after < tx[PAGES]:
            size = tx[self._segment.descriptor_of(after)]
            if size & 0xFF == PageKind.FREE:
                self._unlink(tx, _bin_of(size >> 8), after)
                count += size >> 8
        if page > 0:
            size = tx[self._segment.descriptor_of(page - 1)]
            if size & 0xFF in (PageKind.FREE, PageKind.TAIL):
                page -= size >> 8
                count += size >> 8
                self._unlink(tx, _bin_of(size >> 8), page)
        self._put_run(tx, page, count)

    def _put_run(self, tx: Transaction, page: int, count: int) -> None:
        tx[self._segment.descriptor_of(page + count - 1)] = PageKind.TAIL | count << 8
        tx[self._segment.descriptor_of(page)] = PageKind.FREE | count << 8
        self._link(tx, _bin_of(count), page)

    def _grow(self, tx: Transaction, count: int) -> bool:
        """Commit more of the file, so that ``count`` pages lie together at its end."""
        pages = tx[PAGES]
        last = tx[self._segment.descriptor_of(pages - 1)] if pages else 0
        need = count - (last >> 8 if last & 0xFF in (PageKind.FREE, PageKind.TAIL) else 0)
        room = self._max_pages - pages
        if need > room:
            return False
        comfortable = min(max(need, _GROWTH_LEAST, min(pages // 8, _GROWTH_MOST)), room)
        try:
            self._segment.grow(pages, comfortable)
        except StoreFull:
            comfortable = need
            self._segment.grow(pages, comfortable)
        tx[PAGES] = pages + comfortable
        self._give_pages(tx, pages, comfortable)
        return True

    # Doubly linked lists of pages; 0 ends them, so links are page numbers plus one.

    def _link(self, tx: Transaction, head: int, page: int) -> None:
        descriptor = self._segment.descriptor_of(page)
        first = tx[head]
        tx[descriptor + _PREVIOUS] = 0
        tx[descriptor + _NEXT] = first
        if first:
            tx[self._segment.descriptor_of(first - 1) + _PREVIOUS] = page + 1
        tx[head] = page + 1

    def _unlink(self, tx: Transaction, head: int, page: int) -> None:
        descriptor = self._segment.descriptor_of(page)
        before, after = tx[descriptor + _PREVIOUS], tx[descriptor + _NEXT]
        if before:
            tx[self._segment.descriptor_of(before - 1) + _NEXT] = after
        else:
            tx[head] = after
        if after:
            tx[self._segment.descriptor_of(after - 1) + _PREVIOUS] = before
