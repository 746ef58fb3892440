"""How much memory have the workers? What each has measured is told to the brain."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..core import events
from .incarnation import Incarnation
from .watcher import Watcher

__all__ = ["INTERVAL", "Measuring"]

#: Seconds between two rounds.
INTERVAL = 1.0


class Measuring:
    """Reads all status pages now and then; only where there is a limit."""

    def __init__(
        self,
        watcher: Watcher,
        workers: Callable[[], Iterable[Incarnation]],
        handle: Callable[[events.Event], None],
    ) -> None:
        self._watcher = watcher
        self._workers = workers
        self._handle = handle

    def begin(self) -> None:
        self._watcher.after(INTERVAL, self._round)

    def _round(self) -> None:
        for worker in list(self._workers()):
            rss = worker.status.account().rss
            if rss is not None:
                self._handle(events.WorkerMeasured(*worker.key, rss))
        self.begin()
