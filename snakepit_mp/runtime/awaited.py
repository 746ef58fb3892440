"""How does an event loop wait for calls? By what others hand to it; no thread is kept waiting.

Cancelling a task cancels its work. What is told from other threads may come after the loop was
closed; then there is nobody to be told.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from typing import Any

from ..core import events
from ..errors import CodecError
from ..lanes.envelope import Frame, Kind
from ..lanes.lane import BegunStream, LaneBroken
from .batching import BatchFuture
from .calls import Calls, submitted
from .engine import Engine
from .mapped import GATHERING, Launcher, given, outcomes, withdraw
from .waiter import Grant, PoolFuture, Ticket, Waiter

__all__ = ["AwaitedStream", "amapped", "awaited"]


def _soon(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    """Run it in the loop's thread, if there is a loop yet."""
    try:
        loop.call_soon_threadsafe(action)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _settled(future: Future[Any]) -> asyncio.Future[None]:
    """What this loop can wait for."""
    assert isinstance(future, PoolFuture)
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
    launch: Callable[[], Launcher],
    items: AsyncIterable[Any] | Iterable[Any],
    ordered: bool,
    on_error: str,
) -> AsyncGenerator[Any, None]:
    """The result of each item; see `mapped`."""
    source = _iterated(items)
    flying: deque[Future[Any]] = deque()
    told: dict[Future[Any], asyncio.Future[None]] = {}
    failure: BaseException | None = None
    launcher = launch()
    try:
        failure = await _fill(flying, launcher, source)
        while flying:
            future = await _next_done(flying, told, ordered)
            values, found = outcomes(future, flying, launcher)
            for value in itertools.chain(values, given(found, on_error)):
                yield value
            if failure is None:
                failure = await _fill(flying, launcher, source)
        if failure is not None:
            raise failure
    except asyncio.CancelledError:
        for future in reversed(flying):  # from the end, so that none of them is begun
            _cancel(future)
        raise
    finally:
        del failure  # its traceback keeps this frame
        withdraw(flying)


def _cancel(future: Future[Any]) -> None:
    """With all that was split off from it, seen or not."""
    if isinstance(future, BatchFuture):
        future.abandon()
    if not future.cancel() and isinstance(future, BatchFuture):
        for each in reversed(future.split_off()):
            _cancel(each)


async def _fill(
    flying: deque[Future[Any]], launcher: Launcher, source: AsyncIterator[Any]
) -> BaseException | None:
    while (room := launcher.room(flying)) > 0:
        gathered, failure = await _gather(source, room)
        if not gathered:
            return failure
        launched = launcher.launch(gathered)
        flying.extend(launched.futures)
        if launched.failure is not None or failure is not None:
            return launched.failure or failure
    return None


async def _gather(source: AsyncIterator[Any], most: int) -> tuple[list[Any], BaseException | None]:
    """As for `mapped`, but what comes slowly is waited for alone."""
    gathered: list[Any] = []
    until = time.monotonic() + GATHERING
    try:
        async for item in source:
            gathered.append(item)
            if len(gathered) >= most or time.monotonic() > until:
                break
    except Exception as error:  # noqa: BLE001 - it is raised when its turn comes
        return gathered, error
    return gathered, None


async def _iterated(items: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _next_done(
    flying: deque[Future[Any]], told: dict[Future[Any], asyncio.Future[None]], ordered: bool
) -> Future[Any]:
    """``told``: what is waited for already, since each wait leaves a callback with a future."""
    if ordered:
        await _settled(flying[0])
        return flying.popleft()
    for each in flying:
        if each not in told:
            told[each] = _settled(each)
    await asyncio.wait(told.values(), return_when=asyncio.FIRST_COMPLETED)
    found = next(each for each in flying if told[each].done())
    del told[found]
    flying.remove(found)
    return found


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
            self._engine.places.forget(waiter)

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
