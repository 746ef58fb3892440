"""Which pages are free? Runs of whole pages, in a file that grows.

Free runs join their neighbours, so memory of one size serves every other again. All state
is in the segment, under one lock, and changes through one redo log, so it is consistent
after a kill at any instruction.

A run belongs to a chain from its first instant on: it is allocated into the *pending* chain
of the stripe that asked, and freed from that stripe's *garbage* chain, moving over in the
allocator's own commit. So no run is ever known to nobody.
"""

from __future__ import annotations

from ..errors import StoreFull
from . import crashpoints, faults
from .blocks import Words, header, kind_of, words_for
from .layout import (
    ALLOCATOR_COMMIT,
    ALLOCATOR_LOCK,
    ALLOCATOR_LOG,
    ALLOCATOR_LOG_AT,
    ALLOCATOR_LOG_CAPACITY,
    B_KIND,
    B_LINK,
    BIN_COUNT,
    BINS,
    D_KIND,
    D_NEXT,
    D_OWNER,
    D_PREVIOUS,
    FREE_PAGES,
    PAGE_BYTES,
    PAGE_WORDS,
    PAGES,
    RUN_HEADER,
    Kind,
    PageKind,
)
from .locks import LockFile
from .redo import RedoLog, Transaction
from .segment import Segment

__all__ = ["Pages", "link", "unlink"]

#: Writes after which a long release commits what it has.
_LOG_ENOUGH = ALLOCATOR_LOG_CAPACITY - 64

_GROWTH_LEAST = 64  # pages
_GROWTH_MOST = 4096
_TRIES_IN_BIN = 16


def _bin_of(count: int) -> int:
    return BINS + count.bit_length() - 1


