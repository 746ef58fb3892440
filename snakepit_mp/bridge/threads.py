"""Who runs the RPCs? Threads that do not keep the application from ending.

Those of ``concurrent.futures`` are waited for when the interpreter ends, before anything else
is told to stop: a tool that never returns, called by a client, would keep an application alive
that has forgotten its pool.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

__all__ = ["DaemonThreads"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_Work = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads:
    """At most ``most`` daemon threads, made when they are needed and kept for the next call.

    As much of an executor as a gRPC server asks for.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        #: Threads that wait for work and are not meant for any yet.
        self._idle = threading.Semaphore(0)
        self._count = 0
        self._closed = False

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Run it in one of the threads. `RuntimeError` after `shutdown`."""
        future: Future[_T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("no work is taken after shutdown")
            self._work.put((future, functools.partial(fn, *args, **kwargs)))
            if not self._idle.acquire(blocking=False) and self._count < self._most:
                self._add_thread()
        return future

    def _add_thread(self) -> None:
        name = f"{self._name}-{self._count}"
        threading.Thread(target=self._run, name=name, daemon=True).start()
        self._count += 1

    def _run(self) -> None:
        while (work := self._next()) is not None:
            _perform(*work)
            del work  # else what it holds would live until the next call
        self._work.put(None)  # for the next thread

    def _next(self) -> _Work | None:
        try:
            return self._work.get_nowait()
        except queue.Empty:
            self._idle.release()
            return self._work.get()

    def shutdown(self) -> None:
        """Take no more work; returns at once, the threads end when they have done theirs."""
        with self._lock:
            self._closed = True
        self._work.put(None)


def _perform(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks the future
        future.set_exception(error)
    else:
        future.set_result(result)
