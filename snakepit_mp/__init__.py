"""A process pool whose workers may die, with sessions in shared memory.

Public is what stands here, and `snakepit_mp.errors`. Inside, each folder answers one
question: ``core`` decides, ``runtime`` does, ``worker`` runs tools, ``lanes`` carry
requests, ``bridge`` speaks gRPC, ``store`` remembers, ``values`` encodes, ``telemetry``
tells. Imports point down.

A name is imported when it is first used, so that a module of adapters costs no pool.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing's own, without the cost of importing that
if TYPE_CHECKING:
    from typing import Any

    from . import errors
    from ._accel import implementation
    from .adapter import Adapter, ToolSpec, tool
    from .config import BreakerPolicy, PoolConfig, RestartPolicy, StoreConfig
    from .pool import Pool
    from .runtime.rows import WorkerInfo
    from .session import Session, SessionContext
    from .store.history import OldValue
    from .store.records import SessionInfo, Variable
    from .store.session_store import SessionStore
    from .store.stats import StoreStats
    from .store.watch import Change
    from .values.registry import register_type

__all__ = [
    "Adapter",
    "BreakerPolicy",
    "Change",
    "OldValue",
    "Pool",
    "PoolConfig",
    "RestartPolicy",
    "Session",
    "SessionContext",
    "SessionInfo",
    "SessionStore",
    "StoreConfig",
    "StoreStats",
    "ToolSpec",
    "Variable",
    "WorkerInfo",
    "errors",
    "implementation",
    "register_type",
    "tool",
]

__version__ = "0.1.0"

#: Where each public name is defined.
_HOMES = {
    "Adapter": "adapter",
    "BreakerPolicy": "config",
    "Change": "store.watch",
    "OldValue": "store.history",
    "Pool": "pool",
    "PoolConfig": "config",
    "RestartPolicy": "config",
    "Session": "session",
    "SessionContext": "session",
    "SessionInfo": "store.records",
    "SessionStore": "store.session_store",
    "StoreConfig": "config",
    "StoreStats": "store.stats",
    "ToolSpec": "adapter",
    "Variable": "store.records",
    "WorkerInfo": "runtime.rows",
    "implementation": "_accel",
    "register_type": "values.registry",
    "tool": "adapter",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module(".errors", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
