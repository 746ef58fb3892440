"""Do the pages add up? Runs tile the committed area, slabs know their free slots.

The first half of `verify`: afterwards every block in use is known, with its kind, from the
pages alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .blocks import kind_of, length_of, words_for
from .layout import (
    B_LINK,
    BIN_COUNT,
    BINS,
    CLASSES,
    D_KIND,
    D_NEXT,
    D_OWNER,
    D_PREVIOUS,
    D_STATE,
    FREE_PAGES,
    PAGE_WORDS,
    PAGES,
    PROCESS_COUNT,
    RUN_HEADER,
    S_PARTIAL,
    SMALL_HEADER,
    SMALL_MOST,
    STRIPE_COUNT,
    Kind,
    PageKind,
)
from .segment import Segment

__all__ = ["CheckOfPages", "Findings", "Slab"]

#: Sentences after which the rest is not told.
_MOST_FOUND = 100

_KINDS = frozenset(Kind)


@dataclass
class Findings:
    """What is wrong, so far."""

    sentences: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        if len(self.sentences) < _MOST_FOUND:
            self.sentences.append(sentence)

    def expect(self, truth: bool, sentence: str) -> None:
        if not truth:
            self.add(sentence)


@dataclass
class Slab:
    """A page of small blocks, and the stripe that it belongs to as far as is known."""

    number: int
    free: int
    stripe: int | None = None

    def belongs_to(self, stripe: int) -> bool:
        """Whether it can be that stripe's; from then on it is."""
        if self.stripe is None:
            self.stripe = stripe
        return self.stripe == stripe


