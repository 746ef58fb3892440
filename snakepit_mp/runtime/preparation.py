"""How does a process get the user's code? Its ``__main__``, and its adapter class.

Runs in the fork server or, with ``import_in="worker"``, in each worker. While it does, no
pool can be made: the main module of a script without its guard would fork for ever.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import process, spawn
from typing import Any

from ..adapter import Adapter
from ..errors import ConfigError
from .plan import AdapterReference, ForkPlan

__all__ = ["import_adapter", "refuse_in_unguarded_main", "settle"]

_importing = False


def refuse_in_unguarded_main() -> None:
    """Raise ``RuntimeError`` while this process imports the main module of another one."""
    if _importing:
        raise RuntimeError(
            "a Pool is being made while a process of another Pool imports the main module, "
            "before that process has finished its bootstrapping phase. Most likely the "
            "script makes its Pool at import time. Guard it:\n\n"
            "    if __name__ == '__main__':\n"
            "        with Pool(...) as pool:\n"
            "            ..."
        )


def settle(plan: ForkPlan) -> None:
    """Take over the application's module path, arguments and directory; import ``preload``."""
    spawn.prepare({key: value for key, value in plan.main.items() if not _is_main(key)})
    with _marked():
        for module in plan.preload:
            importlib.import_module(module)


def import_adapter(plan: ForkPlan) -> type[Adapter] | None:
    """Prepare ``__main__`` and import the adapter. Raises whatever the user's code raises."""
    with _marked():
        spawn.prepare({key: value for key, value in plan.main.items() if _is_main(key)})
        return None if plan.adapter is None else _resolve(plan.adapter)


def _is_main(key: str) -> bool:
    return key.startswith("init_main")


@contextmanager
def _marked() -> Iterator[None]:
    global _importing
    current: Any = process.current_process()
    _importing = current._inheriting = True  # the second is for multiprocessing's own check
    try:
        yield
    finally:
        _importing = False
        del current._inheriting


def _resolve(reference: AdapterReference) -> type[Adapter]:
    found: Any
    if reference.pickled is not None:
        import cloudpickle

        found = cloudpickle.loads(reference.pickled)
    else:
        found = importlib.import_module(reference.module)
        for part in reference.qualname.split("."):
            found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        raise ConfigError(f"{reference} is not a subclass of Adapter, but {found!r}")
    return found
