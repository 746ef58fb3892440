"""How far has a worker come with the request in its hands, and is it to stop?

One page of shared memory per incarnation, also read after the worker was killed. The worker
notes the request's number, the attempt and its phase in one aligned word, so that one store
changes all: a reader never sees one without the others. The application writes two words of its
own: the number of the request whose tool is to stop, and the CPU on which the caller waits.
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from typing import NamedTuple

from ..core.events import Phase
from .blackbox import FILE_SIZE
from .spin import NOWHERE
from .worker_file import STATUS_SIZE, memory_file

__all__ = ["INTERRUPT_SIGNAL", "Account", "Phase", "StatusPage"]

#: Tells a worker to look at `StatusPage.interrupted`. A real-time signal, since the others
#: belong to the tools; there are none on macOS.
INTERRUPT_SIGNAL = signal.SIGRTMIN + 5 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2

# The first word of all, where the compiled mailbox puts it, too.
_NOTE, _INTERRUPTED, _SINCE, _INCARNATION, _TASKS, _BUSY, _RSS, _WORKER_CPU, _CALLER_CPU, _WORDS = (
    range(10)
)

_ATTEMPT_BITS = 16
_MAX_ATTEMPT = (1 << _ATTEMPT_BITS) - 1


class Account(NamedTuple):
    """What a worker's page tells beside the note; the words are not of one moment.

    ``since``: when it noted the last, on the clock of ``time.monotonic``. ``busy``: seconds
    from TAKEN or ENTERED to DONE. ``rss``: bytes, as the worker measured last.
    """

    incarnation: int
    since: float
    tasks: int
    busy: float
    rss: int | None


class StatusPage:
    """The page, mapped here; ``fd`` is the memory file that another process attaches."""

    __slots__ = ("_map", "_words", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, STATUS_SIZE)
        self._words = memoryview(self._map).cast("Q")[:_WORDS]

    @classmethod
    def create(cls) -> StatusPage:
        """A fresh page with phase ``IDLE``; never used for a second incarnation."""
        fd = memory_file(FILE_SIZE)
        try:
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> StatusPage:
        """Map the page behind ``fd``, which belongs to the page object from here on."""
        return cls(fd)

    def taken(self, request_id: int, attempt: int = 1) -> None:
        """Note that the request has arrived; before anything of it is decoded."""
        self._note(request_id, attempt, Phase.TAKEN)

    def entered(self, request_id: int, attempt: int = 1) -> None:
        """Note that the tool is called next."""
        self._note(request_id, attempt, Phase.ENTERED)

    def done(self, request_id: int, attempt: int = 1, *, tasks: int = 1) -> None:
        """Note that the tool is through, whatever came out; after so many ``tasks`` of it."""
        self._words[_TASKS] += tasks - 1
        self._note(request_id, attempt, Phase.DONE)

    def words_of(self, request_id: int, attempt: int) -> tuple[int, int]:
        """The words that note TAKEN and ENTERED, for who puts them there again and again."""
        run = request_id << _ATTEMPT_BITS | min(attempt, _MAX_ATTEMPT)
        return run << 2 | Phase.TAKEN, run << 2 | Phase.ENTERED

    def read(self) -> tuple[int, Phase]:
        """The request noted last and its phase; ``(0, IDLE)`` if there was none."""
        request_id, _, phase = self.note()
        return request_id, phase

    def note(self) -> tuple[int, int, Phase]:
        """The same with the attempt in the middle."""
        word = self._words[_NOTE]
        run = word >> 2
        return run >> _ATTEMPT_BITS, run & _MAX_ATTEMPT, Phase(word & 3)

    def phase_of(self, request_id: int, attempt: int) -> Phase | None:
        """How far the worker came with that attempt; ``None`` if it never took it."""
        noted, number, phase = self.note()
        return phase if (noted, number) == (request_id, min(attempt, _MAX_ATTEMPT)) else None

    def interrupt(self, request_id: int) -> None:
        """Note, as the application, that the tool of this request is to stop."""
        self._words[_INTERRUPTED] = request_id

    def interrupted(self) -> int:
        """The request whose tool is to stop; 0 if there was none yet."""
        return self._words[_INTERRUPTED]

    def caller_is_on(self, cpu: int) -> int:
        """Note where a caller waits; where the worker was last seen."""
        return self._meet(_CALLER_CPU, cpu, _WORKER_CPU)

    def worker_is_on(self, cpu: int) -> int:
        """Note where the worker waits; where a caller was last seen."""
        return self._meet(_WORKER_CPU, cpu, _CALLER_CPU)

    def _meet(self, mine: int, cpu: int, other: int) -> int:
        try:
            self._words[mine] = cpu + 1  # so that 0 is nowhere
            return self._words[other] - 1
        except ValueError:  # closed: the worker has ended
            return NOWHERE

    def close(self) -> None:
        """Unmap the page and close its descriptor; a second call does nothing."""
        if self.fd < 0:
            return
        self._words.release()
        self._map.close()
        os.close(self.fd)
        self.fd = -1

    def begin(self, incarnation: int) -> None:
        """Note, as the worker, who is at work here."""
        self._words[_INCARNATION] = incarnation
        self._words[_SINCE] = time.monotonic_ns()

    def measure(self, rss: int) -> None:
        """Note the worker's own resident memory, in bytes."""
        self._words[_RSS] = rss

    def account(self) -> Account:
        """What the worker has done so far, by its own notes."""
        words = self._words
        return Account(
            incarnation=words[_INCARNATION],
            since=words[_SINCE] / 1e9,
            tasks=words[_TASKS],
            busy=words[_BUSY] / 1e9,
            rss=words[_RSS] or None,
        )

    def _note(self, request_id: int, attempt: int, phase: Phase) -> None:
        now = time.monotonic_ns()
        if phase is Phase.DONE:
            self._words[_TASKS] += 1
            self._words[_BUSY] += now - self._words[_SINCE]
        self._words[_SINCE] = now
        run = request_id << _ATTEMPT_BITS | min(attempt, _MAX_ATTEMPT)
        self._words[_NOTE] = run << 2 | phase
