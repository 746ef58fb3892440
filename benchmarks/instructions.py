"""How many instructions of the interpreter does a warm call take, on either side?

    python benchmarks/instructions.py [RESULT.json]

Unlike times, the counts are the same on a busy machine, so that a change can be held against them;
they differ between versions of Python. What compiled code does is not in them.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from apparatus import Echo

from snakepit_mp import Pool
from snakepit_mp.lanes.envelope import Call, Kind, encode_call, outbound
from snakepit_mp.lanes.status import StatusPage
from snakepit_mp.worker.executor import Executor
from snakepit_mp.worker.socket_inbox import SocketInbox, SocketJob

CALLS = 50


def counted(action: Callable[[], object]) -> int:
    """Instructions that this thread executes in ``action``."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(None)
    return count


def caller() -> int:
    with Pool(Echo, workers=1, bridge=None, grpc=False) as pool:
        pool.await_ready()
        for _ in range(CALLS):
            pool.execute("echo", (-1,))
        return min(counted(lambda: pool.execute("echo", (-1,))) for _ in range(CALLS))


class Unheard(SocketInbox):
    """Its replies go nowhere."""

    def send(self, frame: object) -> None:
        pass


def worker() -> int:
    ours, theirs = socket.socketpair()
    inbox = Unheard(theirs)
    executor = Executor(Echo(), StatusPage.create(), context=lambda *_: None, inbox=inbox)
    body = encode_call(Call("echo", None, (), {"value": -1}), allow_pickle=True)
    counts = []
    for number in range(1, CALLS):
        frame = outbound(Kind.CALL, number, 1, body)
        assert isinstance(frame, bytes)
        inbox.put(SocketJob(inbox, frame))
        counts.append(counted(executor._run_next))
    ours.close()
    return min(counts)


def main(result: str | None = None) -> None:
    counts = {
        "of a warm `execute`, caller's side": caller(),
        "of a warm `execute`, worker's side": worker(),
    }
    print(json.dumps(counts, indent=2))
    if result is not None:
        Path(result).write_text(json.dumps(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
