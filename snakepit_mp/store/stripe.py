"""How does one stripe change? An operation under its lock, and the repair of a broken-off one.

Every session belongs to one stripe: by lock, by log, by slabs and chains. Whoever takes the
lock first finishes or undoes what a dead holder left: the log is applied, *pending* runs
(allocated, never reachable) and *garbage* (replaced, no longer reachable) are freed. Small
blocks are taken and freed by the log itself.
Sessions that were deleted, and variables with old values, wait in the *graves* until their
blocks are freed, a few with every operation: so a delete takes one step however much goes
with it, and needs no memory for a longer log, which a full store has not.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import FrameType, TracebackType

from ..errors import StoreBusy
from . import crashpoints, faults, history, slabs, table
from .blocks import kind_of, payload_of
from .layout import (
    ALLOCATOR_COMMIT,
    ALLOCATOR_LOCK,
    B_LINK,
    PAGE_WORDS,
    R_FACTS,
    R_HISTORY,
    R_VALUE,
    S_BELL,
    S_COMMIT,
    S_EPOCH,
    S_GARBAGE,
    S_GRAVES,
    S_INDEX,
    S_LOG,
    S_LOG_AT,
    S_LOG_CAPACITY,
    S_PENDING,
    SMALL_HEADER,
    SMALL_MOST,
    STRIPE_COUNT,
    T_BLOCK,
    V_VARIABLES,
    WORD,
    Kind,
)
from .locks import EXCLUSIVE, SHARED, LockFile
from .pages import Pages
from .redo import RedoLog, Transaction
from .segment import Segment

__all__ = ["Holding", "Operation", "Reading", "Stripes", "Writing"]

#: Entries of the log that freeing one block may take: two of its header, two of its page's
#: list and its neighbours, four of a page that is handed back; and those of all together.
_FREEING_TAKES, _FREEING_SHARES = 8, 5
#: Commits that an operation spends on graves besides its own.
_ROUNDS_ASIDE = 2
#: Commits that tidying makes before it lets others in.
_ROUNDS_OF_TIDYING = 16


class Operation(Transaction):
    """Writes to one stripe, whose lock is held, with the blocks they take and leave."""

    __slots__ = ("_discarded", "_log", "_pages", "_rings", "_took", "base", "segment")

    def __init__(self, segment: Segment, pages: Pages, stripe: int) -> None:
        super().__init__(segment.words)
        self.base = base = segment.base_of(stripe)
        self.segment = segment
        self._pages = pages
        words = base + S_COMMIT, base + S_LOG_AT
        self._log = RedoLog(segment, "stripe", words, base + S_LOG, S_LOG_CAPACITY)
        self._discarded: list[int] = []
        self._took = False
        self._rings = False

    # Blocks.

    def store(self, kind: Kind, payload: bytes) -> int:
        """A new block that holds ``payload``; reachable when a commit makes it so."""
        length = len(payload)
        if length > SMALL_MOST:
            block = self._run(kind, length)
        else:
            block = slabs.take(self, self.segment, self.base, kind, length, self._page)
        record = kind in (Kind.SESSION, Kind.VARIABLE)
        crashpoints.step("block.filling")
        self.segment.write(block + SMALL_HEADER if record else payload_of(self, block), payload)
        crashpoints.step("block.filled")
        return block

    def discard(self, block: int) -> None:
        """Free a block with the next commit, which makes it unreachable; 0 is none."""
        # Not before: what is taken in between would be filled while this one is still read.
        if block:
            self._discarded.append(block)

    def discard_variable(self, record: int) -> None:
        """Free a variable's record and all that belongs to it; with old values that is later."""
        self.forget_records()
        if self[record + R_HISTORY]:
            self._to_graves(record)
            return
        for block in self._blocks_of_variable(record):
            self.discard(block)

    def _blocks_of_variable(self, record: int) -> list[int]:
        others = (self[record + word] for word in (R_VALUE, R_FACTS, R_HISTORY))
        return [*filter(None, others), record]

    def _run(self, kind: Kind, length: int) -> int:
        self._took = True  # before: an exception may come after the allocator's commit
        return self._pages.allocate(self.base + S_PENDING, kind, length)

    def _page(self) -> int:
        block = self._run(Kind.PAGE, slabs.PAGE_PAYLOAD)
        return (block - self.segment.heap) // PAGE_WORDS

    def _give(self, block: int) -> None:
        """Free a block in this transaction, which takes none from now on."""
        run = block if self._pages.is_run(self, block) else 0
        if not run:
            run = slabs.give(self, self.segment, self.base, block)
        if run:
            self[run + B_LINK] = self[self.base + S_GARBAGE]
            self[self.base + S_GARBAGE] = run

    # Commit and its opposite.

    def will_ring(self) -> None:
        """Somebody watches what this operation changes."""
        self._rings = True

    def commit(self) -> None:
        """Perform all writes at once, then free the runs that they replaced."""
        for block in self._discarded:
            self._give(block)
        area = 0
        if len(self.writes) + 1 > self._log.capacity:
            count = len(self.writes) + 3  # chains and the log's own link
            log = self._run(Kind.LOG, max((2 * count + 1) * WORD, SMALL_MOST + WORD))
            self._give(log)
            area = payload_of(self.words, log)
        if self._took:
            self[self.base + S_PENDING] = 0
        self._log.run(self.writes, area)
        if self._rings:
            self.words[self.base + S_BELL] += 1
        self._forget()
        if self.words[self.base + S_GARBAGE]:
            # The commit stands: whoever comes next frees them, if the allocator is not to be had.
            with suppress(StoreBusy):
                self._pages.release(self.base + S_GARBAGE)

    def roll_back(self) -> None:
        """Forget what was not committed."""
        took = self._took
        self._forget()
        if took:
            self._pages.release(self.base + S_PENDING)

    def _forget(self) -> None:
        self.writes.clear()
        self._discarded.clear()
        self._took = self._rings = False

    def is_in_order(self) -> bool:
        """Whether nobody died in the stripe, or in the allocator, whose log may be about it."""
        words, base = self.words, self.base
        logs = words[base + S_COMMIT] | words[ALLOCATOR_COMMIT]
        return not (logs & 1 or words[base + S_PENDING] or words[base + S_GARBAGE])

    def recover(self) -> None:
        """Bring the stripe into order, whatever its last holder died in."""
        rings = self._rings
        self._forget()
        # The allocator first: its log may still hold a change of this stripe's chains.
        self._pages.recover()
        if self._log.replay() or rings:
            self.words[self.base + S_BELL] += 1  # whoever was broken off may not have rung
        for chain in (self.base + S_PENDING, self.base + S_GARBAGE):
            if self.words[chain]:
                self._pages.release(chain)

    # Tables and sessions.

    def insert(self, owner: int, digest: int, record: int) -> None:
        """Enter a record into a table, which is rebuilt when it is crowded."""
        content = table.rebuilt(self, owner)
        if content is not None:
            self.discard(table.replace(self, owner, self.store(Kind.TABLE, content)))
        table.insert(self, owner, digest, record)

    def bury(self, slot: int, session: int) -> None:
        """Delete a session: unreachable with the next commit, freed later."""
        table.remove(self, self.base + S_INDEX, slot)
        self._to_graves(session)
        self.forget_records()

    def _to_graves(self, record: int) -> None:
        self[record + B_LINK] = self[self.base + S_GRAVES]
        self[self.base + S_GRAVES] = record

    def forget_records(self) -> None:
        """Whoever remembers a record of this stripe has to look again."""
        self[self.base + S_EPOCH] += 1

    def free_graves(self, rounds: int) -> bool:
        """Free the blocks of what was deleted, in so many commits; whether all are gone."""
        known, left = 0, []
        for _ in range(rounds):
            grave = self.words[self.base + S_GRAVES]
            if grave == 0:
                return True
            if kind_of(self.words, grave) == Kind.VARIABLE:
                self._free_grave_of_variable(grave)
            else:
                if grave != known:
                    known, left = grave, table.entries(self.words, grave + V_VARIABLES)
                self._free_some(grave, left)
            self.commit()
            if self.words[self.base + S_GARBAGE]:
                return False
        return self.words[self.base + S_GRAVES] == 0

    # Each of these frees what fits the log as it is, so that it works in a full store.

    def _free_grave_of_variable(self, grave: int) -> None:
        following = self[grave + B_LINK]
        if self._free_variable(grave):
            self[self.base + S_GRAVES] = following

    def _free_some(self, grave: int, left: list[tuple[int, int]]) -> None:
        """Free some of a deleted session, and it itself with the last.

        ``left``: the entries of its table, of which those are taken that were freed.
        """
        owner = grave + V_VARIABLES
        while left:
            slot, variable = left[-1]
            if not self._free_variable(variable):
                return
            table.remove(self, owner, slot)
            left.pop()
        if self._can_free(2):
            self[self.base + S_GRAVES] = self[grave + B_LINK]
            if self[owner + T_BLOCK]:
                self._give(self[owner + T_BLOCK])
            self._give(grave)

    def _free_variable(self, record: int) -> bool:
        """Free a variable's old values, then it itself; whether all of that fitted."""
        for word in history.block_words(self.words, record):
            if not self._can_free(1):
                return False
            self._give(self[word])
            self[word] = 0
        blocks = self._blocks_of_variable(record)
        if not self._can_free(len(blocks)):
            return False
        for block in blocks:
            self._give(block)
        return True

    def _can_free(self, count: int) -> bool:
        """Whether so many blocks more can be freed with the log as long as it is."""
        room = self._log.capacity - len(self.writes) - _FREEING_SHARES
        return count * _FREEING_TAKES <= room


