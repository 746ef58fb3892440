"""Tools that do not want to stop, and tools that note how they were stopped."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from pool_adapters import PlainError

from snakepit_mp import Adapter, tool

FOREVER = 600.0


def _note(path: str, word: str) -> None:
    with open(path, "a", encoding="utf-8") as ledger:
        ledger.write(f"{word}\n")


def words(path: Path) -> list[str]:
    """What was noted so far."""
    return path.read_text(encoding="utf-8").split() if path.exists() else []


class Stubborn(Adapter):
    """Each tool writes ``entered`` to ``path`` before it does what its name says."""

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def sleep(self, path: str) -> None:
        try:
            _note(path, "entered")
            time.sleep(FOREVER)
        finally:
            _note(path, "tidied")

    @tool
    def nap(self, seconds: float, value: Any) -> Any:
        time.sleep(seconds)
        return value

    @tool
    def wait_for_lock(self, path: str) -> None:
        lock = threading.Lock()
        lock.acquire()
        _note(path, "entered")
        lock.acquire()

    @tool
    def spin(self, path: str) -> None:
        _note(path, "entered")
        while True:
            pass

    @tool
    def swallow(self, path: str) -> None:
        word = "entered"
        while True:
            try:
                _note(path, word)
                time.sleep(FOREVER)
            except BaseException:  # noqa: BLE001 - that is what it is about
                word = "swallowed"

    @tool
    def swallow_and_return(self, path: str) -> str:
        try:
            _note(path, "entered")
            time.sleep(FOREVER)
        except BaseException:  # noqa: BLE001 - that is what it is about
            return "too late"
        return "never"

    @tool
    def ignore_signals(self, path: str) -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        _note(path, "entered")
        time.sleep(FOREVER)

    @tool
    def hold_the_interpreter(self, path: str) -> None:
        """C code that never lets another thread, or a signal handler, run."""
        _note(path, "entered")
        sum(itertools.repeat(0))

    @tool
    def leave_a_thread_that_holds_the_interpreter(self) -> None:
        threading.Timer(0.1, sum, (itertools.repeat(0),)).start()

    @tool
    def hoard(self, size: int) -> None:
        self.hoarded = b"x" * size
        time.sleep(0.3)  # longer than a worker goes between two measurements of itself

    @tool
    def compute_in_c(self, seconds: float) -> int:
        """Holds the interpreter for about so long."""
        size, began = 1 << 20, time.monotonic()
        sum(itertools.repeat(0, size))
        rate = size / (time.monotonic() - began)
        began = time.monotonic()
        sum(itertools.repeat(0, int(rate * seconds)))
        return int(1000 * (time.monotonic() - began))

    @tool
    def stop_myself(self, path: str) -> None:
        _note(path, "entered")
        os.kill(os.getpid(), signal.SIGSTOP)

    @tool
    async def sleep_async(self, path: str) -> None:
        _note(path, "entered")
        try:
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            _note(path, "cancelled")
            raise

    @tool
    async def block_async(self, path: str) -> None:
        _note(path, "entered")
        time.sleep(FOREVER)  # it should know better

    @tool
    async def answer_async(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    @tool
    def stall(self, path: str) -> Iterator[int]:
        """One item, then nothing."""
        try:
            yield 1
            _note(path, "entered")
            time.sleep(FOREVER)
        finally:
            _note(path, "tidied")

    @tool
    def tidy_slowly(self, path: str) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            time.sleep(0.3)
            _note(path, "tidied")

    @tool
    async def stall_async(self, path: str) -> AsyncIterator[int]:
        try:
            yield 1
            _note(path, "entered")
            await asyncio.sleep(FOREVER)
        finally:
            _note(path, "tidied")

    @tool
    def watch_ctx(self, path: str, ctx: Any) -> None:
        """Its thread is polite; the tool itself waits for it, whatever comes."""
        seen = threading.Event()
        threading.Thread(target=self._wait_politely, args=(path, ctx, seen)).start()
        while not seen.is_set():
            try:
                seen.wait()
            except BaseException:  # noqa: BLE001 - the thread sees to it
                _note(path, "interrupted")

    @staticmethod
    def _wait_politely(path: str, ctx: Any, seen: threading.Event) -> None:
        _note(path, "entered" if not ctx.cancelled else "too-early")
        while not ctx.cancelled:
            time.sleep(0.005)
        _note(path, "saw-it")
        seen.set()

    @tool
    def write_for_ever(self, path: str, ctx: Any) -> None:
        _note(path, "entered")
        number = 0
        while True:
            number += 1
            ctx["number"] = number


class Choosy(Adapter):
    """Starts only where it finds a sign."""

    def start(self) -> None:
        if not os.path.exists(os.environ["CHOOSY"]):
            raise PlainError("no sign")

    @tool
    def echo(self, value: Any) -> Any:
        return value


class Flaky(Adapter):
    """Each tool writes its attempt to ``path`` before anything else."""

    @tool(retries=3, retry_on=(ConnectionError,))
    def connect(self, path: str, failures: int, ctx: Any) -> int:
        _note(path, str(ctx.attempt))
        if ctx.attempt <= failures:
            raise ConnectionResetError(f"attempt {ctx.attempt}")
        return ctx.attempt

    @tool(retries=3, retry_on=(ConnectionError,))
    def fail_otherwise(self, path: str, ctx: Any) -> None:
        _note(path, str(ctx.attempt))
        raise PlainError("not declared")

    @tool
    def die(self, path: str, deaths: int, ctx: Any) -> int:
        _note(path, str(ctx.attempt))
        if ctx.attempt <= deaths:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(FOREVER)
        return ctx.attempt

    @tool(retries=3, retry_on=(Exception,))
    def hang(self, path: str, ctx: Any) -> None:
        _note(path, str(ctx.attempt))
        time.sleep(FOREVER)

    @tool(retries=3, retry_on=(ConnectionError,))
    def items(self, path: str, failures: int, before: bool, ctx: Any) -> Iterator[int]:
        _note(path, str(ctx.attempt))
        if before and ctx.attempt <= failures:
            raise ConnectionResetError(f"attempt {ctx.attempt}")
        yield ctx.attempt
        if not before:
            raise ConnectionResetError(f"attempt {ctx.attempt}")

    @tool
    def mark(self, path: str, name: str) -> None:
        _note(path, name)
        time.sleep(0.005)

    @tool(idempotent=True)
    def mark_safely(self, path: str, name: str) -> None:
        _note(path, name)
        time.sleep(0.005)


class Doomed(Adapter):
    """Each tool ends its worker in its own way."""

    @tool
    def read_nowhere(self) -> None:
        ctypes.string_at(0)

    @tool
    def abort(self) -> None:
        os.abort()

    @tool(idempotent=True)
    def abort_safely(self) -> None:
        os.abort()

    @tool
    def bus(self) -> None:
        signal.raise_signal(signal.SIGBUS)

    @tool
    def grow_and_die(self, size: int, seconds: float) -> None:
        ballast = b"x" * size
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)
        ballast.hex()

    @tool
    def complain_and_die(self, lines: int) -> None:
        for number in range(lines):
            print("complaint", number, file=sys.stderr)
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    def log_and_die(self) -> None:
        doomed = logging.getLogger("doomed")
        doomed.addHandler(logging.StreamHandler())
        doomed.warning("logged before the end")
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    def leave_with(self, code: int) -> None:
        os._exit(code)


class Stormy(Adapter):
    """Tools for the storm; each worker has a ledger of its own."""

    @tool
    def mark(self, folder: str, name: str, seconds: float) -> str:
        _note(os.path.join(folder, str(os.getpid())), name)
        time.sleep(seconds)
        return name

    @tool(idempotent=True)
    def mark_again(self, folder: str, name: str, seconds: float) -> str:
        return self.mark(folder, name, seconds)

    @tool
    def hang(self) -> None:
        time.sleep(FOREVER)

    @tool
    def count(self, n: int) -> Iterator[int]:
        for number in range(n):
            time.sleep(0.001)
            yield number


def end(way: str) -> None:
    """End this process, or only seem to."""
    if way == "os._exit":
        os._exit(7)
    if way == "sys.exit":
        sys.exit(7)
    if way == "exception":
        raise ValueError("no end")
    os.kill(os.getpid(), signal.Signals[way])
    time.sleep(FOREVER)


class Fatal:
    """Ends the process that decodes it; ``here`` also the one that encodes it."""

    def __init__(self, way: str, *, here: bool = False) -> None:
        self.way = way
        self.here = here

    def __reduce__(self) -> tuple[Any, ...]:
        if self.here:
            end(self.way)
        return end, (self.way,)


class Ending:
    """A function that ends whoever loads it."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __call__(self) -> None:
        raise AssertionError("it cannot be loaded")

    def __reduce__(self) -> tuple[Any, ...]:
        return end, (self.way,)


