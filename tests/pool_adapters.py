"""Adapters and functions that the tests' workers run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snakepit_mp import Adapter, tool


class Unpicklable:
    def __reduce__(self) -> str:
        raise TypeError("not me")


class Undecodable:
    """Pickles, but what it leaves cannot be read back."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _explode, ()


def _explode() -> None:
    raise ValueError("cannot be read back")


class HostExit:
    """A result that tries to end whoever reads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (3,)


class AwkwardError(Exception):
    """An exception whose constructor its pickle does not fit."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class PlainError(Exception):
    pass


class Tools(Adapter):
    def __init__(self) -> None:
        self.started = 0

    def start(self) -> None:
        self.started += 1

    @tool
    def echo(self, value: Any = None) -> Any:
        return value

    @tool
    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    @tool
    def where(self) -> tuple[int, int, bool, int]:
        return (
            os.getpid(),
            os.getppid(),
            threading.current_thread() is threading.main_thread(),
            (self.started),
        )

    @tool
    def fail(self, kind: str) -> None:
        if kind == "plain":
            raise PlainError("as itself")
        if kind == "awkward":
            raise AwkwardError(1, 2)
        if kind == "local":

            class LocalError(Exception):
                pass

            raise LocalError("known here only")
        if kind == "exit":
            raise SystemExit(4)
        raise ZeroDivisionError(kind)

    @tool
    def unpicklable(self) -> Any:
        return {"deep": [Unpicklable()]}

    @tool
    def undecodable(self) -> Any:
        return Undecodable()

    @tool
    def host_exit(self) -> Any:
        return HostExit()

    @tool
    def touch(self, path: str) -> None:
        with open(path, "a", encoding="utf-8") as ledger:
            ledger.write(f"{os.getpid()}\n")

    @tool
    def note_and_wait(self, path: str, fifo: str) -> str:
        """Write a line, then block until somebody opens the fifo for writing."""
        self.touch(path)
        with open(fifo, encoding="utf-8") as gate:
            return gate.read()

    @tool(idempotent=True)
    def note_and_wait_again(self, path: str, fifo: str) -> str:
        return self.note_and_wait(path, fifo)

    @tool
    def die(self, signum: int = signal.SIGKILL) -> None:
        os.kill(os.getpid(), signum)
        time.sleep(60)

    @tool(idempotent=True)
    def die_always(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    def leave(self, code: int) -> None:
        os._exit(code)

    @tool
    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    @tool(timeout=0.05)
    def sleep_too_long(self) -> None:
        time.sleep(60)

    @tool
    def spawn_child(self, marker: str) -> int:
        """A child process that outlives the call; the mark is in its command line."""
        code = f"import time; time.sleep(600)  # {marker}"
        return subprocess.Popen([sys.executable, "-c", code]).pid

    @tool
    def fork_child(self, value: int) -> int:
        """What a forked child computed."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, str(value * 2).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            answer = int(pipe.read())
        os.waitpid(pid, 0)
        return answer

    @tool
    def fork_and_hold(self, seconds: float) -> int:
        """Fork a child that keeps every descriptor of the worker open."""
        pid = os.fork()
        if pid == 0:
            time.sleep(seconds)
            os._exit(0)
        return pid

    @tool
    async def later(self, value: Any) -> Any:
        await asyncio.sleep(0.001)
        return value

    @tool
    def numbers(self, n: int) -> Iterator[int]:
        yield from range(n)

    @tool
    def endless(self, path: str) -> Iterator[int]:
        """Counts until it is closed, and notes that it was."""
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            Path(path).write_text("closed", encoding="utf-8")

    @tool
    def breaks_after(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise PlainError("after the items")

    @tool
    def stalls_after(self, n: int) -> Iterator[int]:
        yield from range(n)
        time.sleep(60)
        yield n

    @tool
    def dies_after(self, n: int) -> Iterator[int]:
        yield from range(n)
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    def session_of(self, ctx: Any) -> tuple[str | None, int]:
        return ctx.session_id, ctx.attempt

    @tool
    def read(self, name: str, ctx: Any) -> Any:
        return ctx[name]

    @tool
    def write(self, name: str, value: Any, ctx: Any) -> None:
        ctx[name] = value

    @tool
    def increment(self, name: str, ctx: Any) -> int:
        """Add one, by compare-and-set: correct whatever the others do."""
        from snakepit_mp.errors import VersionConflict

        while True:
            variable = ctx.get_variable(name)
            try:
                return ctx.update_variable(
                    name, variable.value + 1, expected_version=variable.version
                )
            except VersionConflict:
                continue


class BrokenStart(Adapter):
    def start(self) -> None:
        raise PlainError("no model here")

    @tool
    def echo(self, value: Any) -> Any:
        return value


class SlowStart(Adapter):
    def start(self) -> None:
        time.sleep(60)


class DiesAtStart(Adapter):
    def start(self) -> None:
        os._exit(7)


def square(x: int) -> int:
    return x * x
