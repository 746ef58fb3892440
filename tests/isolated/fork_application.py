"""An application with a fork server, to be killed. Prints what must not outlive it, as JSON.

The argument says how it is when it is ready: ``serving``, ``importing`` (the adapter's module
does not return), ``starting`` (the interpreter does not get that far, since ``sitecustomize``
does not return) or ``begun`` (the server is not waited for); and, after a comma, ``held`` if a
forked bystander holds its end of the channel.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import psutil

from snakepit_mp.config import PoolConfig, StoreConfig
from snakepit_mp.lanes.frames import recv_frame
from snakepit_mp.lanes.status import StatusPage
from snakepit_mp.runtime.cleanup import SocketDirectory
from snakepit_mp.runtime.forkserver import Forked, ForkPlan, ForkServer
from snakepit_mp.store.session_store import SessionStore
from snakepit_mp.values import codec

FAMILY = """
import os, subprocess, sys
from snakepit_mp.adapter import Adapter

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]

class Family(Adapter):
    def start(self):
        pids = [
            subprocess.Popen(SLEEP).pid,
            subprocess.Popen(SLEEP, start_new_session=True).pid,
        ]
        with open(f"family.{os.getpid()}", "w") as file:
            file.write(" ".join(map(str, pids)))
"""

NEVER_RETURNS = """
import os, subprocess, sys, time
if os.environ.get("HANG_IN") == __name__:
    SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    near = subprocess.Popen(SLEEP)
    far = subprocess.Popen(SLEEP, start_new_session=True)
    with open("hanging", "w") as fifo:
        fifo.write(f"{os.getpid()} {near.pid} {far.pid}")
    time.sleep(600)
"""
HANGING = {"importing": "family", "starting": "sitecustomize"}


def spawn(server: ForkServer, directory: SocketDirectory, worker_id: int) -> list[int]:
    """A worker that serves; it and its children."""
    ours, theirs = socket.socketpair()
    page = StatusPage.create()
    server.spawn(
        worker_id,
        0,
        channel_fd=theirs.fileno(),
        status_fd=page.fd,
        socket_path=directory.socket_path(worker_id, 0),
        token="secret",
    )
    theirs.close()
    forked = server.receive()
    assert isinstance(forked, Forked), forked
    for _ in ("started", "serving"):
        received = recv_frame(ours)
        assert received is not None
        assert codec.decode(received[0])["event"] != "failed"
    os.set_inheritable(ours.detach(), False)  # stays open as long as this process lives
    family = Path(f"family.{forked.pid}").read_text(encoding="ascii").split()
    return [forked.pid, *map(int, family)]


def prepare(mode: str) -> None:
    """Write what the server will import."""
    Path("family.py").write_text(FAMILY, encoding="utf-8")
    if mode in HANGING:
        Path(f"{HANGING[mode]}.py").write_text(NEVER_RETURNS, encoding="utf-8")
        os.environ["HANG_IN"] = HANGING[mode]
        os.environ["PYTHONPATH"] = os.getcwd()
        os.mkfifo("hanging")
    sys.path.insert(0, os.getcwd())


def family_of(server: ForkServer, directory: SocketDirectory, mode: str) -> list[int]:
    """The processes of the fork server, once it is as ``mode`` says."""
    if mode == "begun":
        return []
    if mode in HANGING:
        return [int(pid) for pid in Path("hanging").read_text(encoding="ascii").split()]
    server.receive()
    workers = [pid for number in range(2) for pid in spawn(server, directory, number)]
    return [psutil.Process(workers[0]).ppid(), *workers]


def main() -> None:
    mode, _, held = sys.argv[1].partition(",")
    prepare(mode)
    store = SessionStore(StoreConfig(max_bytes=1 << 22))
    directory = SocketDirectory.create()
    plan = ForkPlan.make("family:Family", PoolConfig(store=store)).with_directory(directory.path)
    server = ForkServer.start(plan, store.descriptors())
    pids = [server.pid, *family_of(server, directory, mode)]
    bystander = os.fork() if held else 0
    if held and bystander == 0:
        time.sleep(600)
    facts = {"pids": pids, "bystander": bystander, "directory": str(directory.path)}
    print(json.dumps(facts), flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
