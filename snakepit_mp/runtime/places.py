"""Who waits for which request? The places of all callers, and what they are told of the brain."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..core import events, instructions
from ..core.pool_state import PoolState
from .diagnosis import Deathbook, explained
from .incarnation import Incarnation
from .waiter import Grant, Waiter
from .watcher import Watcher

__all__ = ["Places"]


class Places:
    """By the numbers of their requests. ``lock`` is the engine's, which is held where the brain is
    asked; ``find`` gives a living worker."""

    def __init__(
        self,
        state: PoolState,
        watcher: Watcher,
        deathbook: Deathbook,
        *,
        lock: threading.Lock,
        handle: Callable[[events.Event], None],
        find: Callable[[int, int], Incarnation | None],
    ) -> None:
        self._state = state
        self._watcher = watcher
        self._deathbook = deathbook
        self._lock = lock
        self._handle = handle
        self._find = find
        self._waiters: dict[int, Waiter] = {}

    def add(self, waiter: Waiter) -> None:
        self._waiters[waiter.ticket.request_id] = waiter

    def of(self, request_id: int | None) -> Waiter | None:
        return None if request_id is None else self._waiters.get(request_id)

    def all(self) -> list[Waiter]:
        return list(self._waiters.values())

    def forget(self, waiter: Waiter) -> None:
        # Without the lock: garbage may be what forgets.
        if self._waiters.get(waiter.ticket.request_id) is waiter:
            self._waiters.pop(waiter.ticket.request_id, None)

    def renumber(self, waiter: Waiter, request_id: int) -> None:
        """From here on it is the place of that request."""
        with self._lock:
            self._waiters.pop(waiter.ticket.request_id, None)
            waiter.ticket = waiter.ticket._replace(request_id=request_id)
            self._waiters[request_id] = waiter

    def held(
        self, request_id: int, grant: Grant, meanwhile: Callable[[], None] = lambda: None
    ) -> bool:
        """Whether the worker has the request in hand; if so, ``meanwhile()`` is called before that
        can change."""
        with self._lock:
            held = self._state.request_in_hand(grant.worker_id, grant.incarnation) == request_id
            if held:
                meanwhile()
        return held

    def died_untouched(self, worker_id: int, incarnation: int) -> bool:
        """That worker has ended, which the brain is told next: see `Waiter.worker_died`."""
        with self._lock:
            request_id = self._state.request_in_hand(worker_id, incarnation)
        waiter = self.of(request_id)
        return waiter is not None and waiter.worker_died(worker_id, incarnation)

    # -- instructions ------------------------------------------------------------------

    def grant(self, instruction: instructions.GrantRequest) -> None:
        key = (instruction.worker_id, instruction.incarnation)
        waiter = self._waiters.get(instruction.request_id)
        incarnation = self._find(*key)
        if incarnation is None or incarnation.lane is None:
            return  # it died in between; that event settles the request
        if waiter is not None:
            waiter.admitted()  # whose own instruction may be late, and come when all is over
        grant = Grant(*key, instruction.attempt, incarnation.lane)
        if not instruction.ahead:
            self._hand_over(instruction.request_id, grant, waiter)
            return
        others = [self._waiters.get(number) for number in instruction.ahead]
        for other in others:
            if other is not None:
                other.admitted()
        if waiter is None or not waiter.granted_with(grant, others):
            self._watcher.call(lambda: self._grant_alone(instruction, grant))

    def _grant_alone(self, instruction: instructions.GrantRequest, grant: Grant) -> None:
        """Not with those that should go with it, which wait again. In the watcher's thread, where
        its worker cannot be told to be dead meanwhile."""
        if not self.held(instruction.request_id, grant):
            return
        found = (self._waiters.get(number) for number in instruction.ahead)
        rest = tuple(one.ticket.request() for one in found if one and not one.unwanted())
        self._handle(events.RequestSplit(instruction.request_id, 0, rest))
        self._hand_over(instruction.request_id, grant, self.of(instruction.request_id))

    def _hand_over(self, request_id: int, grant: Grant, waiter: Waiter | None) -> None:
        if waiter is None or not waiter.granted(grant):
            gone = waiter is None or waiter.unwanted()
            completed = events.RequestCompleted(request_id, *grant[:2], unwanted=gone)
            # Not from here: the next one may be as unwanted, and the one after that.
            self._watcher.call(lambda: self._handle(completed))

    def admit(self, instruction: instructions.AdmitRequest) -> None:
        waiter = self._waiters.get(instruction.request_id)
        if waiter is not None:
            waiter.admitted()

    def deliver(self, instruction: instructions.DeliverReply) -> None:
        waiter = self._waiters.get(instruction.request_id)
        if waiter is not None:
            waiter.delivered()

    def fail(self, instruction: instructions.FailRequest) -> None:
        waiter = self._waiters.get(instruction.request_id)
        if waiter is None:
            return
        failure = instruction.failure
        if isinstance(failure, instructions.Deaths):
            self._deathbook.report(waiter.ticket, failure, waiter.failed)
        else:
            waiter.failed(explained(failure, waiter.ticket))
