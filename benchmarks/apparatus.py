"""What is measured against what, and how? Peers, a fork server by itself, and memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from snakepit_mp import Adapter, PoolConfig, SessionStore, tool
from snakepit_mp.lanes.frames import recv_frame
from snakepit_mp.runtime.cleanup import SocketDirectory, kill_group
from snakepit_mp.runtime.forkserver import Exited, Forked, ForkPlan, ForkServer, Imported
from snakepit_mp.runtime.incarnation import Incarnation
from snakepit_mp.values import codec

__all__ = ["WORKERS", "Echo", "Nursery", "compiled_once", "plain_grpc", "private_memory", "seconds"]

#: Of every pool, ours and the peers', unless the benchmark is about their number.
WORKERS = 2


class Echo(Adapter):
    """The least that a tool can do."""

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)


_PLAIN_SERVER = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc

def echo(request, context):
    return request

handler = grpc.unary_unary_rpc_method_handler(echo)
server = grpc.server(ThreadPoolExecutor(8))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("peer", {"Echo": handler})])
server.add_insecure_port(sys.argv[1])
server.start()
print("serving", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def plain_grpc() -> Iterator[Callable[[bytes], bytes]]:
    """Python gRPC with nothing around it: a unary call of bytes, over a Unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"unix:{folder}/peer.sock"
        with (
            subprocess.Popen(
                [sys.executable, "-c", _PLAIN_SERVER, target],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as server,
            grpc.insecure_channel(target) as channel,
        ):
            assert server.stdout is not None
            assert server.stdin is not None
            assert server.stdout.readline() == b"serving\n"
            yield channel.unary_unary("/peer/Echo")
            server.stdin.close()


class _Nobody:
    """The reactor of workers that have no lane to be watched."""

    def watch(self, fd: int, ready: Callable[[], None], *, writing: bool = False) -> None:
        raise AssertionError("there is no lane")

    def release(self, fd: int, close: Callable[[], None]) -> None:
        raise AssertionError("there is no lane")


class Nursery:
    """A fork server of its own, without a pool around it: workers and nothing else."""

    def __init__(self) -> None:
        self._store = SessionStore()
        self._directory = SocketDirectory.create("benchmark")
        plan = ForkPlan.make(None, PoolConfig()).with_directory(self._directory.path)
        self._server = ForkServer.start(plan, self._store.descriptors())
        self._number = 0
        message = self._server.receive()
        if not isinstance(message, Imported):
            raise RuntimeError(f"the fork server did not start: {message}")

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._directory.remove()
        self._store.close()

    def spawn(self) -> Incarnation:
        """Ask for a worker, and wait for nothing."""
        self._number += 1
        path = self._directory.socket_path(0, self._number)
        worker, [theirs] = Incarnation.prepare(
            0, self._number, path, reactor=_Nobody(), lane="grpc", spin=0
        )
        with theirs:
            self._server.spawn(
                0,
                self._number,
                channel_fd=theirs.fileno(),
                status_fd=worker.status.fd,
                socket_path=path,
                token=worker.token,
            )
        return worker

    def until(self, worker: Incarnation, event: str) -> Incarnation:
        """Wait until the worker has told ``event``."""
        while True:
            frame = recv_frame(worker.channel)
            if frame is None:
                raise RuntimeError("the worker died")
            if codec.decode(frame[0])["event"] == event:
                return worker

    def bury(self, worker: Incarnation) -> None:
        """Kill a worker, and wait for its end."""
        while True:
            message = self._server.receive()
            if isinstance(message, Forked):
                kill_group(message.pid)
                worker.pid, worker.pidfd = message.pid, message.pidfd
            elif isinstance(message, Exited):
                break
        worker.channel.close()
        worker.close()


def private_memory(pid: int) -> int:
    """Bytes that are this process's alone: what its end would give back."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    lines = (line.split() for line in rollup.splitlines()[1:])
    return sum(1024 * int(line[1]) for line in lines if line[0].startswith("Private_"))


@contextlib.contextmanager
def compiled_once() -> Iterator[dict[str, str]]:
    """An environment in which modules are compiled by their first import, as at a user's."""
    with tempfile.TemporaryDirectory() as folder:
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        yield {**inherited, "PYTHONPYCACHEPREFIX": folder}


def seconds(action: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
