"""How does one stripe change? An operation under its lock, and the repair of a broken-off one.

Every session belongs to one stripe: by lock, by log, by chains of blocks. Whoever takes the
lock first finishes or undoes what a dead holder left: the log is applied, *pending* blocks
(allocated, never reachable) and *garbage* (replaced, no longer reachable) are freed.
Sessions that were deleted wait in the *graves* until their blocks are freed, a few with
every operation, so that a delete takes one step however much it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import crashpoints, records, table
from .allocator import Allocator, Kind
from .locks import LockFile
from .redo import RedoLog, Transaction
from .segment import STRIPE_WORDS, Segment

__all__ = ["COMMIT", "GARBAGE", "GRAVES", "INDEX", "NUMBERS", "PENDING", "Operation", "Stripes"]

# Words of a stripe's record.
COMMIT, PENDING, GARBAGE, GRAVES, INDEX, NUMBERS, _LOG = 0, 1, 2, 3, 4, 7, 8
_LOG_CAPACITY = (STRIPE_WORDS - _LOG - 1) // 2

#: Variables whose blocks are freed in one commit: four words each, within the log.
_FREED_AT_ONCE = (_LOG_CAPACITY - 8) // 4
#: Commits that an operation spends on graves besides its own.
_ROUNDS_ASIDE = 2
#: Commits that tidying makes before it lets others in.
_ROUNDS_OF_TIDYING = 16


class Operation(Transaction):
    """Writes to one stripe, whose lock is held, with the blocks they take and leave."""

    __slots__ = ("_allocator", "_discarded", "_log", "_segment", "_took", "base")

    def __init__(self, segment: Segment, allocator: Allocator, stripe: int) -> None:
        super().__init__(segment.words)
        self.base = segment.base_of(stripe)
        self._segment = segment
        self._allocator = allocator
        self._log = RedoLog(segment, "stripe", self.base + COMMIT, self.base + _LOG, _LOG_CAPACITY)
        self._discarded: list[int] = []
        self._took = False

    def store(self, kind: Kind, payload: bytes) -> int:
        """A new block that holds ``payload``; reachable when a commit makes it so."""
        block = self._allocator.allocate(self.base + PENDING, kind, len(payload))
        self._took = True
        crashpoints.step("block.filling")
        self._segment.write(block + 2, payload)
        crashpoints.step("block.filled")
        return block

    def discard(self, block: int) -> None:
        """Free a block with the next commit, which makes it unreachable."""
        if block:
            self._discarded.append(block)

    def commit(self) -> None:
        """Perform all writes at once, then free what they replaced."""
        area = None
        if len(self.writes) + len(self._discarded) + 2 > self._log.capacity:
            count = len(self.writes) + len(self._discarded) + 3
            log = self.store(Kind.LOG, bytes(16 * count + 8))
            self.discard(log)
            area = log + 2
        head = 0
        for block in self._discarded:
            self[block] = head
            head = block
        if head:
            self[self.base + GARBAGE] = head
        if self._took:
            self[self.base + PENDING] = 0
        self._log.run(self.writes, area)
        self._forget()
        if head:
            self._allocator.release(self.base + GARBAGE)

    def roll_back(self) -> None:
        """Forget what was not committed."""
        took = self._took
        self._forget()
        if took:
            self._allocator.release(self.base + PENDING)

    def _forget(self) -> None:
        self.writes.clear()
        self._discarded.clear()
        self._took = False

    def recover(self) -> None:
        """Bring the stripe into order, whatever its last holder died in."""
        # The allocator first: its log may still hold a change of this stripe's chains.
        self._allocator.recover()
        self._log.replay()
        for chain in (self.base + PENDING, self.base + GARBAGE):
            if self.words[chain]:
                self._allocator.release(chain)

    def insert(self, owner: int, digest: int, record: int) -> None:
        """Enter a record into a table, which is rebuilt when it is crowded."""
        content = table.rebuilt(self, owner)
        if content is not None:
            self.discard(table.replace(self, owner, self.store(Kind.TABLE, content)))
        table.insert(self, owner, digest, record)

    def bury(self, slot: int, session: int) -> None:
        """Delete a session: unreachable with the next commit, freed later."""
        table.remove(self, self.base + INDEX, slot)
        self[session] = self[self.base + GRAVES]
        self[self.base + GRAVES] = session

    def free_graves(self, rounds: int) -> bool:
        """Free the blocks of deleted sessions, in so many commits; whether all are gone."""
        for _ in range(rounds):
            session = self.words[self.base + GRAVES]
            if session == 0:
                return True
            self._free_some(session)
            self.commit()
        return self.words[self.base + GRAVES] == 0

    def _free_some(self, session: int) -> None:
        owner = session + records.VARIABLES
        variables = table.entries(self.words, owner)
        for slot, variable in variables[:_FREED_AT_ONCE]:
            table.remove(self, owner, slot)
            self.discard_variable(variable)
        if len(variables) <= _FREED_AT_ONCE:
            self[self.base + GRAVES] = self[session]
            self.discard(self[owner + table.BLOCK])
            self.discard(session)

    def discard_variable(self, variable: int) -> None:
        """Free a variable's record and what belongs to it."""
        self.discard(self[variable + records.VALUE])
        self.discard(self[variable + records.FACTS])
        self.discard(variable)


class Stripes:
    """All stripes of a segment."""

    def __init__(self, segment: Segment, locks: LockFile, allocator: Allocator) -> None:
        self._segment = segment
        self._locks = locks
        self._allocator = allocator

    @contextmanager
    def writing(self, stripe: int) -> Iterator[Operation]:
        """Nobody else reads or writes the stripe; what is not committed is undone."""
        with self._locks.exclusive(stripe):
            self._segment.require_open()
            operation = Operation(self._segment, self._allocator, stripe)
            operation.recover()
            crashpoints.step("stripe.entered")
            try:
                yield operation
                operation.roll_back()
                operation.free_graves(_ROUNDS_ASIDE)
            except BaseException:
                operation.recover()
                raise
            crashpoints.step("stripe.left")

    @contextmanager
    def reading(self, stripe: int) -> Iterator[memoryview[int]]:
        """Nobody writes the stripe."""
        with self._locks.shared(stripe):
            self._segment.require_open()
            base = self._segment.base_of(stripe)
            if not self._segment.words[base + COMMIT]:
                yield self._segment.words
                return
        with self.writing(stripe):  # a writer died: finish its work first
            yield self._segment.words

    def tidy(self, stripe: int) -> bool:
        """Repair a stripe, free some of its deleted sessions; whether there is more to do."""
        base = self._segment.base_of(stripe)
        with self._locks.shared(stripe):
            self._segment.require_open()
            self._allocator.recover()
            words = self._segment.words
            if not any(words[base + at] for at in (COMMIT, PENDING, GARBAGE, GRAVES)):
                return False
        with self.writing(stripe) as operation:
            return not operation.free_graves(_ROUNDS_OF_TIDYING)
