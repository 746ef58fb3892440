"""Who runs the callbacks of futures? A thread of its own, which the pool can do without.

A callback may block, call the pool again or raise what it likes: the threads that bring
replies and watch workers must not depend on it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from ..telemetry.life import Life
from ..telemetry.logs import logger

__all__ = ["CallbackThread"]


class CallbackThread:
    """Runs what it is given, one after the other; the thread starts with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inbox: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = False
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.life = Life()
        self._error: BaseException | None = None

    def run(self, callback: Callable[[], object]) -> None:
        """Have it run soon; what it raises is logged."""
        self._inbox.put(callback)
        with self._lock:
            start, self._started = not self._started, True
        if start:
            self.start_again()

    def start_again(self) -> None:
        """Have a thread, for what waits and what comes."""
        self._error = None
        self._thread = threading.Thread(target=self._live, name=self._name, daemon=True)
        self._thread.start()

    def failure(self) -> BaseException | None:
        """What the thread ended of; ``None`` while it lives, or is not needed."""
        if self._thread is None or self._thread.is_alive() or self._stopped:
            return None
        return self._error or RuntimeError("its thread has ended")

    @property
    def alive(self) -> bool:
        """Whether the thread was needed yet, and has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End the thread after what it was given so far."""
        self._stopped = True
        self._inbox.put(None)

    def _live(self) -> None:
        try:
            self._run_all()
        except BaseException as error:  # noqa: BLE001 - whoever looks after it is told
            self._error = error

    def _run_all(self) -> None:
        while (callback := self._inbox.get()) is not None:
            try:
                callback()
            except BaseException:  # noqa: BLE001  (SystemExit, too: it is not the pool's end)
                logger.exception("a callback of a future raised")
