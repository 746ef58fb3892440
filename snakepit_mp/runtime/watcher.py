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

#: Seconds; the kernel's timers of milliseconds end at 24 days.
_LONGEST_SLEEP = 3600.0


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
            self._watcher.cancelled_timers += 1


class _Release:
    """To be done also by a watcher that ends: somebody has given a descriptor away with it."""

    __slots__ = ("_fd", "_watcher", "close")

    def __init__(self, watcher: Watcher, fd: int, close: Callable[[], None]) -> None:
        self._watcher = watcher
        self._fd = fd
        self.close = close

    def __call__(self) -> None:
        self._watcher._unregister(self._fd, self.close)


class Watcher:
    """One thread that runs callbacks: of readable descriptors, of timers, and handed over ones.

    ``on_error`` gets what a callback raised; the thread then ends, and nobody is left to
    think that it still watches. What others call takes no lock: the garbage collector may
    call it, in any thread, in the middle of anything.
    """

    def __init__(self, name: str, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, self._woken)
        self._actions: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []  # the thread's own
        self._numbers = itertools.count()
        #: How many in the heap are cancelled, about; see `_prune`.
        self.cancelled_timers = 0
        self._stopping = False
        self._closed = False
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
        self._actions.append(action)
        self._wake()

    def after(self, delay: float, action: Callable[[], None]) -> Timer:
        """Run ``action`` in the watcher's thread after ``delay`` seconds."""
        timer = Timer(self, action)
        entry = (time.monotonic() + delay, next(self._numbers), timer)
        self.call(lambda: heapq.heappush(self._timers, entry))
        return timer

    def watch(self, fd: int, ready: Callable[[], None], *, writing: bool = False) -> None:
        """Call ``ready`` whenever ``fd`` can be read or, with ``writing``, written; a second
        call for the same descriptor replaces the first."""
        self.call(lambda: self._register(fd, ready, writing))

    def release(self, fd: int, close: Callable[[], None]) -> None:
        """Stop watching ``fd``, then ``close`` it: in this order, or its number could be
        another file's already when the selector lets go of it."""
        if self._closed:
            close()
        else:
            self.call(_Release(self, fd, close))

    def stop(self) -> None:
        """End the thread after what it has in hand; timers not due are dropped."""
        self._stopping = True
        self._wake()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread's end; whether it ended, or never began."""
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _wake(self) -> None:
        if self._closed or self.here():
            return
        try:
            self._wake_in.send(b"\0")
        except BlockingIOError:
            pass  # so many wakes are under way that it cannot sleep on
        except OSError:
            if not self._closed:  # it ended in this moment, and there is nobody to wake
                raise

    def _woken(self) -> None:
        self._wake_out.recv(4096)

    def _register(self, fd: int, ready: Callable[[], None], writing: bool = False) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        known = fd in self._selector.get_map()
        (self._selector.modify if known else self._selector.register)(fd, wanted, ready)

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
            self.close()

    def _turn(self) -> bool:
        self._run_actions()
        timeout = self._run_timers()
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
        while self._actions:
            self._actions.popleft()()

    def _run_timers(self) -> float | None:
        """Run what is due; seconds to sleep until the next, ``None`` if there is none."""
        self._prune()
        while self._timers:
            due, _, timer = self._timers[0]
            wait = due - time.monotonic()
            if wait > 0 and not timer.cancelled:
                return min(wait, _LONGEST_SLEEP)
            heapq.heappop(self._timers)
            action = timer.action
            if action is not None:
                action()
        return None

    def _prune(self) -> None:
        if self.cancelled_timers > max(_PRUNE_AT, len(self._timers) // 2):
            self.cancelled_timers = 0
            self._timers = [entry for entry in self._timers if not entry[2].cancelled]
            heapq.heapify(self._timers)

    def close(self) -> None:
        """Give the descriptors back; done by the thread at its end, if it was ever started."""
        self._closed = True
        while self._actions:
            action = self._actions.popleft()
            if isinstance(action, _Release):
                action.close()
        self._timers.clear()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()


def closing(fd: int) -> Callable[[], None]:
    """A function that closes ``fd``, for `Watcher.release`."""
    return lambda: os.close(fd)
