"""Who removes what has expired? A thread of the application that sweeps at intervals."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import StoreBusy, StoreClosed
from ..telemetry.logs import logger

__all__ = ["Janitor"]


class Janitor:
    """Calls ``sweep`` every ``interval`` seconds, in a daemon thread, until stopped."""

    def __init__(self, sweep: Callable[[], object], interval: float) -> None:
        self._sweep = sweep
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snakepit_mp-janitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when the thread has ended."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self._sweep()
            except StoreBusy as error:  # the others are swept next time
                logger.warning("the sweep for expired sessions was cut short: %s", error)
            except StoreClosed:
                return
