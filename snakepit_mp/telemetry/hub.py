"""How do events reach those who subscribed? Each has a bounded queue and a thread of its own.

Whoever publishes may hold a lock of the pool: it appends, and goes on. A subscriber may block, raise
or call the pool; all that suffers from it is its own queue.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable

from .events import Announcer, TelemetryEvent
from .logs import logger

__all__ = ["QUEUE_SIZE", "EventHub", "Subscription"]

#: Events that a subscriber may be behind; of more, the oldest are lost.
QUEUE_SIZE = 10_000


class Subscription:
    """What `Pool.subscribe` returns; also a context manager that closes it.

    ``dropped``: events that were lost because the callback did not keep up.
    """

    def __init__(
        self,
        callback: Callable[[TelemetryEvent], object],
        kinds: tuple[type[TelemetryEvent], ...],
        name: str,
        leave: Callable[[Subscription], None],
    ) -> None:
        self._callback = callback
        self._kinds = kinds
        self._leave = leave
        self._queue: deque[TelemetryEvent] = deque()
        # Reentrant: the garbage collector may be what publishes, in the middle of this.
        self._changed = threading.Condition(threading.RLock())
        self._ending = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, event: TelemetryEvent) -> None:
        if not isinstance(event, self._kinds):
            return
        with self._changed:
            if len(self._queue) >= QUEUE_SIZE:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(event)
            self._changed.notify()

    def end(self) -> None:
        """No more will come; the thread ends when it has delivered what it has."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def close(self) -> None:
        """Deliver nothing more; returns when the callback is not running, unless it is what calls."""
        self._leave(self)
        with self._changed:
            self._queue.clear()
        self.end()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        told = 0
        while (event := self._next()) is not None:
            if self.dropped > told:
                told = self.dropped
                logger.warning("a subscriber is too slow: it has missed %d events", told)
            try:
                self._callback(event)
            except BaseException:  # noqa: BLE001 - it is not the pool's end
                logger.exception("a subscriber of events raised")

    def _next(self) -> TelemetryEvent | None:
        with self._changed:
            while not self._queue:
                if self._ending:
                    return None
                self._changed.wait()
            return self._queue.popleft()


class EventHub(Announcer):
    """All subscriptions of a pool."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._closed = False
        self._owner = os.getpid()

    @property
    def active(self) -> bool:
        # A forked copy has the subscriptions, but none of their threads, and maybe a held lock.
        return bool(self._subscriptions) and os.getpid() == self._owner

    def subscribe(
        self,
        callback: Callable[[TelemetryEvent], object],
        kinds: tuple[type[TelemetryEvent], ...] = (),
    ) -> Subscription:
        """Call ``callback`` with every later event of these kinds, default all."""
        name = f"{self._name}-events"
        subscription = Subscription(callback, kinds or (TelemetryEvent,), name, self._leave)
        with self._lock:
            if self._closed:
                subscription.end()
            else:
                self._subscriptions += (subscription,)
        return subscription

    def publish(self, event: TelemetryEvent) -> None:
        object.__setattr__(event, "at", time.time())
        for subscription in self._subscriptions:
            subscription.put(event)

    def close(self) -> None:
        """There will be no more events: the threads end."""
        with self._lock:
            self._closed = True
            leaving, self._subscriptions = self._subscriptions, ()
        for subscription in leaving:
            subscription.end()

    def _leave(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)
