"""Who removes what has expired? A thread of the application that sweeps at intervals."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import StoreBusy, StoreClosed, StoreError, StoreFull
from ..telemetry.events import Announcer, SessionsExpired
from ..telemetry.life import Life
from ..telemetry.logs import logger
from .layout import STRIPE_COUNT
from .raw_store import PyRawStore

__all__ = ["Janitor", "Sweeper"]

_T = TypeVar("_T")

#: Seconds that the search for room in a full store may take.
_ROOM_BUDGET = 0.5

#: Seconds until the next try, at most, of a janitor that fails again and again.
_LONGEST_PAUSE = 30.0


class Sweeper:
    """Removes what has expired, and what dead processes left, a bit at a time."""

    def __init__(self, raw: PyRawStore, announcer: Announcer) -> None:
        self._raw = raw
        self._announcer = announcer
        self._next = 0

    def sweep(self, budget: float) -> int:
        """Remove expired sessions, stripe by stripe, for about ``budget`` seconds.

        Goes on where the last sweep stopped, at most once around; also finishes what dead
        processes left. Returns how many sessions were removed.
        """
        removed = 0
        deadline = time.monotonic() + budget
        self._raw.collect()
        for _ in range(STRIPE_COUNT):
            stripe = self._next
            self._next = (stripe + 1) % STRIPE_COUNT
            removed += self._raw.sweep(stripe)
            self._tidy(stripe, deadline)
            if time.monotonic() > deadline:
                break
        if removed:
            self._announcer.publish(SessionsExpired(removed))
        return removed

    def tidy(self, stripe: int, budget: float) -> None:
        """Free what was deleted in a stripe, for about ``budget`` seconds, if that can be done now."""
        with contextlib.suppress(StoreBusy, StoreFull):  # then whoever comes next does it
            self._tidy(stripe, time.monotonic() + budget)

    def _tidy(self, stripe: int, deadline: float) -> None:
        while self._raw.tidy(stripe) and time.monotonic() < deadline:
            pass

    def with_room(self, attempt: Callable[[], _T], refusal: type[StoreError] = StoreFull) -> _T:
        """Try once more after removing what has expired, where there was no room."""
        try:
            return attempt()
        except (StoreFull, refusal):
            self.sweep(_ROOM_BUDGET)
        return attempt()


class Janitor:
    """Calls ``sweep`` every ``interval`` seconds, in a daemon thread, until stopped.

    Of all processes that have one for the same store the one that ``leads`` does it; it asks
    at every turn, so that another takes over when that one is gone. An error is logged and tried
    again, each time after a longer pause: meanwhile what has expired is as good as gone as well.
    """

    def __init__(
        self,
        sweep: Callable[[], object],
        interval: float,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sweep = sweep
        self._leads = leads
        self._interval = interval
        self.life = Life()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snakepit_mp-janitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when the thread has ended."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._interval
        while not self._stopping.wait(pause):
            try:
                if self._leads():
                    self._sweep()
                pause = self._interval
            except StoreBusy as error:  # the others are swept next time
                logger.warning("the sweep for expired sessions was cut short: %s", error)
            except StoreClosed:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, somebody has to sweep
                pause = max(self._interval, min(2 * pause, _LONGEST_PAUSE))
                self.life.restarted(error)
                logger.exception("the janitor failed, and begins again in %.3g s", pause)
