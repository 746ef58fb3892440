"""What disturbs a reader, or wakes it? A process that writes to the store as it is told.

Run as a script, with the store's descriptors, the session and the sessions in other stripes. A
byte on its standard input is an order, answered by the same byte; the end of the input ends it.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from snakepit_mp import SessionStore
from snakepit_mp.config import StoreConfig
from snakepit_mp.session import Session

__all__ = ["ECHO", "IDLE", "MODES", "STAMPS", "Writer"]

IDLE, NEIGHBOUR, STAMPS, ECHO = b"i", b"n", b"t", b"e"
#: What a reader is measured beside. The neighbour writes to a dict of its own just as busily:
#: what it costs is the machine's doing, not the store's.
MODES = {
    "nobody": IDLE,
    "a busy neighbour": NEIGHBOUR,
    "a writer in other stripes": b"o",
    "a writer in the session": b"s",
    "a writer of the variable": b"v",
}
_BURST = 200
#: Seconds between two stamps: long enough for who waits to sleep.
_PAUSE = 0.002


class Writer:
    """The process, from the side of who measures."""

    def __init__(self, store: SessionStore, session_id: str, elsewhere: list[str]) -> None:
        descriptors = store.descriptors()
        command = [sys.executable, __file__, ",".join(map(str, descriptors))]
        self._process = subprocess.Popen(
            [*command, session_id, *elsewhere],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=descriptors,
        )
        self.order(IDLE)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """It and this process on cores of their own, so that both do run at once."""
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:1])
        os.sched_setaffinity(self._process.pid, cores[-1:])
        try:
            yield
        finally:
            os.sched_setaffinity(0, cores)
            os.sched_setaffinity(self._process.pid, cores)

    def order(self, mode: bytes) -> None:
        """Return when it is doing that. Between two idle moments it costs a round of pipes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(mode)
        if self._process.stdout.read(1) != mode:
            raise RuntimeError("the writer died")


def ordered() -> bool:
    return bool(select.select([0], [], [], 0)[0])


def hammer(targets: list[Session] | list[dict[str, float]], name: str) -> None:
    """Write to each in turn until there is an order."""
    while not ordered():
        for target in targets:
            for _ in range(_BURST):
                target[name] = 0.7


def stamp(session: Session) -> None:
    """Write what time it is, again and again."""
    while not ordered():
        time.sleep(_PAUSE)
        session["stamp"] = time.monotonic_ns()


def echo(session: Session) -> None:
    """Answer every change of one variable by a change of another; the first is the present one."""
    answered = None
    while not ordered():
        changes = session.watch(["ping"], timeout=0.05)
        number = session["ping"]  # may have changed before the watch began
        while True:
            if number != answered:
                session["pong"] = answered = number
            change = next(changes, None)
            if change is None:
                break
            number = change.value


def main() -> None:
    descriptors, here, *elsewhere = sys.argv[1:]
    store = SessionStore.attach(map(int, descriptors.split(",")), StoreConfig())
    session = Session(store, here)
    others = [Session(store, name) for name in elsewhere]
    work: dict[bytes, Callable[[], None]] = {
        IDLE: lambda: None,
        NEIGHBOUR: lambda: hammer([{}], "x"),
        b"o": lambda: hammer(others, "x"),
        b"s": lambda: hammer([session], "y"),
        b"v": lambda: hammer([session], "x"),
        STAMPS: lambda: stamp(session),
        ECHO: lambda: echo(session),
    }
    while mode := os.read(0, 1):
        os.write(1, mode)
        work[mode]()
    store.close()


if __name__ == "__main__":
    main()
