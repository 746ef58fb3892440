"""Who performs what the brain decided? The engine: events go in, instructions are carried out.

`Engine.handle` is the only caller of ``PoolState.handle``: lock, decide, unlock, perform.
Instructions of two threads may overtake each other; each names the incarnation or the
request it is about, so that a late one meets nothing and does nothing.

An error inside the brain or the watcher ends the pool at once (`abort`): every waiting call
gets it as the cause, no worker is left, and nobody waits for ever.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..adapter import ToolSpec
from ..config import PoolConfig
from ..core import events, instructions
from ..core.pool_state import Counters, PoolState, WorkerRow
from ..core.recycling import WorkerLimits
from ..core.requests import Prefetch
from ..errors import PoolClosed, PoolError
from ..lanes.choice import chosen_lane
from ..lanes.waits import wait_for
from ..telemetry.events import WorkerExited
from ..telemetry.hub import EventHub
from ..telemetry.logs import logger
from .callbacks import CallbackThread
from .cleanup import SocketDirectory, end_at_exit
from .components import Component, Components, component_branch
from .diagnosis import Deathbook
from .forkserver import Exited, Forked, ForkRefused, ForkServer, Stopped
from .heartbeat import Heartbeat
from .incarnation import ExitStatus, Incarnation
from .measuring import Measuring
from .pace import LARGEST_TOGETHER, Paces
from .places import Places
from .plan import ForkPlan
from .reloading import Reloading
from .rows import WorkerInfo, row_of
from .servers import Servers
from .tree import Branch, server_branch
from .waiter import Grant, Ticket, Waiter
from .watcher import Watcher
from .workers import Workers

__all__ = ["Engine"]


def _jitter() -> float:
    return random.uniform(-1.0, 1.0)  # noqa: S311 (it spreads restarts, it keeps no secret)


def _brain(config: PoolConfig, hub: EventHub, paces: Paces) -> PoolState:
    return PoolState(
        workers=config.workers,
        queue_size=config.queue_size,
        on_full=config.on_full,
        restart=config.restart,
        poison_after=config.poison_after,
        start_timeout=config.start_timeout,
        grace=config.grace,
        jitter=_jitter,
        breaker=config.breaker,
        limits=WorkerLimits(
            config.max_tasks_per_worker, config.max_worker_age, config.max_worker_rss
        ),
        announcer=hub,
        prefetch=Prefetch(paces.most, LARGEST_TOGETHER),
    )


class Engine:
    """The running half of a pool: one brain, one watcher, one fork server, its workers."""

    def __init__(
        self,
        config: PoolConfig,
        plan: ForkPlan,
        store_descriptors: tuple[int, ...],
        directory: SocketDirectory,
        hub: EventHub,
        on_end: Callable[[], None],
    ) -> None:
        self.config = config
        self._on_end = on_end
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._changed = threading.Condition(threading.Lock())
        self.hub = hub
        self.paces = Paces()
        self._state = _brain(config, self.hub, self.paces)
        self.watcher = Watcher(f"snakepit-mp-{config.name}", self.abort)
        self.callbacks = CallbackThread(f"snakepit-mp-{config.name}-callbacks")
        self.deathbook = Deathbook(self.watcher)
        self._components = Components(self.watcher, config.restart, _jitter)
        self.supervise("callbacks thread", self.callbacks)
        self._workers = Workers(
            config,
            directory,
            self.watcher,
            self.deathbook,
            lock=self._lock,
            server=lambda generation: self._servers.get(generation),
            decide=self.decide,
            attempt_in_hand=self._state.attempt_in_hand,
            learn_tools=self.learn_tools,
            bury_server=lambda generation: self._servers.bury(generation),
            apart=self.callbacks.run,
            untouched=lambda *key: self.places.died_untouched(*key),
        )
        self._servers = self._make_servers(plan, store_descriptors)
        self.places = Places(
            self._state,
            self.watcher,
            self.deathbook,
            lock=self._lock,
            handle=self.handle,
            find=self._workers.get,
        )
        self._reloading: Reloading | None = None
        self._tools: Mapping[str, ToolSpec] | None = None
        self._broken: BaseException | None = None
        self._ending = False
        self._idle = False
        self.ended = threading.Event()
        self._performers = self._all_performers()

    def _make_servers(self, plan: ForkPlan, store_descriptors: tuple[int, ...]) -> Servers:
        return Servers(
            plan,
            store_descriptors,
            self.config.grace,
            self.watcher,
            lock=self._lock,
            handle=self.handle,
            ending=lambda: self._ending,
            learn_tools=self.learn_tools,
            told_of_worker=self._told_of_worker,
            orphaned=self._server_gone,
            broke=self.abort,
        )

    def _all_performers(self) -> dict[type, Callable[[Any], None]]:
        return {
            instructions.StartForkServer: self._servers.start,
            instructions.StopForkServer: self._servers.stop,
            instructions.SpawnWorker: self._workers.spawn,
            instructions.StopWorker: self._workers.stop,
            instructions.InterruptWorker: self._workers.interrupt,
            instructions.KillWorker: self._workers.kill,
            instructions.StartTimer: self._start_timer,
            instructions.GrantRequest: self.places.grant,
            instructions.AdmitRequest: self.places.admit,
            instructions.DeliverReply: self.places.deliver,
            instructions.FailRequest: self.places.fail,
            instructions.ReportIdle: self._report_idle,
            instructions.ReportReloaded: self._report_reloaded,
            instructions.ReportStopped: self._report_stopped,
        }

    # -- what the pool asks ------------------------------------------------------------

    def supervise(self, name: str, component: Component) -> None:
        """Look after something that has a thread; before `start`."""
        self._components.add(name, component)

    def start(self) -> None:
        self.watcher.start()
        self._components.begin()
        end_at_exit(self)
        Heartbeat(self.watcher, self._workers.all, self.handle).begin()
        if self.config.max_worker_rss is not None:
            Measuring(self.watcher, self._workers.all, self.handle).begin()
        self.handle(events.PoolStarted())
        # Whoever kills the application from here on meets the guard.
        try:
            self.wait_until(lambda: self._servers.launched, None)
        except BaseException:  # a Ctrl-C
            self.abandon()
            self.join()
            raise

    def discard(self) -> None:
        """Give back what an engine holds that was never started."""
        self.watcher.close()

    def abandon(self) -> None:
        """End everything, soon; takes no lock, so that garbage may be what abandons."""
        self.watcher.call(lambda: self.handle(events.StopRequested(cancel_waiting=True)))
        self.watcher.call(lambda: self.handle(events.KillRequested()))

    def join(self) -> None:
        """Wait until all has ended."""
        self.watcher.join()

    def handle(self, event: events.Event) -> None:
        """The one way in: decide under the lock, perform outside of it."""
        self.decide(lambda: event)

    def decide(self, event: Callable[[], events.Event | None]) -> bool:
        """As `handle`, of what ``event()`` finds under the lock; whether there was anything."""
        try:
            with self._lock:
                if self._broken is not None:
                    return True  # every waiting call was told
                happened = event()
                if happened is None:
                    return False
                todo = self._state.handle(happened, time.monotonic())
            for instruction in todo:
                self._performers[type(instruction)](instruction)
        except BaseException as error:
            # Also a Ctrl-C within these few microseconds: half-done thoughts cannot be undone.
            self.abort(error)
            raise
        with self._changed:
            self._changed.notify_all()
        return True

    def register(self, waiter: Waiter) -> None:
        """Make the waiter known before its request is submitted."""
        with self._lock:
            if self._broken is not None:
                raise PoolClosed("the pool broke; make a new one") from self._broken
            self.places.add(waiter)

    def check_out(self, waiter: Waiter) -> Grant | None:
        """Register and submit it where a worker is idle and nobody waits; ``None`` where it takes
        `register` and `handle`, and nothing is done."""
        ticket = waiter.ticket
        try:
            with self._lock:
                if self._broken is not None:
                    return None
                key = self._state.shortcut.check_out(ticket.request(), time.monotonic())
                if key is None:
                    return None
                self.places.add(waiter)
                incarnation = self._workers.get(*key)
        except BaseException as error:
            self.abort(error)  # as in `decide`
            raise
        # A worker that served has a lane until its end is told, which comes through the lock.
        assert incarnation is not None
        assert incarnation.lane is not None
        return Grant(*key, 1, incarnation.lane)

    def completed(self, ticket: Ticket, grant: Grant, *, failed: bool) -> None:
        """The request has its answer, and the worker is free."""
        done = ticket.request_id, grant.worker_id, grant.incarnation, failed
        try:
            with self._lock:
                if self._broken is not None or self._state.shortcut.check_in(
                    *done, time.monotonic()
                ):
                    return
        except BaseException as error:
            self.abort(error)
            raise
        self.handle(events.RequestCompleted(*done))

    def knows(self, request_id: int) -> bool:
        """Whether there is such a request, or the pool broke."""
        with self._lock:
            return self._broken is not None or self._state.knows(request_id)

    def workers(self) -> list[tuple[WorkerRow, Incarnation | None]]:
        with self._lock:
            return [
                (row, self._workers.get(row.worker_id, row.incarnation))
                for row in self._state.workers()
            ]

    def rows(self) -> list[WorkerInfo]:
        """What each worker does at this moment."""
        lane = chosen_lane(self.config.lane)
        return [
            row_of(*worker, self.places.of(worker[0].request_id), lane) for worker in self.workers()
        ]

    def counters(self) -> Counters:
        with self._lock:
            return self._state.counters()

    def tree(self) -> tuple[Branch, ...]:
        """The threads, and the fork servers with their workers."""
        with self._lock:
            servers = self._state.fork_servers()
        workers = self.workers()
        return (
            Branch("watcher", "running" if self.watcher.alive else "ended"),
            component_branch(
                "callbacks", "running" if self.callbacks.alive else "idle", self.callbacks.life
            ),
            *(server_branch(row, *self._servers.place(row.generation), workers) for row in servers),
        )

    def tools(self) -> Mapping[str, ToolSpec] | None:
        """The tools, once the fork server or a worker told them."""
        return self._tools

    def learn_tools(self, generation: int, tools: Mapping[str, ToolSpec]) -> None:
        """Those of a fork server; in a reload those of the new code, but not before its end."""
        reloading = self._reloading
        if reloading is not None and generation > reloading.since:
            reloading.tools = tools
            return
        self._tools = tools
        with self._changed:
            self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Block until ``condition()``, asked after every event; whether it came true."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            return wait_for(
                lambda seconds: self._changed.wait_for(
                    lambda: condition() or self._broken is not None, seconds
                ),
                deadline,
            )

    def failure(self) -> BaseException | None:
        """Why no worker can be had any more, or ``None``."""
        if self._broken is not None:
            return self._broken
        with self._lock:
            return self._state.start_failure()

    def drain(self, timeout: float | None) -> bool:
        """Wait until nothing is in line and nothing in hand; whether that came."""
        self._idle = False
        self.handle(events.DrainRequested())
        return self.wait_until(lambda: self._idle, timeout)

    def reload(self, timeout: float | None) -> None:
        """Replace fork server and workers, one by one, by some of what the code is now."""
        with self._lock:
            if self._reloading is not None:
                raise PoolError("the pool is being reloaded already; wait for that to end")
            reloading = self._reloading = Reloading(self._state.fork_servers()[0].generation)
        self.handle(events.ReloadRequested())
        self.wait_until(lambda: reloading.over, timeout)
        if self._broken is not None:
            raise PoolClosed("the pool broke; make a new one") from self._broken
        reloading.result(timeout)

    # -- instructions ------------------------------------------------------------------

    def _start_timer(self, instruction: instructions.StartTimer) -> None:
        event = instruction.event
        self.watcher.after(instruction.delay, lambda: self.handle(event))

    def _report_idle(self, instruction: instructions.ReportIdle) -> None:
        self._idle = True

    def _report_reloaded(self, instruction: instructions.ReportReloaded) -> None:
        with self._lock:
            reloading, self._reloading = self._reloading, None
        if reloading is not None:
            if instruction.failure is None and reloading.tools is not None:
                self._tools = reloading.tools
            reloading.end(instruction.failure)

    def _report_stopped(self, instruction: instructions.ReportStopped) -> None:
        self._ending = True
        self.watcher.call(self._end)

    # -- notices -----------------------------------------------------------------------

    def _told_of_worker(self, message: Forked | ForkRefused | Exited | Stopped) -> None:
        if isinstance(message, Forked):
            self._workers.forked(message)
        elif isinstance(message, ForkRefused):
            self._workers.refused(message)
        elif isinstance(message, Exited):
            key = (message.worker_id, message.incarnation)
            status = ExitStatus(message.exit_code, message.signal, message.oom, message.peak_rss)
            self.deathbook.status(key, status)
            if self.hub.active:
                self.hub.publish(
                    WorkerExited(
                        *key,
                        message.pid,
                        exit_code=status.exit_code,
                        signal=status.signal,
                        oom=status.oom,
                        peak_rss=status.peak_rss,
                    )
                )
            self._workers.exited(key)
        else:
            self._worker_stopped(message)

    def _worker_stopped(self, message: Stopped) -> None:
        key = (message.worker_id, message.incarnation)
        what = "stopped" if message.stopped else "continued"
        logger.warning("worker %d was %s by a signal", message.worker_id, what)
        if message.stopped:
            self.handle(events.WorkerSilent(*key, stopped=True))
        else:
            self.handle(events.WorkerHeard(*key))

    def _server_gone(self, generation: int) -> None:
        self._workers.orphaned(generation)
        if self._ending:
            self.watcher.call(self._end)

    # -- the end -----------------------------------------------------------------------

    def _end(self) -> None:
        if self._servers:
            return  # their ends, which the watcher will see, come first
        self.watcher.stop()
        self._on_end()
        self.callbacks.stop()
        self.ended.set()

    def abort(self, cause: BaseException) -> None:
        """Something broke that must not break: no call waits on, no process is left."""
        with self._lock:
            if self._broken is not None:
                return
            self._broken = cause
            waiters = self.places.all()
            incarnations = self._workers.abort()
            servers = self._servers.abort()
        logger.error("the pool broke and ends", exc_info=cause)
        try:
            self._tear_down(cause, waiters, incarnations, servers)
        finally:
            self.ended.set()  # first of all, since whoever waits for it waits for ever
            self.callbacks.stop()
            self.watcher.stop()
            with self._changed:
                self._changed.notify_all()

    def _tear_down(
        self,
        cause: BaseException,
        waiters: list[Waiter],
        incarnations: list[Incarnation],
        servers: list[ForkServer],
    ) -> None:
        for incarnation in incarnations:
            if incarnation.lane is not None:
                incarnation.lane.cancel()
        for server in servers:
            server.close()
        for waiter in waiters:
            error = PoolError(f"the pool broke: {cause!r}; make a new one")
            error.__cause__ = cause
            waiter.failed(error)
        self._workers.close(incarnations)
        self._on_end()
