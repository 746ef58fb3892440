"""An application with a fork server, to be killed. Prints what must not outlive it, as JSON.

The argument says how it is when it is ready: ``serving``, ``importing`` (the adapter's module
does not return), ``held`` (a forked bystander holds its end of the channel) or both.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

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
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
with open("importing", "w") as fifo:
    fifo.write(str(child.pid))
time.sleep(600)
"""


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


def main() -> None:
    modes = sys.argv[1].split(",")
    importing = "importing" in modes
    Path("family.py").write_text(NEVER_RETURNS if importing else FAMILY, encoding="utf-8")
    if importing:
        os.mkfifo("importing")
    sys.path.insert(0, os.getcwd())
    store = SessionStore(StoreConfig(max_bytes=1 << 22))
    directory = SocketDirectory.create()
    plan = ForkPlan.make("family:Family", PoolConfig(store=store)).with_directory(directory.path)
    server = ForkServer.start(plan, store.descriptors())
    pids = [server.pid]
    if importing:
        pids.append(int(Path("importing").read_text(encoding="ascii")))
    else:
        server.receive()
        for worker_id in range(2):
            pids += spawn(server, directory, worker_id)
    bystander = os.fork() if "held" in modes else 0
    if "held" in modes and bystander == 0:
        time.sleep(600)
    facts = {"pids": pids, "bystander": bystander, "directory": str(directory.path)}
    print(json.dumps(facts), flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
