"""How many tiny calls travel together? As many as a worker does in some two milliseconds."""

from __future__ import annotations

from collections import OrderedDict

from ..lanes.mailbox import LARGEST_BATCH

__all__ = ["LARGEST_TOGETHER", "MOST", "Pace", "Paces"]

#: Bytes of what is fetched ahead, beside what it has in common.
LARGEST_TOGETHER = LARGEST_BATCH - 8192

#: Seconds that a batch is meant to take: many times what it costs to send one.
_TARGET = 0.002
#: A batch is at the most so many times as large as the one before.
_GROWTH = 8
#: Items; more would not fit.
MOST = 4096
#: Kinds of calls whose pace is remembered; to forget one costs some round trips.
_REMEMBERED = 256


class Pace:
    """The size of the next batch, by what the last ones have shown."""

    def __init__(self) -> None:
        self.size = 1
        self._each: float | None = None
        self._most = MOST

    def measured(self, each: float) -> None:
        """A worker took so many seconds for an item; what is slow is believed at once."""
        if self._each is not None and each < self._each:
            each = (each + self._each) / 2
        self._each = each
        wanted = int(_TARGET / each) if each > 0 else self._most
        self.size = max(1, min(wanted, self.size * _GROWTH, self._most))

    def at_most(self, items: int) -> None:
        """More do not fit together."""
        self._most = max(1, min(self._most, items))
        self.size = min(self.size, self._most)


class Paces:
    """Of each kin of calls its pace. All but `most` belongs to one thread."""

    def __init__(self) -> None:
        self._of: OrderedDict[bytes, Pace] = OrderedDict()

    def most(self, kin: bytes) -> int:
        """How many of them may travel together by now."""
        pace = self._of.get(kin)
        return 1 if pace is None else pace.size

    def of(self, kin: bytes) -> Pace:
        pace = self._of.get(kin)
        if pace is None:
            pace = self._of[kin] = Pace()
            if len(self._of) > _REMEMBERED:
                self._of.popitem(last=False)
        return pace

    def went_alone(self, kin: bytes, seconds: float) -> None:
        """A call took so long on its way there and back, which is more than it took to run."""
        pace = self.of(kin)
        if pace.size == 1:
            pace.measured(seconds)
