"""Who starts, interrupts, stops and buries worker processes? One table of those that exist."""

from __future__ import annotations

import functools
import logging
import select
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from ..adapter import ToolSpec
from ..config import PoolConfig
from ..core import events, instructions
from ..lanes.choice import chosen_lane, chosen_spin
from ..lanes.frames import recv_frame
from ..telemetry.logs import logger
from .cleanup import SocketDirectory, kill_group
from .diagnosis import Deathbook
from .forkserver import Forked, ForkRefused, ForkServer
from .incarnation import Incarnation
from .watcher import Watcher, closing

__all__ = ["Workers"]

Key = tuple[int, int]

#: Seconds that a worker has to write its stacks, before it is killed.
_WRITING = 0.02


class Workers:
    """The worker processes of a pool, from their spawn request to their burial.

    ``lock`` is the engine's; ``server(generation)``, called under it, is that fork server.
    ``decide`` takes a function that makes the event, which it calls under the lock.
    ``bury_server`` tells of a fork server's end, if it has ended. ``apart`` runs what may
    block or raise in a thread that nothing depends on. ``untouched`` is asked once a worker has
    ended: whether nothing was begun of what it had in hand, whatever it noted.
    """

    def __init__(
        self,
        config: PoolConfig,
        directory: SocketDirectory,
        watcher: Watcher,
        deathbook: Deathbook,
        *,
        lock: threading.Lock,
        server: Callable[[int], ForkServer | None],
        decide: Callable[[Callable[[], events.Event]], object],
        attempt_in_hand: Callable[[int, int], tuple[int, int] | None],
        learn_tools: Callable[[int, Mapping[str, ToolSpec]], None],
        bury_server: Callable[[int], None],
        apart: Callable[[Callable[[], object]], None],
        untouched: Callable[[int, int], bool],
    ) -> None:
        self._config = config
        self._directory = directory
        self._watcher = watcher
        self._deathbook = deathbook
        self._lock = lock
        self._server = server
        self._decide = decide
        self._attempt_in_hand = attempt_in_hand
        self._learn_tools = learn_tools
        self._bury_server = bury_server
        self._apart = apart
        self._untouched = untouched
        self._alive: dict[Key, Incarnation] = {}

    def all(self) -> list[Incarnation]:
        return list(self._alive.values())

    def get(self, worker_id: int, incarnation: int) -> Incarnation | None:
        return self._alive.get((worker_id, incarnation))

    def _handle(self, event: events.Event) -> None:
        self._decide(lambda: event)

    # -- instructions ------------------------------------------------------------------

    def spawn(self, instruction: instructions.SpawnWorker) -> None:
        worker_id, number = instruction.worker_id, instruction.incarnation
        path = self._directory.socket_path(worker_id, number)
        try:
            incarnation, theirs = Incarnation.prepare(
                worker_id,
                number,
                path,
                reactor=self._watcher,
                lane=chosen_lane(self._config.lane),
                spin=chosen_spin(self._config.spin),
            )
        except OSError as error:  # no descriptors are left; there may be some later
            self._handle(events.SpawnFailed(worker_id, number, error))
            return
        incarnation.generation = instruction.generation
        with self._lock:
            server = self._server(instruction.generation)
            if server is not None:
                self._alive[incarnation.key] = incarnation
        with ExitStack() as ends:
            for end in theirs:
                ends.callback(end.close)
            if server is None:
                incarnation.channel.close()
                incarnation.close()
                self._handle(events.SpawnLost(worker_id, number))
                return
            self._watcher.watch(
                incarnation.channel.fileno(), functools.partial(self._speaks, incarnation)
            )
            try:
                server.spawn(
                    worker_id,
                    number,
                    channel_fd=theirs[0].fileno(),
                    status_fd=incarnation.status.fd,
                    lane_fd=theirs[1].fileno() if theirs[1:] else None,
                    socket_path=path,
                    token=incarnation.token,
                )
            except OSError as error:
                # It is dying; its end, which the watcher sees, also settles this request.
                logger.debug("fork server takes no request any more: %s", error)

    def stop(self, instruction: instructions.StopWorker) -> None:
        incarnation = self.get(instruction.worker_id, instruction.incarnation)
        if incarnation is not None:
            incarnation.command("stop")

    def interrupt(self, instruction: instructions.InterruptWorker) -> None:
        # By the watcher, which also closes the descriptors that this needs.
        key = (instruction.worker_id, instruction.incarnation)
        self._watcher.call(lambda: self._interrupt(key, instruction.request_id))

    def _interrupt(self, key: Key, request_id: int) -> None:
        incarnation = self._alive.get(key)
        if incarnation is not None:
            incarnation.interrupt(request_id)

    def kill(self, instruction: instructions.KillWorker) -> None:
        key = (instruction.worker_id, instruction.incarnation)
        if instruction.overdue:
            self._watcher.call(lambda: self._ask_for_stacks(key))
            return
        incarnation = self._alive.get(key)
        if incarnation is not None and incarnation.pid is not None:
            kill_group(incarnation.pid)

    def _ask_for_stacks(self, key: Key) -> None:
        incarnation = self._alive.get(key)
        if incarnation is not None:
            since = incarnation.write_stacks()
            self._watcher.after(_WRITING, lambda: self._kill_overdue(key, since))

    def _kill_overdue(self, key: Key, since: int) -> None:
        incarnation = self._alive.get(key)
        if incarnation is None or incarnation.pid is None:
            return
        kill_group(incarnation.pid)
        logger.warning(
            "worker %d did not stop within grace and is killed; it was in:\n%s",
            incarnation.worker_id,
            incarnation.black_box.stacks(since) or "(nobody knows: it did not answer)",
        )

    # -- notices -----------------------------------------------------------------------

    def forked(self, message: Forked) -> None:
        key = (message.worker_id, message.incarnation)
        with self._lock:
            incarnation = self._alive.get(key)
            if incarnation is not None:
                incarnation.pid, incarnation.pidfd = message.pid, message.pidfd
        if incarnation is None:
            closing(message.pidfd)()
            return
        self._watcher.watch(message.pidfd, functools.partial(self.exited, key))
        self._handle(events.WorkerForked(*key, message.pid))

    def refused(self, message: ForkRefused) -> None:
        key = (message.worker_id, message.incarnation)
        with self._lock:
            incarnation = self._alive.pop(key, None)
        if incarnation is not None:
            self._let_go(incarnation)
            self._handle(events.SpawnFailed(*key, message.error))

    def orphaned(self, generation: int) -> None:
        """Their fork server is dead, which the engine has told: they die, or never came to be."""
        with self._lock:
            orphans = [i for i in self._alive.values() if i.generation == generation]
            lost = [i for i in orphans if i.pid is None]
            for incarnation in lost:
                del self._alive[incarnation.key]
        for incarnation in orphans:
            if incarnation.pid is not None:
                kill_group(incarnation.pid)
        for incarnation in lost:
            self._let_go(incarnation)
            self._handle(events.SpawnLost(*incarnation.key))

    def _speaks(self, incarnation: Incarnation) -> None:
        try:
            received = recv_frame(incarnation.channel)
            if received is None:
                # Its exit is noticed elsewhere; a closed channel would only make a busy loop.
                self._watcher.release(incarnation.channel.fileno(), lambda: None)
                return
            told = incarnation.understand(received[0], self._config.allow_pickle)
        except (OSError, ValueError, TypeError, LookupError) as error:
            # A tool may have written to a descriptor that was not its own.
            logger.error(
                "worker %d talks nonsense, and is killed: %r", incarnation.worker_id, error
            )
            self._watcher.release(incarnation.channel.fileno(), lambda: None)
            if incarnation.pid is not None:
                kill_group(incarnation.pid)
            return
        if isinstance(told, events.Event):
            self._handle(told)
        elif isinstance(told, logging.LogRecord):
            self._apart(functools.partial(_log, told))
        elif told is not None:
            self._learn_tools(incarnation.generation, told)

    def exited(self, key: Key) -> None:
        """Its end was noticed; that of its fork server, if that caused it, is told before."""
        incarnation = self._alive.get(key)
        if incarnation is None:
            return  # noticed already: by its pidfd, or by the fork server
        self._bury_server(incarnation.generation)
        untouched = self._untouched(*key)

        def exited() -> events.Event:
            attempt = self._attempt_in_hand(*key)
            phase = None
            if attempt is not None and not untouched:
                phase = incarnation.status.phase_of(*attempt)
            return events.WorkerExited(*key, phase)

        self._deathbook.died(key, incarnation.last_words())
        self._hear_out(incarnation)
        self._decide(exited)
        with self._lock:
            broke = self._alive.pop(key, None) is None
        if not broke:  # else whoever took it closes it
            self._let_go(incarnation)

    def _hear_out(self, incarnation: Incarnation) -> None:
        """What it had still logged, or why it could not start: that tells most of the dead."""
        poller = select.poll()
        poller.register(incarnation.channel.fileno(), select.POLLIN)
        try:
            while poller.poll(0) and (received := recv_frame(incarnation.channel)) is not None:
                told = incarnation.understand(received[0], self._config.allow_pickle)
                if isinstance(told, logging.LogRecord):
                    self._apart(functools.partial(_log, told))
                elif isinstance(told, events.StartFailed):
                    self._handle(told)
        except (OSError, ValueError, TypeError, LookupError) as error:
            logger.debug("the last words of worker %d: %r", incarnation.worker_id, error)

    def _let_go(self, incarnation: Incarnation) -> None:
        if incarnation.lane is not None:
            incarnation.lane.cancel()
        if incarnation.pidfd is not None:
            self._watcher.release(incarnation.pidfd, closing(incarnation.pidfd))
        self._watcher.release(incarnation.channel.fileno(), incarnation.channel.close)
        self._watcher.call(incarnation.close)
        self._directory.forget(incarnation.socket_path)

    # -- the end -----------------------------------------------------------------------

    def abort(self) -> list[Incarnation]:
        """Kill them all and forget them; called under the lock. They are still to be closed."""
        dying = list(self._alive.values())
        self._alive.clear()
        for incarnation in dying:
            if incarnation.pid is not None:
                kill_group(incarnation.pid)
        return dying

    @staticmethod
    def close(incarnations: list[Incarnation]) -> None:
        """Close everything of them directly: the watcher may be what broke."""
        for incarnation in incarnations:
            incarnation.close()
            incarnation.channel.close()
            if incarnation.pidfd is not None:
                closing(incarnation.pidfd)()


def _log(record: logging.LogRecord) -> None:
    """Hand a worker's record to whoever listens here, as if it had been made here."""
    here = logging.getLogger(record.name)
    if here.isEnabledFor(record.levelno):
        here.handle(record)