class Garbage:
    """Ends the process that collects it."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.itself = self

    def __del__(self) -> None:
        end(self.way)


class Points(Adapter):
    """Ends at the point of a call that each tool names."""

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def in_the_tool(self, way: str) -> None:
        end(way)

    @tool
    def in_the_result(self, way: str) -> Any:
        return Fatal(way, here=True)

    @tool
    def for_the_caller(self, way: str) -> Any:
        return Fatal(way)

    @tool
    def while_sending(self, way: str, size: int) -> bytes:
        threading.Timer(0.02, end, (way,)).start()
        return bytes(size)

    @tool
    def leave_garbage(self, way: str) -> None:
        Garbage(way)

    @tool
    def collect(self) -> None:
        gc.collect()

    @tool
    def in_the_stream(self, n: int, way: str) -> Iterator[int]:
        yield from range(n)
        end(way)


class Chatty(Adapter):
    """Tools that log."""

    def start(self) -> None:
        logging.getLogger("fault_adapters.start").warning("started up")

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def talk(self, text: str, level: int) -> None:
        logging.getLogger("fault_adapters.chatty").log(level, "talked: %s", text)

    @tool
    def complain(self) -> None:
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logging.getLogger("fault_adapters.chatty").exception("it did not work")

    @tool
    def stumble(self) -> None:
        logging.getLogger("fault_adapters.chatty").warning("%d", "not a number")


class Plays(Adapter):
    """For the machine that plays with a pool; every tool notes its call first."""

    @tool
    def nap(self, path: str, name: str, seconds: float) -> str:
        _note(path, name)
        time.sleep(seconds)
        return name

    @tool(idempotent=True)
    def nap_again(self, path: str, name: str, seconds: float) -> str:
        _note(path, name)
        time.sleep(seconds)
        return name

    @tool
    def raises(self, path: str, name: str, seconds: float) -> None:
        _note(path, name)
        time.sleep(seconds)
        raise ZeroDivisionError(name)

    @tool
    def leave(self, path: str, name: str, seconds: float) -> None:
        _note(path, name)
        time.sleep(seconds)
        os._exit(3)

    @tool
    def never_stop(self, path: str, name: str, seconds: float) -> None:
        _note(path, name)
        while True:
            try:
                time.sleep(60)
            except BaseException:  # noqa: BLE001 - that is what is wrong with it
                continue

    @tool
    def items(self, path: str, name: str, seconds: float) -> Iterator[int]:
        _note(path, name)
        for number in range(5):
            time.sleep(seconds / 5)
            yield number
