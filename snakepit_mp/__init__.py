"""A process pool whose workers may die, with sessions in shared memory.

Public is what stands here, and `snakepit_mp.errors`. Inside, each folder answers one
question: ``core`` decides, ``runtime`` does, ``worker`` runs tools, ``lanes`` carry
requests, ``bridge`` speaks gRPC, ``store`` remembers, ``values`` encodes, ``telemetry``
tells. Imports point down.
"""

from __future__ import annotations

from . import errors
from ._accel import implementation
from .adapter import Adapter, ToolSpec, tool
from .config import PoolConfig, RestartPolicy, StoreConfig
from .pool import Pool, WorkerInfo
from .session import Session, SessionContext
from .store.records import SessionInfo, Variable
from .store.session_store import SessionStore

__all__ = [
    "Adapter",
    "Pool",
    "PoolConfig",
    "RestartPolicy",
    "Session",
    "SessionContext",
    "SessionInfo",
    "SessionStore",
    "StoreConfig",
    "ToolSpec",
    "Variable",
    "WorkerInfo",
    "errors",
    "implementation",
    "tool",
]

__version__ = "0.1.0"
