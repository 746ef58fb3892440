"""How does an event loop wait for calls? By what others hand to it; no thread is kept waiting.

Cancelling a task cancels its work. What is told from other threads may come after the loop was
closed; then there is nobody to be told.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

from ..core import events
from ..errors import CodecError
from ..lanes.envelope import Frame, Kind
from ..lanes.lane import BegunStream, LaneBroken
from .calls import Calls, submitted
from .engine import Engine
from .waiter import Grant, PoolFuture, Ticket, Waiter

__all__ = ["AwaitedStream", "amapped", "awaited"]

_Flying = deque[tuple[PoolFuture, asyncio.Future[None]]]


def _soon(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    """Run it in the loop's thread, if there is a loop yet."""
    try:
        loop.call_soon_threadsafe(action)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _settled(future: PoolFuture) -> asyncio.Future[None]:
    """What this loop can wait for."""
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def tell() -> None:
        if not told.done():
            told.set_result(None)

    future.when_settled(lambda: _soon(loop, tell))
    return told


async def awaited(future: PoolFuture) -> Any:
    """Its result; the work is cancelled with whoever waits for it."""
    try:
        await _settled(future)
    finally:
        future.cancel()  # without effect after its end
    return future.result()


async def amapped(
    submit: Callable[[Any], PoolFuture],
    items: AsyncIterable[Any] | Iterable[Any],
    size: int,
    ordered: bool,
    on_error: str,
) -> AsyncGenerator[Any, None]:
    """The results of ``submit(item)`` for each item, at most ``size`` of them in flight."""
    source = _iterated(items)
    flying: _Flying = deque()
    try:
        while True:
            await _fill(flying, submit, source, size)
            if not flying:
                return
            future = await _next_done(flying, ordered)
            for result in _told(future, on_error):
                yield result
    except asyncio.CancelledError:
        for future, _ in reversed(flying):  # from the end, so that none of them is begun
            future.cancel()
        raise
    finally:
        for future, _ in flying:
            if not future.running():  # to stop one that runs would cost its worker
                future.cancel()


def _told(future: PoolFuture, on_error: str) -> list[Any]:
    """What the map gives for it, if anything; raises its error where that ends the map."""
    error = future.exception()
    if error is None:
        return [future.result()]
    if on_error == "raise":
        raise error
    return [error] if on_error == "return" else []


async def _fill(
    flying: _Flying, submit: Callable[[Any], PoolFuture], source: AsyncIterator[Any], size: int
) -> None:
    while len(flying) < size:
        try:
            item = await anext(source)
        except StopAsyncIteration:
            return
        future = submit(item)
        flying.append((future, _settled(future)))


async def _iterated(items: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _next_done(flying: _Flying, ordered: bool) -> PoolFuture:
    if ordered:
        await flying[0][1]
        return flying.popleft()[0]
    await asyncio.wait([told for _, told in flying], return_when=asyncio.FIRST_COMPLETED)
    found = next(each for each in flying if each[1].done())
    flying.remove(found)
    return found[0]


class _StreamWaiter(Waiter):
    """The place of a stream that a loop waits for: what comes goes into its inbox."""

    def __init__(self, ticket: Ticket) -> None:
        super().__init__(ticket)
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._stream: BegunStream | None = None
        self._closed = False
        #: A frame with its grant, or the last reply, or why there is none.
        self.inbox: asyncio.Queue[tuple[Grant, Frame | LaneBroken] | Frame | BaseException]
        self.inbox = asyncio.Queue()

    def granted(self, grant: Grant) -> bool:
        with self._lock:
            if self._closed:
                return False
            try:
                self._stream = grant.lane.begin_stream(
                    self.ticket.frame(grant.attempt), lambda frame: self._put((grant, frame))
                )
            except CodecError as error:  # too large for the lane
                self._put(error)
                return False
        return True

    def admitted(self) -> None:
        pass  # it waits for its items anyway

    def failed(self, error: BaseException) -> None:
        self._put(error)

    def delivered(self) -> None:
        self._put(self.reply)

    def more(self) -> None:
        if self._stream is not None:
            self._stream.more()

    def stop(self) -> None:
        """Stop the tool, if it has not ended."""
        if self._stream is not None:
            self._stream.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self.stop()

    def _put(self, item: tuple[Grant, Frame | LaneBroken] | Frame | BaseException) -> None:
        _soon(self._loop, functools.partial(self.inbox.put_nowait, item))


class AwaitedStream:
    """Runs streams of one pool for event loops."""

    def __init__(self, engine: Engine, calls: Calls) -> None:
        self._engine = engine
        self._calls = calls

    async def items(self, ticket: Ticket) -> AsyncGenerator[Any, None]:
        """The items as they come; closing the generator stops the tool."""
        waiter = _StreamWaiter(ticket)
        self._engine.register(waiter)
        try:
            self._engine.handle(submitted(ticket))
            progressed = False
            while True:
                frame = await self._next_frame(waiter)
                if frame is None:
                    continue
                reply = self._calls.decode(frame[1])
                if reply.kind is not Kind.ITEM:
                    final = self._calls.replied_finally(waiter, frame[0], frame[1])
                    if final and reply.error is not None:
                        raise reply.error
                    if final:
                        return
                    continue
                if not progressed:
                    progressed = True
                    self._engine.handle(events.RequestProgressed(ticket.request_id))
                waiter.more()
                yield reply.value
        finally:
            waiter.close()
            # Without effect if it has ended.
            self._engine.handle(events.RequestCancelled(ticket.request_id))
            self._engine.forget(ticket.request_id)

    async def _next_frame(self, waiter: _StreamWaiter) -> tuple[Grant, Frame] | None:
        """``None`` if the lane broke, and the brain decides what is next; raises the failure."""
        item = await self._next_item(waiter)
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, bytes | memoryview):  # of the last of several attempts
            error = self._calls.decode(item).error
            assert error is not None  # only failed attempts are asked about
            raise error
        grant, frame = item
        if isinstance(frame, LaneBroken):
            self._calls.broke(waiter.ticket, grant)
            return None
        return grant, frame

    async def _next_item(
        self, waiter: _StreamWaiter
    ) -> tuple[Grant, Frame | LaneBroken] | Frame | BaseException:
        """What comes next. Of the limits, each is reported to the brain, which may know better."""
        # By the watcher, who also interrupts the tool: so the failure is in the inbox before what
        # the tool says to that.
        ticket, watcher = waiter.ticket, self._engine.watcher
        timers = []
        if ticket.queue_deadline is not None:
            expired = functools.partial(
                self._engine.handle, events.QueueTimeExpired(ticket.request_id)
            )
            timers.append(watcher.after(ticket.queue_deadline - time.monotonic(), expired))
        if ticket.timeout is not None:
            timers.append(watcher.after(ticket.timeout, functools.partial(self._overdue, waiter)))
        try:
            return await waiter.inbox.get()
        finally:
            for timer in timers:
                timer.cancel()

    def _overdue(self, waiter: _StreamWaiter) -> None:
        self._engine.handle(events.DeadlineExpired(waiter.ticket.request_id))
        waiter.stop()
