"""Does an idle worker still answer? It is asked now and then, and the brain is told if not.

What falls ill without ending: the interpreter of a worker may be held for ever by a thread that
a tool has left behind. Busy workers are asked too, but it is the brain that knows better than to
judge a long call by its silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ..core import events
from .incarnation import Incarnation
from .watcher import Watcher

__all__ = ["INTERVAL", "Heartbeat"]

#: Seconds between two questions.
INTERVAL = 5.0

#: What makes a round look late: the application itself was stopped, or starved.
_LATE = 2.0


class Heartbeat:
    """Asks all workers that serve; ``handle`` gets what their silence means."""

    def __init__(
        self,
        watcher: Watcher,
        workers: Callable[[], Iterable[Incarnation]],
        handle: Callable[[events.Event], None],
    ) -> None:
        self._watcher = watcher
        self._workers = workers
        self._handle = handle
        self._due = 0.0

    def begin(self) -> None:
        self._due = time.monotonic() + INTERVAL
        self._watcher.after(INTERVAL, self._round)

    def _round(self) -> None:
        # Answers may wait to be read by this thread: it must not judge when it is late itself.
        late = time.monotonic() > self._due + INTERVAL / _LATE
        for worker in list(self._workers()):
            if not worker.ready:
                continue
            if worker.asked_at is not None and not late:
                self._handle(events.WorkerSilent(*worker.key, stopped=False))
            worker.ask()
        self.begin()
