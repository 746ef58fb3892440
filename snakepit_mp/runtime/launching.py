"""How are the items of a map submitted? Together, while they are tiny."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from ..errors import CodecError
from ..lanes.mailbox import LARGEST_BATCH
from .batching import Batch, Batches, BatchFuture, Landing
from .commands import Command, Commands, Shared
from .mapped import Launched
from .pace import MOST, Pace
from .tickets import Tickets

__all__ = ["InBatches"]

#: Batches under way for each worker, as of items.
_PER_WORKER = 4


class InBatches:
    """The items of one map, in batches while they are tiny.

    ``window``: items under way, default four batches for each worker. ``submit`` takes what can
    only travel alone; ``check_open`` raises where no call can be made. With ``wait``, submitting blocks while the line is full.
    """

    def __init__(
        self,
        commands: Commands,
        tickets: Tickets,
        batches: Batches,
        submit: Callable[[Any], Future[Any]],
        check_open: Callable[[], None],
        *,
        shared: Shared,
        settings: dict[str, Any],
        workers: int,
        window: int | None,
        allow_pickle: bool,
        wait: bool,
    ) -> None:
        self._commands = commands
        self._tickets = tickets
        self._check_open = check_open
        self._batches = batches
        self._submit = submit
        self._shared = shared
        self._settings = settings
        self._flights = _PER_WORKER * workers
        self._window = window
        # Each worker is to have one at work, and one in line behind it.
        self._share = MOST if window is None else max(1, window // (2 * workers))
        self._allow_pickle = allow_pickle
        self._wait = wait
        self._pace = Pace()
        self._alone = False  # they can only travel by pickle

    def room(self, flying: Iterable[Future[Any]]) -> int:
        if self._window is None:
            return 0 if len(tuple(flying)) >= self._flights else self._pace.size
        under_way = sum(future.items if isinstance(future, BatchFuture) else 1 for future in flying)
        free, size = self._window - under_way, min(self._pace.size, self._share)
        # Or else each single item that lands would be followed by a single one.
        return size if size <= free else 0 if under_way else free

    def launch(self, items: list[Any]) -> Launched:
        futures: list[Future[Any]] = []
        try:
            if self._alone:
                futures.extend(map(self._submit, items))
            else:
                self._launch(items, futures)
        except Exception as error:  # noqa: BLE001 - it is raised when its turn comes
            return Launched(futures, error)
        return Launched(futures)

    def landed(self, future: BatchFuture) -> Landing:
        landing = future.landing()
        if landing.each is not None:
            self._pace.measured(landing.each)
        if landing.cut:
            self._pace.at_most(len(landing.outcomes))
        return landing

    def _launch(self, items: list[Any], futures: list[Future[Any]]) -> None:
        bound: list[Any] = []
        failure: Exception | None = None
        try:
            bound.extend(map(self._shared.bind, items))
        except Exception as error:  # noqa: BLE001 - those before it go first
            failure = error
        if bound:
            self._check_open()
            self._tickets.check_session(self._settings["session_id"])
            self._send(Batch(self._commands.call_of(self._shared), bound), items, futures)
        if failure is not None:
            raise failure

    def _send(self, batch: Batch, items: list[Any], futures: list[Future[Any]]) -> None:
        try:
            body = batch.body(allow_pickle=self._allow_pickle)
        except CodecError:
            self._alone = True
            futures.extend(map(self._submit, items[: len(batch.items)]))
            return
        count = len(batch.items)
        if len(body) <= LARGEST_BATCH:
            command = Command(self._shared.name, body, self._shared.spec)
            ticket = self._tickets.of(command, items=count, **self._settings)
            futures.append(self._batches.submit(batch, ticket, wait=self._wait))
        elif count == 1:
            futures.append(self._submit(items[0]))
        else:
            half = count // 2
            self._pace.at_most(half)
            self._send(Batch(batch.call, batch.items[:half]), items[:half], futures)
            self._send(Batch(batch.call, batch.items[half:]), items[half:count], futures)
