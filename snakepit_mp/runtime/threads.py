"""Did an import start threads, and whose was it? A process with threads must not fork."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from ..errors import WorkerStartError
from .kernel import thread_count

__all__ = ["ThreadBlame", "refuse_threads"]


class ThreadBlame(MetaPathFinder):
    """A context in which each imported module is asked whether it left a thread behind.

    ``culprit``: the first module after whose execution there were more threads than one.
    """

    def __init__(self) -> None:
        self.culprit: str | None = None

    def __enter__(self) -> ThreadBlame:
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find, with a loader that counts threads when it is done."""
        for finder in sys.meta_path:
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
            execute(module)
            if self.culprit is None and thread_count() > 1:
                self.culprit = module.__name__

        loader.exec_module = exec_module  # type: ignore[union-attr,method-assign]


def refuse_threads(culprit: str | None = None) -> None:
    """Raise `WorkerStartError` if this process has more threads than one."""
    count = thread_count()
    if count == 1:
        return
    whose = f"importing {culprit!r} started" if culprit else "the imports left"
    raise WorkerStartError(
        f"workers cannot be forked: {whose} threads in the fork server (it has {count}, where "
        'only 1 is safe). Pool(..., import_in="worker") imports the adapter in each worker, '
        "after the fork; or start the threads in Adapter.start()"
    )
