"""Who is next, and who gets it? The waiting line and the idle workers.

The line is first come, first served; the first ``size`` in it are *admitted*, the others wait
behind them, and their submitters are held back. A request that comes back because its worker
died goes to the front: it has waited already, and is never refused. One that waits for its next
attempt stands *aside* and keeps its place, so that calls that fail make the line no longer.

Of the idle workers the one that worked last gets the request, since its caches are warm and it may
not be asleep yet. Those that have not worked yet come before, in their order, so that each shows
what it can. A request of a session gets the worker that served it last, if that is idle. As a rule
that is a hint, nothing more. A request that insists on that worker, and finds it busy at the head of the line, *parks*:
it keeps its place, gets that worker before anybody else, and holds up nobody.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

__all__ = ["IdleWorkers", "Line"]

#: Sessions whose last worker is remembered; forgetting one costs a cold cache.
_REMEMBERED_SESSIONS = 4096


class Line:
    """Request ids in the order in which they will be served."""

    __slots__ = ("_admitted", "_aside", "_held_back", "_parked", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._admitted: OrderedDict[int, None] = OrderedDict()
        self._aside: OrderedDict[int, None] = OrderedDict()
        self._parked: OrderedDict[int, int] = OrderedDict()  # the worker that it waits for
        self._held_back: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return self._places + len(self._held_back)

    def __bool__(self) -> bool:
        return bool(self._admitted or self._parked or self._aside or self._held_back)

    def __contains__(self, request_id: int) -> bool:
        parts = (self._admitted, self._parked, self._aside, self._held_back)
        return any(request_id in part for part in parts)

    @property
    def _places(self) -> int:
        return len(self._admitted) + len(self._parked) + len(self._aside)

    @property
    def full(self) -> bool:
        return self._places >= self.size

    @property
    def admitted(self) -> list[int]:
        """Those that have a place, first in line first, parked ones and those aside last."""
        return [*self._admitted, *self._parked, *self._aside]

    def waiting(self) -> list[int]:
        """Everybody, first in line first."""
        return [*self.admitted, *self._held_back]

    def join(self, request_id: int) -> bool:
        """Go to the end; whether that was an admitted place."""
        admitted = not self.full
        (self._admitted if admitted else self._held_back)[request_id] = None
        return admitted

    def return_to_front(self, request_id: int) -> None:
        """Go to the front, full or not."""
        self._aside.pop(request_id, None)
        self._admitted[request_id] = None
        self._admitted.move_to_end(request_id, last=False)

    def park(self, request_id: int, worker_id: int) -> None:
        """Have the admitted one wait for that worker, and nobody for it."""
        del self._admitted[request_id]
        self._parked[request_id] = worker_id

    def parked(self) -> list[tuple[int, int]]:
        """Those that wait for a certain worker, and for which; first come first."""
        return list(self._parked.items())

    def unpark(self, worker_id: int) -> None:
        """That worker is gone: who waited for it goes to the front, in the same order."""
        waited = [request_id for request_id, which in self._parked.items() if which == worker_id]
        for request_id in reversed(waited):
            del self._parked[request_id]
            self.return_to_front(request_id)

    def step_aside(self, request_id: int) -> None:
        """Take a place, full or not, without being served before `return_to_front`."""
        self._aside[request_id] = None

    def first(self) -> int | None:
        return next(iter(self._admitted), None)

    @property
    def admissible(self) -> int:
        """How many wait for whichever worker comes first."""
        return len(self._admitted)

    def behind(self, request_id: int, most: int) -> Iterator[int]:
        """Those that follow the first in line, at most so many."""
        assert self.first() == request_id
        return itertools.islice(self._admitted, 1, 1 + max(0, most))

    def leave(self, request_id: int) -> list[int]:
        """Leave; those who have a place now because of it."""
        if request_id in self._held_back:
            del self._held_back[request_id]
            return []
        parts: tuple[OrderedDict[int, Any], ...] = (self._admitted, self._parked, self._aside)
        del next(part for part in parts if request_id in part)[request_id]
        admitted = []
        while self._held_back and not self.full:
            moved, _ = self._held_back.popitem(last=False)
            self._admitted[moved] = None
            admitted.append(moved)
        return admitted


class IdleWorkers:
    """Worker ids that could take a request, and which session each served last."""

    __slots__ = ("_fresh", "_last_worker", "_remembered", "_warm")

    def __init__(self, remembered: int = _REMEMBERED_SESSIONS) -> None:
        self._fresh: OrderedDict[int, None] = OrderedDict()  # have not worked yet
        self._warm: OrderedDict[int, None] = OrderedDict()  # who worked last comes last
        self._last_worker: OrderedDict[str, int] = OrderedDict()
        self._remembered = remembered

    def __len__(self) -> int:
        return len(self._fresh) + len(self._warm)

    def __bool__(self) -> bool:
        return bool(self._warm or self._fresh)

    def __contains__(self, worker_id: int) -> bool:
        return worker_id in self._warm or worker_id in self._fresh

    def add(self, worker_id: int, *, warm: bool = False) -> None:
        """``warm``: it has just worked."""
        (self._warm if warm else self._fresh)[worker_id] = None

    def discard(self, worker_id: int) -> None:
        self._warm.pop(worker_id, None)
        self._fresh.pop(worker_id, None)

    def last_of(self, session_id: str | None) -> int | None:
        """The worker that served the session last; ``None`` if that is not known."""
        return None if session_id is None else self._last_worker.get(session_id)

    def forget_sessions_of(self, worker_id: int) -> None:
        """Its caches have gone with it."""
        gone = [session for session, last in self._last_worker.items() if last == worker_id]
        for session in gone:
            del self._last_worker[session]

    def take(self, session_id: str | None) -> int | None:
        """The worker for a request of that session, idle no longer; ``None`` if all are busy."""
        if not self:
            return None
        if session_id is None:
            return self._next()
        last = self._last_worker.get(session_id)
        if last is not None and last in self:
            self.discard(last)
            worker_id = last
        else:
            worker_id = self._next()
        self._remember(session_id, worker_id)
        return worker_id

    def _next(self) -> int:
        if self._fresh:
            return self._fresh.popitem(last=False)[0]
        return self._warm.popitem()[0]

    def _remember(self, session_id: str, worker_id: int) -> None:
        self._last_worker[session_id] = worker_id
        self._last_worker.move_to_end(session_id)
        if len(self._last_worker) > self._remembered:
            self._last_worker.popitem(last=False)