class CheckOfPages:
    """`blocks`: kind of every block in use. `runs`: those that are one.

    `filled`: runs that a process is filling. `slabs`: by page.
    """

    def __init__(self, segment: Segment, found: Findings) -> None:
        self._segment = segment
        self._words = segment.words
        self._found = found
        self._free_runs: dict[int, int] = {}
        self.blocks: dict[int, int] = {}
        self.runs: set[int] = set()
        self.filled: set[int] = set()
        self.slabs: dict[int, Slab] = {}

    def page_of(self, block: int) -> int:
        return (block - self._segment.heap) // PAGE_WORDS

    def run(self) -> bool:
        """Look at all pages; whether they tell what the blocks are."""
        pages = self._words[PAGES]
        if pages > self._segment.max_pages:
            self._found.add(f"{pages} pages are more than the segment can hold")
            return False
        page, previous = 0, PageKind.INSIDE
        while page < pages:
            entry = self._words[self._segment.descriptor_of(page) + D_KIND]
            kind, size = entry & 0xFF, entry >> 8
            pages_of_it = 1 if kind == PageKind.SLAB else size
            if kind not in (PageKind.SLAB, PageKind.RUN, PageKind.FREE) or not (
                0 < pages_of_it <= pages - page
            ):
                self._found.add(f"page {page} begins nothing")
                return False
            if kind == PageKind.SLAB:
                self._slab(page, size)
            elif kind == PageKind.RUN:
                self._run(page, size)
            else:
                joined = previous != PageKind.FREE
                self._found.expect(joined, f"the free runs before page {page} are not joined")
                self._free_run(page, size)
            previous = PageKind(kind)
            page += pages_of_it
        free = sum(self._free_runs.values())
        counted = self._words[FREE_PAGES]
        self._found.expect(free == counted, f"{free} pages are free, not {counted}")
        self._bins()
        self._partial_lists()
        return True

    def _run(self, page: int, size: int) -> None:
        block, descriptor = self._start(page), self._segment.descriptor_of(page)
        owner = self._words[descriptor + D_OWNER]
        self.runs.add(block)
        self._found.expect(owner <= PROCESS_COUNT, f"run {block} is filled by nobody known")
        if owner:
            self.filled.add(block)
        length = length_of(self._words, block)
        fits = length > SMALL_MOST and RUN_HEADER + words_for(length) <= size * PAGE_WORDS
        self._found.expect(fits, f"run {block} has a wrong length")
        if fits:
            self._note(block)

    def _note(self, block: int) -> None:
        kind = kind_of(self._words, block)
        self._found.expect(kind in _KINDS, f"block {block} is of no kind")
        self.blocks[block] = kind

    def _free_run(self, page: int, size: int) -> None:
        tail = self._words[self._segment.descriptor_of(page + size - 1) + D_KIND]
        kind = PageKind.FREE if size == 1 else PageKind.TAIL
        self._found.expect(tail == kind | size << 8, f"the free run at page {page} has no tail")
        self._free_runs[page] = size

    def _slab(self, page: int, number: int) -> None:
        if number >= len(CLASSES):
            self._found.add(f"page {page} is of no class")
            return
        start, size = self._start(page), CLASSES[number]
        state = self._words[self._segment.descriptor_of(page) + D_STATE]
        head, fresh, free = state & 0xFFFF, state >> 16 & 0xFFFF, state >> 32
        slots = PAGE_WORDS // size
        if fresh > slots:
            self._found.add(f"page {page} has more blocks than room")
            return
        empty: set[int] = set()
        while 0 < head <= fresh and head - 1 not in empty:
            empty.add(head - 1)
            block = start + (head - 1) * size
            self._found.expect(kind_of(self._words, block) == 0, f"block {block} is free, and not")
            head = self._words[block + B_LINK]
        self._found.expect(head == 0, f"the free list of page {page} is none")
        true = len(empty) + slots - fresh
        self._found.expect(true == free, f"page {page} has {true} free blocks, not {free}")
        self._found.expect(true < slots, f"page {page} is empty, and no run")
        self.slabs[page] = Slab(number, free)
        for slot in set(range(fresh)) - empty:
            block = start + slot * size
            if SMALL_HEADER + words_for(length_of(self._words, block)) > size:
                self._found.add(f"block {block} is longer than its slot")
            else:
                self._note(block)

    def _start(self, page: int) -> int:
        return self._segment.heap + page * PAGE_WORDS

    # Lists.

    def _bins(self) -> None:
        listed: list[int] = []
        for number in range(BIN_COUNT):
            for page in self._list(BINS + number, self._free_runs):
                right = self._free_runs[page].bit_length() - 1 == number
                self._found.expect(right, f"the free run at page {page} is in a wrong list")
                listed.append(page)
        same = sorted(listed) == sorted(self._free_runs)
        self._found.expect(same, "the free runs are not those in the lists")

    def _partial_lists(self) -> None:
        """Slabs with a free block are in the list of their class and stripe, and no others."""
        listed: list[int] = []
        for stripe in range(STRIPE_COUNT):
            for number in range(len(CLASSES)):
                head = self._segment.base_of(stripe) + S_PARTIAL + number
                for page in self._list(head, self.slabs):
                    slab = self.slabs[page]
                    right = slab.number == number and slab.belongs_to(stripe)
                    self._found.expect(right, f"page {page} is in a wrong list")
                    listed.append(page)
        partial = [page for page, slab in self.slabs.items() if slab.free]
        same = sorted(listed) == sorted(partial)
        self._found.expect(same, "the pages with free blocks are not those in the lists")

    def _list(self, head: int, known: dict[int, int] | dict[int, Slab]) -> list[int]:
        """The pages of a list, as far as it is one."""
        pages: dict[int, None] = {}
        before, link = 0, self._words[head]
        while link:
            page = link - 1
            if page not in known or page in pages:
                self._found.add(f"the list at word {head} leads astray")
                break
            descriptor = self._segment.descriptor_of(page)
            back = self._words[descriptor + D_PREVIOUS] == before
            self._found.expect(back, f"page {page} does not know what is before it")
            pages[page] = None
            before, link = link, self._words[descriptor + D_NEXT]
        return list(pages)
