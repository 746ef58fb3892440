"""Did an import start threads, and whose was it? A process with threads must not fork."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from ..errors import WorkerStartError
from .kernel import thread_ids

__all__ = ["ThreadBlame", "refuse_threads"]

# A thread that was joined may be listed for another moment, whose end nothing announces.
_LEAVING = 0.1
_GLANCE = 0.001


class ThreadBlame(MetaPathFinder):
    """A context in which each imported module is asked which threads it left behind.

    What none of them left is put down to ``__main__``, which no loader runs.
    """

    def __init__(self) -> None:
        self._known = thread_ids()
        self._left: list[tuple[str, set[int]]] = []
        self._running = ["__main__"]  # the innermost module last

    def __enter__(self) -> ThreadBlame:
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)
        self._note()

    def culprit(self) -> str | None:
        """The first module that left a thread which is still there, where it can be told."""
        alive = thread_ids()
        return next((module for module, threads in self._left if threads & alive), None)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find, with a loader that counts threads when it is done."""
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(fullname, path, target)
            if spec is not None:
                self._observe(spec)
                return spec
        return None

    def _observe(self, spec: ModuleSpec) -> None:
        loader = spec.loader
        execute = getattr(loader, "exec_module", None)
        # The loader keeps its type, which other code asks for. Built-in and frozen modules
        # have a class for a loader, and start no threads.
        if execute is None or isinstance(loader, type) or not hasattr(loader, "__dict__"):
            return

        def exec_module(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)  # one loader may serve several modules
            self._note()
            self._running.append(module.__name__)
            try:
                execute(module)
                self._note()
            finally:
                self._running.pop()

        loader.exec_module = exec_module  # type: ignore[union-attr,method-assign]

    def _note(self) -> None:
        """Put new threads down to the module that is running."""
        started = thread_ids() - self._known
        if started:
            self._left.append((self._running[-1], started))
            self._known |= started


def refuse_threads(blame: ThreadBlame | None = None) -> None:
    """Raise `WorkerStartError` if this process has more threads than one."""
    if len(thread_ids()) == 1 or _are_leaving():
        return
    culprit = None if blame is None else blame.culprit()
    whose = "the imports left" if culprit is None else f"importing {culprit!r} started"
    raise WorkerStartError(
        f"workers cannot be forked: {whose} threads in the fork server (it has "
        f"{len(thread_ids())}, where only 1 is safe). "
        'Pool(..., import_in="worker") imports the adapter in each worker, after the fork; '
        "or start the threads in Adapter.start()"
    )


def _are_leaving() -> bool:
    limit = time.monotonic() + _LEAVING
    while time.monotonic() < limit:
        time.sleep(_GLANCE)
        if len(thread_ids()) == 1:
            return True
    return False
