"""What does a process do first when it has just been forked? It drops what is not its own."""

from __future__ import annotations

import functools
import gc
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import threadpoolctl

from ..adapter import Adapter
from ..store.session_store import SessionStore
from ..worker import main as worker
from ..worker.boot import WorkerBoot
from ..worker.descent import flush_output
from . import kernel
from .messages import SpawnRequest
from .plan import THREAD_LIMITS, ForkPlan
from .preparation import import_adapter

__all__ = ["Heritage", "become", "become_worker"]


@dataclass(frozen=True, slots=True)
class Heritage:
    """What a worker takes over from the fork server ``server`` (its pid).

    ``disown`` closes what is the server's alone. ``collect``: whether the garbage
    collector was on before the server turned it off.
    """

    server: int
    disown: Callable[[], None]
    plan: ForkPlan
    store: SessionStore
    adapter: type[Adapter] | None
    collect: bool


def become(life: Callable[[], int]) -> NoReturn:
    """Run ``life`` and leave with the exit code it returns, 1 if it raised.

    Nothing gets back into the frames below, whose process this is not.
    """
    code = 1
    try:
        code = life()
    except BaseException:  # noqa: BLE001 - there is nobody else to tell
        traceback.print_exc()
    finally:
        try:
            flush_output()
        finally:
            os._exit(code)


def become_worker(
    heritage: Heritage,
    request: SpawnRequest,
    channel_fd: int,
    status_fd: int,
    lane_fd: int | None = None,
) -> NoReturn:
    """Be the worker that was asked for; to be called right after the fork."""
    become(lambda: _live(heritage, request, channel_fd, status_fd, lane_fd))


def _live(
    heritage: Heritage, request: SpawnRequest, channel_fd: int, status_fd: int, lane_fd: int | None
) -> int:
    kernel.die_with_parent(heritage.server)
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)
    heritage.disown()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _reseed()
    if heritage.collect:
        gc.enable()
    heritage.store.after_fork()
    _raise_thread_limits(heritage.plan)
    plan = heritage.plan
    in_worker = plan.import_in == "worker"
    return worker.run(
        WorkerBoot(
            worker_id=request.worker_id,
            incarnation=request.incarnation,
            channel=socket.socket(fileno=channel_fd),
            status_fd=status_fd,
            lane=None if lane_fd is None else socket.socket(fileno=lane_fd),
            mailbox=plan.lane == "mailbox",
            spin=plan.spin,
            socket_path=request.socket_path,
            token=request.token,
            adapter=heritage.adapter,
            load_adapter=functools.partial(import_adapter, plan) if in_worker else None,
            store=heritage.store,
            allow_pickle=plan.allow_pickle,
            threads=plan.threads,
            pool_name=plan.pool_name,
            log_level=plan.log_level,
            grpc=plan.grpc,
        )
    )


def _reseed() -> None:
    """Workers must not draw the same random numbers."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _raise_thread_limits(plan: ForkPlan) -> None:
    """From the 1 that the server needed, for libraries that are loaded and those to come."""
    if plan.threads == 1:
        return
    for name in set(THREAD_LIMITS) - set(plan.env):
        os.environ[name] = str(plan.threads)
    threadpoolctl.threadpool_limits(limits=plan.threads)