class Stripes:
    """All stripes of a segment."""

    def __init__(self, segment: Segment, locks: LockFile, pages: Pages) -> None:
        self.segment = segment
        self.locks = locks
        self.pages = pages

    def writing(self, stripe: int) -> Writing:
        """Nobody else reads or writes the stripe; what is not committed is undone."""
        return Writing(self, stripe)

    def reading(self, stripe: int) -> Reading:
        """Nobody writes the stripe."""
        return Reading(self, stripe)

    def tidy(self, stripe: int) -> bool:
        """Repair a stripe, free some of its deleted sessions; whether there is more to do."""
        base = self.segment.base_of(stripe)
        with self.locks.shared(stripe), faults.ToldAsDamage():
            self.segment.require_open()
            self.pages.recover()
            words = self.segment.words
            chains = (words[base + chain] for chain in (S_PENDING, S_GARBAGE, S_GRAVES))
            if not words[base + S_COMMIT] & 1 and not any(chains):
                return False
        with self.writing(stripe) as operation:
            return not operation.free_graves(_ROUNDS_OF_TIDYING)

    def hold(self) -> Holding:
        """All stripes and the allocator, repaired, belong to this thread."""
        return Holding(self)


# What is entered by every operation: classes, since generators would take a while more. Each
# tells the locks for which call they are, that of the ``with`` statement.


