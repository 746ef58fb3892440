"""Who waits for exits, channels and timers? One thread, on all of them at once.

Nothing is polled: the thread sleeps in the selector until a descriptor is readable, the
nearest timer is due, or somebody hands it a function to run.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Timer", "Watcher", "closing"]

#: Cancelled timers stay in the heap until they are due; beyond this many it is rebuilt.
_PRUNE_AT = 256


class Timer:
    """Something due once; `cancel` makes it nothing."""

    __slots__ = ("_watcher", "action", "cancelled")

    def __init__(self, watcher: Watcher, action: Callable[[], None]) -> None:
        self._watcher = watcher
        self.action: Callable[[], None] | None = action
        self.cancelled = False

    def cancel(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self.action = None  # a long timer must not keep its request alive
            self._watcher._forget_one()


class Watcher:
    """One thread that runs callbacks: of readable descriptors, of timers, and handed over ones.

    ``on_error`` gets what a callback raised; the thread then ends, and nobody is left to
    think that it still watches.
    """

    def __init__(self, name: str, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, self._woken)
        self._lock = threading.Lock()
        self._actions: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        self._stopping = False
        self._closed = False
        self._wake_pending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def here(self) -> bool:
        """Whether the caller is the watcher's own thread."""
        return threading.current_thread() is self._thread

    def call(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the watcher's thread, soon. Any thread may ask."""
        with self._lock:
            self._actions.append(action)
        self._wake()

    def after(self, delay: float, action: Callable[[], None]) -> Timer:
        """Run ``action`` in the watcher's thread after ``delay`` seconds."""
        timer = Timer(self, action)
        entry = (time.monotonic() + delay, next(self._numbers), timer)
        with self._lock:
            heapq.heappush(self._timers, entry)
            nearest = self._timers[0] is entry
        if nearest:
            self._wake()
        return timer

    def watch(self, fd: int, readable: Callable[[], None]) -> None:
        """Call ``readable`` whenever ``fd`` can be read."""
        self.call(lambda: self._register(fd, readable))

    def release(self, fd: int, close: Callable[[], None]) -> None:
        """Stop watching ``fd``, then ``close`` it: in this order, or its number could be
        another file's already when the selector lets go of it."""
        self.call(lambda: self._unregister(fd, close))

    def stop(self) -> None:
        """End the thread after what it has in hand; timers not due are dropped."""
        with self._lock:
            self._stopping = True
        self._wake()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread's end; whether it ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _forget_one(self) -> None:
        with self._lock:
            self._cancelled += 1
            if self._cancelled > _PRUNE_AT and self._cancelled * 2 > len(self._timers):
                self._timers = [entry for entry in self._timers if not entry[2].cancelled]
                heapq.heapify(self._timers)
                self._cancelled = 0

    def _wake(self) -> None:
        with self._lock:
            # One byte at most is under way, so the send can neither block nor be refused.
            if not (self._wake_pending or self._closed or self.here()):
                self._wake_pending = True
                self._wake_in.send(b"\0")

    def _woken(self) -> None:
        with self._lock:
            self._wake_pending = False
            self._wake_out.recv(64)

    def _register(self, fd: int, readable: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, readable)

    def _unregister(self, fd: int, close: Callable[[], None]) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        close()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001 (told to whom it concerns)
            self._on_error(error)
        finally:
            self._close()

    def _turn(self) -> bool:
        self._run_actions()
        timeout = self._run_timers()
        with self._lock:
            if self._actions:
                timeout = 0.0
            elif self._stopping:
                return False
        for key, _ in self._selector.select(timeout):
            # A callback of this round may have let go of a later one of the same round.
            if key.fd in self._selector.get_map():
                key.data()
        return True

    def _run_actions(self) -> None:
        while True:
            with self._lock:
                if not self._actions:
                    return
                action = self._actions.popleft()
            action()

    def _run_timers(self) -> float | None:
        """Run what is due; seconds until the next, ``None`` if there is none."""
        while True:
            with self._lock:
                if not self._timers:
                    return None
                due, _, timer = self._timers[0]
                wait = due - time.monotonic()
                if wait > 0 and not timer.cancelled:
                    return wait
                heapq.heappop(self._timers)
                if timer.cancelled:
                    self._cancelled = max(0, self._cancelled - 1)
                action = timer.action
            if action is not None:
                action()

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            self._actions.clear()
            self._timers.clear()
            self._selector.close()
            self._wake_in.close()
            self._wake_out.close()


def closing(fd: int) -> Callable[[], None]:
    """A function that closes ``fd``, for `Watcher.release`."""
    return lambda: os.close(fd)