class Pages:
    """Runs for the stripes of one segment. ``max_bytes`` bounds the memory of all of them."""

    def __init__(self, segment: Segment, locks: LockFile, max_bytes: int) -> None:
        self._segment = segment
        self._locks = locks
        self._max_bytes = max_bytes
        self._max_pages = min(segment.max_pages, max(max_bytes // PAGE_BYTES, 1))
        words = ALLOCATOR_COMMIT, ALLOCATOR_LOG_AT
        self._log = RedoLog(segment, "allocator", words, ALLOCATOR_LOG, ALLOCATOR_LOG_CAPACITY)

    def allocate(self, chain: int, kind: Kind, length: int) -> int:
        """Put a new run at the head of a chain, and return its word index.

        ``chain`` is the word that holds the chain's head; ``length`` is that of the payload,
        in bytes. Raises `StoreFull`.
        """
        with self._locks.exclusive(ALLOCATOR_LOCK):
            self._log.replay()
            crashpoints.step("allocator.entered")
            tx = Transaction(self._segment.words)
            page = self._take_pages(tx, -(-(RUN_HEADER + words_for(length)) // PAGE_WORDS))
            block = self._segment.heap + page * PAGE_WORDS
            tx[block + B_LINK] = tx[chain]
            tx[block + B_KIND] = header(kind, length)
            tx[chain] = block
            self._log.run(tx.writes)
        return block

    def release(self, chain: int) -> None:
        """Free all runs of a chain."""
        with self._locks.exclusive(ALLOCATOR_LOCK):
            self._log.replay()
            crashpoints.step("allocator.entered")
            tx = Transaction(self._segment.words)
            while block := tx[chain]:
                tx[chain] = tx[block + B_LINK]
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

    def is_run(self, words: Words, block: int) -> bool:
        """Whether there is a run in use at that word."""
        page, offset = divmod(block - self._segment.heap, PAGE_WORDS)
        if offset or not 0 <= page < words[PAGES] or kind_of(words, block) == 0:
            return False
        entry = words[self._segment.descriptor_of(page)]
        return entry & 0xFF == PageKind.RUN and 0 < entry >> 8 <= words[PAGES] - page

    def _give(self, tx: Transaction, block: int) -> None:
        if not self.is_run(tx, block):
            raise faults.damaged(f"run {block} is not in use")
        page = (block - self._segment.heap) // PAGE_WORDS
        tx[block + B_KIND] = 0
        self._give_pages(tx, page, tx[self._segment.descriptor_of(page)] >> 8)

    def _take_pages(self, tx: Transaction, count: int) -> int:
        page = self._fit(tx, count, _TRIES_IN_BIN)
        if page is None and self._grow(tx, count):
            page = self._fit(tx, count, None)
        if page is None:
            page = self._fit(tx, count, None)
        if page is None:
            raise faults.store_full(
                count * PAGE_BYTES, self._max_bytes, tx[FREE_PAGES] * PAGE_BYTES
            )
        return self._carve(tx, page, count)

    def _fit(self, tx: Transaction, count: int, tries: int | None) -> int | None:
        """A free run of at least ``count`` pages, looking at ``tries`` of its own bin."""
        first = _bin_of(count)
        page = tx[first] - 1
        left = tx[PAGES] if tries is None else tries
        while page >= 0 and left > 0:
            descriptor = self._segment.descriptor_of(page)
            if tx[descriptor + D_KIND] >> 8 >= count:
                return page
            page = tx[descriptor + D_NEXT] - 1
            left -= 1
        larger = (tx[word] for word in range(first + 1, BINS + BIN_COUNT))
        return next((head - 1 for head in larger if head), None)

    def _carve(self, tx: Transaction, page: int, count: int) -> int:
        """Cut ``count`` pages from the front of a free run."""
        descriptor = self._segment.descriptor_of(page)
        size = tx[descriptor + D_KIND] >> 8
        unlink(tx, self._segment, _bin_of(size), page)
        tx[FREE_PAGES] -= count
        if size > count:
            self._put_run(tx, page + count, size - count)
        tx[self._segment.descriptor_of(page + count - 1) + D_KIND] = PageKind.INSIDE
        tx[descriptor + D_KIND] = PageKind.RUN | count << 8
        tx[descriptor + D_OWNER] = 0
        return page

    def _give_pages(self, tx: Transaction, page: int, count: int) -> None:
        """Make pages free, joined with the free runs before and after them."""
        tx[FREE_PAGES] += count
        after = page + count
        if after < tx[PAGES]:
            entry = tx[self._segment.descriptor_of(after)]
            if entry & 0xFF == PageKind.FREE:
                unlink(tx, self._segment, _bin_of(entry >> 8), after)
                count += entry >> 8
        if page > 0:
            entry = tx[self._segment.descriptor_of(page - 1)]
            if entry & 0xFF in (PageKind.FREE, PageKind.TAIL):
                page -= entry >> 8
                count += entry >> 8
                unlink(tx, self._segment, _bin_of(entry >> 8), page)
        self._put_run(tx, page, count)

    def _put_run(self, tx: Transaction, page: int, count: int) -> None:
        tx[self._segment.descriptor_of(page + count - 1)] = PageKind.TAIL | count << 8
        tx[self._segment.descriptor_of(page)] = PageKind.FREE | count << 8
        link(tx, self._segment, _bin_of(count), page)

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


def link(tx: Transaction, segment: Segment, head: int, page: int) -> None:
    """Put a page at the head of a list; ``head`` is the word that says where it begins."""
    descriptor = segment.descriptor_of(page)
    first = tx[head]
    tx[descriptor + D_PREVIOUS] = 0
    tx[descriptor + D_NEXT] = first
    if first:
        tx[segment.descriptor_of(first - 1) + D_PREVIOUS] = page + 1
    tx[head] = page + 1


def unlink(tx: Transaction, segment: Segment, head: int, page: int) -> None:
    """Take a page out of a list."""
    descriptor = segment.descriptor_of(page)
    before, after = tx[descriptor + D_PREVIOUS], tx[descriptor + D_NEXT]
    if before:
        tx[segment.descriptor_of(before - 1) + D_NEXT] = after
    else:
        tx[head] = after
    if after:
        tx[segment.descriptor_of(after - 1) + D_PREVIOUS] = before
