"""What is called from an event loop? The part of `Pool` that is awaited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import Any

from ..adapter import tool_name_of
from ..config import PoolConfig, check_count
from ..errors import ConfigError
from .calls import Calls
from .commands import Commands
from .engine import Engine
from .mapped import ON_ERROR
from .waiter import PoolFuture, Ticket

__all__ = ["AsyncPool"]

#: Items in flight for each worker in a map, unless a window is given.
_WINDOW_PER_WORKER = 4


class AsyncPool(ABC):
    """The calls of a pool for asyncio; `Pool` has all the others."""

    config: PoolConfig
    _engine: Engine
    _commands: Commands
    _calls: Calls

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
        )
        from .awaited import awaited  # asyncio is much to import for those who do without

        return await awaited(self._calls.submit(ticket, wait=False))

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

        size, args_of = self._mapping(command, window, on_error)

        def submit(item: Any) -> PoolFuture:
            ticket = self._ticket(
                command, args_of(item), session_id=session_id, timeout=timeout, retries=retries
            )
            return self._calls.submit(ticket, wait=False)

        return amapped(submit, iterable, size, ordered, on_error)

    def _mapping(
        self, command: str | Callable[..., Any], window: int | None, on_error: str
    ) -> tuple[int, Callable[[Any], object]]:
        """How many items are in flight, and what an item is as ``args``."""
        self._check_open()
        if on_error not in ON_ERROR:
            raise ConfigError(f"on_error must be one of {', '.join(ON_ERROR)}, not {on_error!r}")
        if window is not None:
            check_count("map", "window", window)
        plain = callable(command) and tool_name_of(command) is None
        size = window or _WINDOW_PER_WORKER * self.config.workers
        return size, (lambda item: (item,)) if plain else (lambda item: item)

    async def _aticket(
        self, command: str | Callable[..., Any], args: object, **settings: Any
    ) -> Ticket:
        self._check_open()
        if self._engine.tools() is None:  # the import of the adapter tells them
            import asyncio

            await asyncio.to_thread(self._commands.tools, settings["timeout"])
        return self._ticket(command, args, **settings)
