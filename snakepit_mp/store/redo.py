"""How do many words change at once? A redo log that one aligned 8-byte store commits.

An operation collects its writes in a `Transaction`, which reads its own writes. The log
writes them to shared memory, says where they are, then makes its commit word odd: from that
instant on they have happened. Then it applies them and makes the word even again. Whoever
takes the lock and finds it odd applies them again: absolute values, so as often as needed.
The word only rises, so a reader of the compiled twin sees that something has changed.
"""

from __future__ import annotations

from array import array
from itertools import chain

from . import crashpoints, faults
from .layout import PAGE_WORDS, PAGES
from .segment import Segment

__all__ = ["RedoLog", "Transaction"]

#: The labels of a log's steps, by its owner.
_LABELS = {
    owner: [f"{owner}.{at}" for at in ("logged", "committed", "applying", "applied", "cleared")]
    for owner in ("stripe", "allocator")
}


class Transaction:
    """Words to be written together, over the words that are there."""

    __slots__ = ("words", "writes")

    def __init__(self, words: memoryview[int]) -> None:
        self.words = words
        self.writes: dict[int, int] = {}

    def __getitem__(self, index: int) -> int:
        writes = self.writes
        return writes[index] if index in writes else self.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self.writes[index] = value


class RedoLog:
    """One log: its commit word, the word that says where its entries are, and their usual place.

    ``capacity`` counts entries (two words each). ``owner`` is the first half of its labels.
    """

    __slots__ = ("_labels", "area", "at_word", "capacity", "commit_word", "segment")

    def __init__(
        self, segment: Segment, owner: str, words: tuple[int, int], area: int, capacity: int
    ) -> None:
        self.segment = segment
        self.commit_word, self.at_word = words
        self.area = area
        self.capacity = capacity
        self._labels = _LABELS[owner]

    @property
    def pending(self) -> bool:
        """Whether a committed log waits to be applied."""
        return self.segment.words[self.commit_word] & 1 == 1

    def run(self, writes: dict[int, int], area: int = 0) -> None:
        """Perform the writes, all or none. ``area`` is another place for a longer list."""
        words = self.segment.words
        flat = array("Q", [len(writes), *chain.from_iterable(writes.items())])
        place = area or self.area
        words[place : place + len(flat)] = flat
        words[self.at_word] = area
        logged, committed, _, applied, cleared = self._labels
        crashpoints.step(logged)
        words[self.commit_word] += 1  # odd: the commit
        crashpoints.step(committed)
        self._apply(writes)
        crashpoints.step(applied)
        words[self.commit_word] += 1
        crashpoints.step(cleared)

    def replay(self) -> bool:
        """Finish what a dead process had committed; whether there was anything."""
        if not self.pending:
            return False
        words = self.segment.words
        place = self._place()
        entries = words[place + 1 : place + 1 + 2 * words[place]].tolist()
        self._apply(dict(zip(entries[::2], entries[1::2], strict=True)))
        crashpoints.step(self._labels[3])
        words[self.commit_word] += 1
        crashpoints.step(self._labels[4])
        return True

    def _apply(self, writes: dict[int, int]) -> None:
        words, half = self.segment.words, len(writes) // 2
        for number, (index, value) in enumerate(writes.items()):
            if number == half:
                crashpoints.step(self._labels[2])
            words[index] = value

    def _place(self) -> int:
        words = self.segment.words
        place = words[self.at_word]
        if place == 0:
            fits = words[self.area] <= self.capacity
        else:
            end = min(self.segment.heap + words[PAGES] * PAGE_WORDS, len(words))
            inside = self.segment.heap <= place < end
            fits = inside and place + 1 + 2 * words[place] <= end
        if not fits:
            raise faults.damaged("a log lies outside its place")
        return place or self.area
