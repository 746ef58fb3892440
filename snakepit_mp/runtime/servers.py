"""Who starts, hears, stops and buries fork servers? One table of those that exist."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..adapter import ToolSpec
from ..core import events, instructions
from ..telemetry.logs import logger
from .forkserver import (
    Exited,
    Forked,
    ForkRefused,
    ForkServer,
    Imported,
    ImportFailed,
    Resumed,
    Stopped,
)
from .pauses import watch_pauses
from .plan import ForkPlan
from .watcher import Watcher

__all__ = ["Servers"]

WorkerNotice = Forked | ForkRefused | Exited | Stopped


@dataclass(frozen=True, slots=True)
class _Running:
    server: ForkServer
    generation: int
    since: float = field(default_factory=time.monotonic)


class Servers:
    """The fork servers of a pool, by generation, from their start to their burial.

    ``lock`` is the engine's. ``ending()``: the pool needs none any more. ``told_of_worker``
    gets what a server says of a worker, ``orphaned`` the generation of a server that has died,
    once the brain knows. ``broke`` gets an error that must not be.
    """

    def __init__(
        self,
        plan: ForkPlan,
        store_descriptors: tuple[int, ...],
        grace: float,
        watcher: Watcher,
        *,
        lock: threading.Lock,
        handle: Callable[[events.Event], None],
        ending: Callable[[], bool],
        learn_tools: Callable[[int, Mapping[str, ToolSpec]], None],
        told_of_worker: Callable[[WorkerNotice], None],
        orphaned: Callable[[int], None],
        broke: Callable[[BaseException], None],
    ) -> None:
        self._plan = plan
        self._store_descriptors = store_descriptors
        self._grace = grace
        self._watcher = watcher
        self._lock = lock
        self._handle = handle
        self._ending = ending
        self._learn_tools = learn_tools
        self._told_of_worker = told_of_worker
        self._orphaned = orphaned
        self._broke = broke
        self._alive: dict[int, _Running] = {}
        self._unwanted: set[int] = set()  # were told to stop
        self._aborted = False
        self.launched = False  # whether one was ever started, or could not be

    def __bool__(self) -> bool:
        """Whether any is alive."""
        return bool(self._alive)

    def get(self, generation: int) -> ForkServer | None:
        running = self._alive.get(generation)
        return None if running is None else running.server

    @property
    def latest(self) -> ForkServer | None:
        """The one that was started last."""
        return self.get(max(self._alive, default=0))

    def place(self, generation: int) -> tuple[int | None, float | None]:
        """The pid of its own, once known, and for how many seconds it has been running."""
        running = self._alive.get(generation)
        if running is None:
            return None, None
        return running.server.own_pid, time.monotonic() - running.since

    # -- instructions ------------------------------------------------------------------

    def start(self, instruction: instructions.StartForkServer) -> None:
        # By the watcher: a start takes milliseconds, and nobody has to wait for it.
        self._watcher.call(lambda: self._launch(instruction.generation))

    def _launch(self, generation: int) -> None:
        if self._ending():
            return  # the pool was shut down before it could begin
        try:
            if generation in self._unwanted:
                raise InterruptedError("it was not wanted any more")
            server = ForkServer.start(self._plan, self._store_descriptors)
        except OSError as error:
            self.launched = True
            self._handle(events.ForkServerLost(generation, error, permanent=False))
            return
        self.launched = True
        running = _Running(server, generation)
        with self._lock:
            if not self._aborted:
                self._alive[generation] = running
        if self._aborted:
            server.close()
            return
        self._watcher.watch(server.channel.fileno(), functools.partial(self._speaks, running))
        self._watcher.watch(server.pidfd, functools.partial(self._gone, running))
        paused = functools.partial(self._paused, running)
        watch_pauses(server.pid, lambda: self._watcher.call(paused), self._broke)
        self._handle(events.ForkServerStarted(generation))

    def stop(self, instruction: instructions.StopForkServer) -> None:
        self._unwanted.add(instruction.generation)
        server = self.get(instruction.generation)
        if server is not None:
            server.stop()
            self._watcher.after(self._grace, server.kill)

    # -- notices -----------------------------------------------------------------------

    def _speaks(self, running: _Running) -> None:
        server, generation = running.server, running.generation
        try:
            message = server.receive()
        except (OSError, ValueError) as error:  # a pidfd for which there was no room, say
            logger.error("the fork server cannot be understood, and is replaced: %s", error)
            server.kill()
            return
        if message is None:
            self._gone(running)
        elif isinstance(message, Imported):
            if message.tools is not None:
                self._learn_tools(generation, message.tools)
        elif isinstance(message, ImportFailed):
            self._unwanted.add(generation)
            self._handle(events.ForkServerLost(generation, message.error, permanent=True))
            server.kill()
        elif isinstance(message, Resumed):
            logger.warning("the fork server was stopped by a signal, and continued by its guard")
        else:
            self._told_of_worker(message)

    def _paused(self, running: _Running) -> None:
        """Somebody has stopped the guard, which then would guard nothing."""
        if running.generation in self._alive and not self._ending():
            logger.warning("the guard was stopped by a signal, and is continued")
            running.server.resume()

    def bury(self, generation: int) -> None:
        """Deal with its end now, if it has ended."""
        running = self._alive.get(generation)
        if running is not None and running.server.ended():
            self._gone(running)

    def _gone(self, running: _Running) -> None:
        """It is dead: so are its workers, by the kernel; their groups are ours."""
        server, generation = running.server, running.generation
        with self._lock:
            if self._alive.pop(generation, None) is None:
                return  # its pidfd and its channel both told
        self._watcher.release(server.pidfd, lambda: None)
        self._watcher.release(server.channel.fileno(), server.close)
        if generation not in self._unwanted and not self._ending():
            logger.warning("the fork server died")
        self._handle(events.ForkServerLost(generation, None, permanent=False))
        self._orphaned(generation)

    # -- the end -----------------------------------------------------------------------

    def abort(self) -> list[ForkServer]:
        """Forget them, and start no other; called under the lock. They are still to be closed."""
        self._aborted = True
        dying = [running.server for running in self._alive.values()]
        self._alive.clear()
        return dying