class Writing:
    """A ``with`` block in which one stripe may be changed."""

    __slots__ = ("_operation", "_stripe", "_stripes")

    def __init__(self, stripes: Stripes, stripe: int) -> None:
        self._stripes = stripes
        self._stripe = stripe

    def __enter__(self) -> Operation:
        return self.enter(sys._getframe(1))

    def enter(self, frame: FrameType) -> Operation:
        """Begin, for a call that runs in ``frame``."""
        stripes = self._stripes
        stripes.locks.take(self._stripe, EXCLUSIVE, frame)
        try:
            stripes.segment.require_open()
            self._operation = Operation(stripes.segment, stripes.pages, self._stripe)
            if not self._operation.is_in_order():
                self._operation.recover()
            crashpoints.step("stripe.entered")
        except BaseException as error:
            stripes.locks.let_go(self._stripe)
            faults.tell_damage(error)
            raise
        return self._operation

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._leave(failed=error is not None)
        except BaseException as late:
            faults.tell_damage(late)
            raise
        finally:
            self._stripes.locks.let_go(self._stripe)
        if error is not None:
            faults.tell_damage(error)

    def _leave(self, *, failed: bool) -> None:
        operation = self._operation
        if failed:
            operation.recover()
            return
        try:
            operation.roll_back()
            operation.free_graves(_ROUNDS_ASIDE)
        except BaseException:
            operation.recover()
            raise
        crashpoints.step("stripe.left")


class Reading:
    """A ``with`` block in which one stripe does not change."""

    __slots__ = ("_stripe", "_stripes", "_writing")

    def __init__(self, stripes: Stripes, stripe: int) -> None:
        self._stripes = stripes
        self._stripe = stripe
        self._writing: Writing | None = None

    def __enter__(self) -> memoryview[int]:
        stripes, stripe = self._stripes, self._stripe
        segment = stripes.segment
        stripes.locks.take(stripe, SHARED, sys._getframe(1))
        try:
            segment.require_open()
            words = segment.words
            if not words[segment.base_of(stripe) + S_COMMIT] & 1:
                return words
        except BaseException as error:
            stripes.locks.let_go(stripe)
            faults.tell_damage(error)
            raise
        stripes.locks.let_go(stripe)
        writing = stripes.writing(stripe)  # a writer died: finish its work first
        writing.enter(sys._getframe(1))
        self._writing = writing
        return words

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writing is not None:
            self._writing.__exit__(kind, error, traceback)
            return
        self._stripes.locks.let_go(self._stripe)
        if error is not None:
            faults.tell_damage(error)


class Holding:
    """A ``with`` block in which nobody else does anything; entered once."""

    def __init__(self, stripes: Stripes) -> None:
        self._stripes = stripes
        self._taken: list[int] = []

    def __enter__(self) -> None:
        frame = sys._getframe(1)
        self._stripes.locks.put_right()
        try:
            with faults.ToldAsDamage():
                for stripe in range(STRIPE_COUNT):
                    self._take(stripe, frame)
                    self._stripes.segment.require_open()
                    Operation(self._stripes.segment, self._stripes.pages, stripe).recover()
            self._take(ALLOCATOR_LOCK, frame)
        except BaseException:
            self._let_go()
            raise

    def _take(self, index: int, frame: FrameType) -> None:
        self._stripes.locks.take(index, EXCLUSIVE, frame, within=True)
        self._taken.append(index)

    def _let_go(self) -> None:
        while self._taken:
            self._stripes.locks.let_go(self._taken[-1])
            self._taken.pop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._let_go()
