"""What do users call? `Pool`: thin, without policy of its own."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .adapter import Adapter
from .config import (
    PoolConfig,
    StoreConfig,
    check_count,
    check_grace,
    check_timeout,
)
from .core import events
from .core.lifecycle import SERVING_STATES
from .core.pool_state import Counters
from .errors import ConfigError, PoolClosed, WorkerStartError
from .lanes.waits import wait_for
from .runtime.async_pool import AsyncPool
from .runtime.batching import Batches
from .runtime.calls import Calls
from .runtime.cleanup import SocketDirectory
from .runtime.commands import Commands
from .runtime.components import component_branch
from .runtime.door import open_bridge
from .runtime.engine import Engine
from .runtime.futures import Futures
from .runtime.mapped import mapped
from .runtime.plan import ForkPlan
from .runtime.preparation import refuse_in_unguarded_main
from .runtime.rows import WorkerInfo
from .runtime.tickets import Tickets
from .runtime.tree import Branch
from .runtime.waiter import Ticket
from .session import Session
from .store.session_store import SessionStore
from .telemetry.events import TelemetryEvent
from .telemetry.hub import EventHub, Subscription

if TYPE_CHECKING:
    from .bridge.server import BridgeServer

__all__ = ["Pool"]

#: Seconds that the bridge's last replies may take, when every call has been answered.
_FAREWELL = 1.0


class Pool(AsyncPool):
    """A pool of supervised worker processes.

    ``adapter``: an `Adapter` class, ``"package.module:Class"``, or ``None`` (callables
    only). Settings are the fields of `PoolConfig`; a wrong one raises `ConfigError` that
    names it. Construction does not wait for the workers: see `await_ready`.

    >>> with Pool(workers=2) as pool:
    ...     pool.execute(pow, (2, 10))
    1024
    """

    def __init__(self, adapter: type[Adapter] | str | None = None, **settings: Any) -> None:
        refuse_in_unguarded_main()
        self.config = PoolConfig.of(settings)
        _check_store(self.config.store)
        plan = ForkPlan.make(adapter, self.config)
        self._closed = False
        self._owner = os.getpid()
        with ExitStack() as undo:
            owned = self._open_store(undo)
            self._directory = SocketDirectory.create(self.config.name)
            undo.callback(self._directory.remove)
            self._bridge = open_bridge(
                self, lambda pool: pool._commands.tools(), self._store, self._directory, self.config
            )
            if self._bridge is not None:
                undo.callback(self._bridge.stop, 0)
            hub = EventHub(f"snakepit-mp-{self.config.name}")
            self._store.announcers.add(hub)
            undo.callback(self._store.announcers.remove, hub)
            self._engine = Engine(
                self.config,
                plan.with_directory(self._directory.path),
                self._store.descriptors(),
                self._directory,
                hub,
                on_end=functools.partial(
                    _clear_away, self._bridge, self._store, owned, self._directory, hub
                ),
            )
            undo.callback(self._engine.discard)
            if self._bridge is not None:
                self._engine.supervise("bridge", self._bridge)
            tools = plan.known_tools(adapter)
            if tools is not None:
                self._engine.learn_tools(0, tools)
            self._commands = Commands(self._engine)
            self._tickets = Tickets(self._commands, self._store, self.config)
            self._calls = Calls(self._engine)
            self._futures = Futures(self._engine, self._calls)
            self._batches = Batches(self._engine, self._calls, self._tickets)
            self._engine.start()
            undo.pop_all()
        self._abandon = weakref.finalize(self, _abandon, self._engine)
        self._abandon.atexit = False  # the engine sees to that itself

    def _open_store(self, undo: ExitStack) -> bool:
        """Set the store; whether it is the pool's own, and to be closed with it."""
        if isinstance(self.config.store, SessionStore):
            self._store = self.config.store
            return False
        self._store = SessionStore(self.config.store)
        undo.callback(self._store.close)
        self._store.start_sweeping()
        return True

    # -- calls -------------------------------------------------------------------------

    def execute(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> Any:
        """Run a tool or a function in a worker, wait, and return its value.

        ``command``: a tool's name, a ``@tool`` function, or a callable, which travels by
        cloudpickle. ``args``: a mapping gives keywords, a tuple or list positionals.
        ``timeout``: seconds for line, start and execution together, default the tool's,
        else the pool's; at the deadline `TaskTimeout` is raised and the tool interrupted.
        ``retries``: how often the call may be run again, default the tool's; see `tool`.
        ``affinity``: whether the worker that served the session last is preferred (``"hint"``),
        waited for (``"strict_queue"``) or demanded (``"strict_fail_fast"``, which raises
        `SessionWorkerUnavailable`); default the pool's.

        Raises what the tool raised, with the remote traceback as its cause; `ToolNotFound`,
        `InvalidArguments`, `CodecError`, `SessionNotFound` before anything is run;
        `WorkerDied` if the worker died in the tool and the tool is not idempotent.
        """
        ticket = self._ticket(
            command,
            args,
            session_id=session_id,
            timeout=timeout,
            retries=retries,
            affinity=affinity,
        )
        reply = self._calls.execute(ticket)
        if reply.error is not None:
            try:
                raise reply.error
            finally:
                del reply  # the traceback would keep the frame, and the frame the error
        return reply.value

    def submit(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> Future[Any]:
        """Like `execute`, but returns a future at once; blocks only while the line is full.

        ``future.cancel()`` withdraws waiting work and interrupts running work.
        """
        ticket = self._ticket(
            command,
            args,
            session_id=session_id,
            timeout=timeout,
            retries=retries,
            affinity=affinity,
            apart=True,
        )
        return self._futures.submit(ticket)

    def stream(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> Generator[Any, None, None]:
        """The items of a streaming tool as they come; ``timeout`` is for each item, in seconds.

        Closing the iterator stops the tool. The work starts with the first item asked for.
        """
        ticket = self._ticket(
            command,
            args,
            session_id=session_id,
            timeout=timeout,
            retries=retries,
            affinity=affinity,
            streaming=True,
        )
        return self._calls.stream(ticket)

    def map(
        self,
        command: str | Callable[..., Any],
        iterable: Iterable[Any],
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        window: int | None = None,
        ordered: bool = True,
        on_error: str = "raise",
    ) -> Generator[Any, None, None]:
        """The results for each item of ``iterable``, which may be infinite: it is read lazily.

        Items are ``args`` of a tool; for a plain callable each item is its one argument.
        ``window``: how many are in flight, default four per worker. ``on_error``:
        ``"raise"`` ends the map, ``"return"`` yields the exception in place, ``"skip"``
        leaves it out. ``timeout`` is for each item, in seconds. A map that ends early
        withdraws what waits; what runs is finished, and its result dropped.

        Tiny items travel together, as many as take a worker some 2 ms; then ``window``, unless
        given, is four such batches per worker. Each is still a call of its own: a slow one
        gives back those behind it, and a death is blamed on the one in hand. A callable is
        unpickled once for each batch.
        """
        launch = self._launcher(
            command,
            window,
            on_error,
            wait=True,
            session_id=session_id,
            timeout=timeout,
            retries=retries,
        )
        return mapped(launch, iter(iterable), ordered, on_error)

    # -- sessions ----------------------------------------------------------------------

    @property
    def store(self) -> SessionStore:
        """The store of this pool's sessions."""
        return self._store

    def session(
        self,
        session_id: str | None = None,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Session:
        """Open or create a session; one without a name is new and deleted when its ``with`` ends."""
        self._check_open()
        info = self._store.create_session(session_id, ttl=ttl, metadata=metadata)
        return Session(self._store, info.id, self, delete_on_exit=session_id is None)

    @property
    def bridge_address(self) -> str | None:
        """The gRPC target of the bridge; ``None`` without a bridge."""
        return None if self._bridge is None else self._bridge.target

    # -- what is going on --------------------------------------------------------------

    def workers(self) -> list[WorkerInfo]:
        """A row per worker slot."""
        return self._engine.rows()

    def tree(self) -> Branch:
        """What is supervised, with states and restarts; ``print`` shows it as a tree."""
        bridge = Branch("bridge", "none")
        if self._bridge is not None:
            fine = self._closed or self._bridge.failure() is None
            state = "ended" if self._closed else "running" if fine else "failed"
            at = f"at {self._bridge.target}"
            bridge = component_branch("bridge", state, self._bridge.life, at)
        sweeper = self._store.janitor
        janitor = Branch("janitor", "none")
        if sweeper is not None:
            janitor = component_branch("janitor", "running", sweeper.life)
        return Branch(
            f"pool {self.config.name!r}",
            "closed" if self._closed else "open",
            children=(bridge, janitor, *self._engine.tree()),
        )

    def stats(self) -> Counters:
        """True counters since the pool was made."""
        return self._engine.counters()

    def await_ready(self, timeout: float | None = None, workers: int = 1) -> None:
        """Wait until so many workers are ready; ``TimeoutError`` after ``timeout`` seconds.

        Raises `WorkerStartError`, with what the start raised as its cause, where no worker
        will ever be.
        """
        self._check_open()
        check_count("await_ready", "workers", workers)
        if workers > self.config.workers:
            raise ConfigError(f"await_ready(workers={workers}): the pool has {self.config.workers}")

        def enough() -> bool:
            up = sum(row.state in SERVING_STATES for row, _ in self._engine.workers())
            return up >= workers or self._engine.failure() is not None

        came = self._engine.wait_until(enough, timeout)
        failure = self._engine.failure()
        if failure is not None:
            raise WorkerStartError(f"no worker can be started: {failure}") from failure
        if not came:
            raise TimeoutError(f"{workers} workers were not ready within {timeout} s")

    def subscribe(
        self, callback: Callable[[TelemetryEvent], object], *kinds: type[TelemetryEvent]
    ) -> Subscription:
        """Call ``callback`` with every later event of these kinds, default all, in a thread.

        The events are those of `snakepit_mp.telemetry.events`, in the order in which they were
        decided. What the callback raises is logged; while it blocks, up to 10,000 events wait for
        it, and of more the oldest are dropped. It ends with the pool, or with
        `Subscription.close`.
        """
        self._check_open()
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, TelemetryEvent)):
                raise ConfigError(f"subscribe(): {kind!r} is no class of events")
        return self._engine.hub.subscribe(callback, kinds)

    def restart(self) -> None:
        """Start again what has FAILED, and leave what runs; `await_ready` tells what came of it."""
        self._check_open()
        self._engine.handle(events.RestartRequested())

    def reload(self, timeout: float | None = None) -> None:
        """Bring in new code without losing a call, and wait until every worker runs it.

        A second fork server imports the adapter as it is now; once a first worker of it is
        ready, the others are replaced one by one, each when its call is done. Code that cannot
        be imported or started changes nothing: `WorkerStartError` says why. Raises
        ``TimeoutError`` after ``timeout`` seconds, default never, and goes on; `PoolError` if
        another is under way.
        """
        self._check_open()
        self._engine.reload(check_timeout(timeout))

    # -- the end -----------------------------------------------------------------------

    def drain(self, timeout: float | None = None) -> None:
        """Wait until nothing is in line and nothing in hand; ``TimeoutError`` after ``timeout``."""
        self._check_open()
        if not self._engine.drain(timeout):
            raise TimeoutError(f"the pool still had work in hand after {timeout} s")

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, grace: float | None = None
    ) -> None:
        """Take no more calls, finish those in line and in hand, end every process.

        ``cancel_futures``: calls that wait in line are cancelled. ``grace``: seconds after
        which what still runs is killed, default never. ``wait=False`` returns at once. A
        second call is fine, and may be stricter.
        """
        if os.getpid() != self._owner:
            return  # a forked copy: the pool belongs to its parent
        check_grace(grace)
        self._closed = True
        self._engine.handle(events.StopRequested(cancel_waiting=cancel_futures))
        if grace is not None:
            self._engine.watcher.after(grace, self._kill)
        if not wait:
            return
        try:
            wait_for(self._engine.ended.wait)
            self._engine.watcher.join()
        except KeyboardInterrupt:
            self._kill()
            wait_for(self._engine.ended.wait)
            raise
        self._abandon.detach()

    def _kill(self) -> None:
        self._engine.handle(events.KillRequested())

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.shutdown()
        else:
            self.shutdown(cancel_futures=True, grace=self.config.grace)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Pool {self.config.name!r}: {self.config.workers} workers, {state}>"

    # -- inside ------------------------------------------------------------------------

    def _check_open(self) -> None:
        if os.getpid() != self._owner:
            raise PoolClosed("this is a forked copy of the application; make a pool of its own")
        if self._closed:
            raise PoolClosed("the pool has been shut down")

    def _ticket(self, command: str | Callable[..., Any], args: object, **settings: Any) -> Ticket:
        self._check_open()
        return self._tickets.write(command, args, **settings)


def _check_store(store: object) -> None:
    if not isinstance(store, (StoreConfig, SessionStore)):
        raise ConfigError(f"store must be a StoreConfig or a SessionStore, not {store!r}")


def _clear_away(
    bridge: BridgeServer | None,
    store: SessionStore,
    owned: bool,
    directory: SocketDirectory,
    hub: EventHub,
) -> None:
    if bridge is not None:
        bridge.stop(_FAREWELL)
    store.announcers.remove(hub)
    if owned:
        store.close()
    directory.remove()
    hub.close()


def _abandon(engine: Engine) -> None:
    """The pool was dropped without `shutdown`. May run anywhere, so it waits for nothing."""
    if os.getpid() == engine.owner:
        engine.abandon()
