"""What is called from an event loop? The part of `Pool` that is awaited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import Any

from ..adapter import tool_name_of
from ..config import PoolConfig, check_count
from ..errors import ConfigError
from ..lanes.choice import chosen_lane
from ..lanes.mailbox import MailboxLane
from .batching import Batches
from .calls import Calls
from .commands import Command, Commands, Shared
from .engine import Engine
from .futures import Futures
from .launching import InBatches
from .mapped import ON_ERROR, Launcher, OneByOne
from .tickets import Tickets
from .waiter import PoolFuture, Ticket

__all__ = ["AsyncPool"]

#: Items in flight for each worker in a map, unless a window is given.
_WINDOW_PER_WORKER = 4
#: Seconds; with less time, each item of a map gets a clock of its own from the start.
_SHORT = 0.5


class AsyncPool(ABC):
    """The calls of a pool for asyncio; `Pool` has all the others."""

    config: PoolConfig
    _engine: Engine
    _commands: Commands
    _calls: Calls
    _futures: Futures
    _tickets: Tickets
    _batches: Batches

    @abstractmethod
    def _ticket(self, command: str | Callable[..., Any], args: object, **settings: Any) -> Ticket:
        """A ticket for a call of an open pool."""

    @abstractmethod
    def _check_open(self) -> None:
        """Raise if no call can be made."""

    async def aexecute(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> Any:
        """As `execute`, awaited. Cancelling the task interrupts the tool."""
        ticket = await self._aticket(
            command,
            args,
            session_id=session_id,
            timeout=timeout,
            retries=retries,
            affinity=affinity,
            apart=True,
        )
        from .awaited import awaited  # asyncio is much to import for those who do without

        return await awaited(self._futures.submit(ticket, wait=False))

    async def astream(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> AsyncGenerator[Any, None]:
        """As `stream`, for ``async for``. Closing the generator stops the tool."""
        ticket = await self._aticket(
            command,
            args,
            session_id=session_id,
            timeout=timeout,
            retries=retries,
            affinity=affinity,
            streaming=True,
        )
        from .awaited import AwaitedStream

        async with aclosing(AwaitedStream(self._engine, self._calls).items(ticket)) as items:
            async for item in items:
                yield item

    def amap(
        self,
        command: str | Callable[..., Any],
        iterable: AsyncIterable[Any] | Iterable[Any],
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        window: int | None = None,
        ordered: bool = True,
        on_error: str = "raise",
    ) -> AsyncGenerator[Any, None]:
        """As `map`, for ``async for``; ``iterable`` may be an asynchronous one.

        If the task is cancelled, all that is in flight is; see `map` for other early ends.
        """
        from .awaited import amapped

        launch = self._launcher(
            command,
            window,
            on_error,
            wait=False,
            session_id=session_id,
            timeout=timeout,
            retries=retries,
        )
        return amapped(launch, iterable, ordered, on_error)

    def _launcher(
        self,
        command: str | Callable[..., Any],
        window: int | None,
        on_error: str,
        *,
        wait: bool,
        **settings: Any,
    ) -> Callable[[], Launcher]:
        """What makes the launcher of a map, when its first item is asked for."""
        self._check_open()
        if on_error not in ON_ERROR:
            raise ConfigError(f"on_error must be one of {', '.join(ON_ERROR)}, not {on_error!r}")
        if window is not None:
            check_count("map", "window", window)
        plain = callable(command) and tool_name_of(command) is None

        def submit(item: Any) -> PoolFuture:
            ticket = self._ticket(command, (item,) if plain else item, **settings)
            return self._futures.submit(ticket, wait=wait)

        def launcher() -> Launcher:
            shared = self._shared(command, settings)
            if shared is None:
                return OneByOne(submit, window or _WINDOW_PER_WORKER * self.config.workers)
            return InBatches(
                self._commands,
                self._tickets,
                self._batches,
                submit,
                self._check_open,
                shared=shared,
                settings=settings,
                workers=self.config.workers,
                window=window,
                allow_pickle=self.config.allow_pickle,
                wait=wait,
            )

        return launcher

    def _shared(self, command: str | Callable[..., Any], settings: dict[str, Any]) -> Shared | None:
        """What a map's calls have in common; ``None`` where each must be a request of its own.

        That is where requests are counted or looked at one by one (`BreakerPolicy`,
        ``max_tasks_per_worker``, subscribers), may be retried, stream, stick to a worker or have
        but a short time, and on lanes that have no journal.
        """
        config = self.config
        single = (
            config.breaker is not None
            or config.max_tasks_per_worker is not None
            or config.affinity != "hint"
            or self._engine.hub.active
            or chosen_lane(config.lane) != MailboxLane.name
        )
        if single:
            return None
        self._check_open()
        session_id, timeout, retries = (
            settings[name] for name in ("session_id", "timeout", "retries")
        )
        shared = self._commands.share(command, session_id=session_id, timeout=timeout)
        if shared is None:
            return None
        ready = Command(shared.name, b"", shared.spec)
        limit = self._tickets.limit(ready, timeout)
        single = (
            bool(ready.retries if retries is None else retries)
            or (shared.spec is not None and shared.spec.streaming)
            or (limit is not None and limit < _SHORT)
        )
        return None if single else shared

    async def _aticket(
        self, command: str | Callable[..., Any], args: object, **settings: Any
    ) -> Ticket:
        self._check_open()
        if self._engine.tools() is None:  # the import of the adapter tells them
            import asyncio

            await asyncio.to_thread(self._commands.tools, settings["timeout"])
        return self._ticket(command, args, **settings)
