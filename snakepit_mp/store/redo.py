"""How do many words change at once? A redo log that one aligned 8-byte store commits.

An operation collects its writes in a `Transaction`, which reads its own writes. The log
writes them to shared memory, then stores their place in the log's commit word: from that
instant on they have happened. Then it applies them and clears the word. Whoever takes the
lock and finds the word set applies them again: absolute values, so as often as needed.
"""

from __future__ import annotations

from array import array

from ..errors import StoreError
from . import crashpoints
from .segment import Segment

__all__ = ["RedoLog", "Transaction"]


class Transaction:
    """Words to be written together, over the words that are there."""

    __slots__ = ("words", "writes")

    def __init__(self, words: memoryview[int]) -> None:
        self.words = words
        self.writes: dict[int, int] = {}

    def __getitem__(self, index: int) -> int:
        value = self.writes.get(index)
        return self.words[index] if value is None else value

    def __setitem__(self, index: int, value: int) -> None:
        self.writes[index] = value


class RedoLog:
    """One log: its commit word, and the place of its entries.

    ``capacity`` counts entries (two words each). ``owner`` is the first half of its labels.
    """

    __slots__ = ("_labels", "area", "capacity", "commit_word", "segment")

    def __init__(
        self, segment: Segment, owner: str, commit_word: int, area: int, capacity: int
    ) -> None:
        self.segment = segment
        self.commit_word = commit_word
        self.area = area
        self.capacity = capacity
        self._labels = [
            f"{owner}.{at}" for at in ("logged", "committed", "applying", "applied", "cleared")
        ]

    @property
    def pending(self) -> bool:
        """Whether a committed log waits to be applied."""
        return self.segment.words[self.commit_word] != 0

    def run(self, writes: dict[int, int], area: int | None = None) -> None:
        """Perform the writes, all or none. ``area`` is another place for a longer list."""
        words = self.segment.words
        place = self.area if area is None else area
        flat = array("Q", [len(writes)])
        for item in writes.items():
            flat.extend(item)
        words[place : place + len(flat)] = flat
        logged, committed, _, applied, cleared = self._labels
        crashpoints.step(logged)
        words[self.commit_word] = place  # the commit
        crashpoints.step(committed)
        self._apply(writes)
        crashpoints.step(applied)
        words[self.commit_word] = 0
        crashpoints.step(cleared)

    def replay(self) -> None:
        """Finish what a dead process had committed, if anything."""
        words = self.segment.words
        place = words[self.commit_word]
        if place == 0:
            return
        self._check(place)
        count = words[place]
        entries = words[place + 1 : place + 1 + 2 * count].tolist()
        self._apply(dict(zip(entries[::2], entries[1::2], strict=True)))
        crashpoints.step(self._labels[3])
        words[self.commit_word] = 0
        crashpoints.step(self._labels[4])

    def _apply(self, writes: dict[int, int]) -> None:
        words, half = self.segment.words, len(writes) // 2
        for number, (index, value) in enumerate(writes.items()):
            if number == half:
                crashpoints.step(self._labels[2])
            words[index] = value

    def _check(self, place: int) -> None:
        words = self.segment.words
        in_heap = self.segment.heap <= place < len(words)
        fits = in_heap or (place == self.area and words[place] <= self.capacity)
        if not fits or place + 1 + 2 * words[place] > len(words):
            raise StoreError("the session store is damaged: a log lies outside its place")
