"""What does a forked child get to become a worker?"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..adapter import Adapter
    from ..store.session_store import SessionStore

__all__ = ["WorkerBoot"]


@dataclass(frozen=True, slots=True)
class WorkerBoot:
    """Everything a worker knows when it begins; the descriptors are its own to close.

    ``channel``: socket to the application. ``status_fd``: memory file of the `StatusPage`.
    ``lane``: socket by which calls come, ``None`` if they come by gRPC; with ``mailbox``
    the small ones come through that, and ``spin`` is its microseconds. ``socket_path``: where
    the gRPC server shall listen, for those who show ``token``; ``grpc``: whether there is one.
    ``adapter``: the class, or ``None`` for callables only; with ``load_adapter`` it is
    imported in the worker, by that function. ``threads``: BLAS and OpenMP threads.
    ``log_level``: of the application's root logger.
    """

    worker_id: int
    incarnation: int
    channel: socket.socket
    status_fd: int
    lane: socket.socket | None
    mailbox: bool
    spin: float
    socket_path: str
    token: str
    adapter: type[Adapter] | None
    load_adapter: Callable[[], type[Adapter] | None] | None
    store: SessionStore | None
    allow_pickle: bool
    threads: int
    pool_name: str
    log_level: int = logging.WARNING
    grpc: bool = True
