"""What the workers of the tests of batches run: tiny, but for one item."""

from __future__ import annotations

import contextvars
import os
import signal
import time
from typing import Any

from snakepit_mp import Adapter, tool
from snakepit_mp.errors import VersionConflict

VISITOR: contextvars.ContextVar[int | None] = contextvars.ContextVar("VISITOR", default=None)


class Picked:
    """Travels by pickle only."""

    def __init__(self, number: int) -> None:
        self.number = number


def _enter(ledger: str, number: int) -> None:
    """Write down what was really entered, whatever becomes of the process."""
    fd = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, f"{number}\n".encode())
    finally:
        os.close(fd)


class Tiny(Adapter):
    @tool
    def mark(self, ledger: str, number: int) -> int:
        _enter(ledger, number)
        return number

    @tool
    def die_at(self, ledger: str, number: int, at: int) -> int:
        _enter(ledger, number)
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    @tool(idempotent=True)
    def die_once_at(self, ledger: str, number: int, at: int, marker: str) -> int:
        _enter(ledger, number)
        if number == at and not os.path.exists(marker):
            with open(marker, "x", encoding="utf-8"):
                os.kill(os.getpid(), signal.SIGKILL)
        return number

    @tool
    def wait_at(self, ledger: str, number: int, at: int, fifo: str) -> int:
        _enter(ledger, number)
        if number == at:
            with open(fifo, encoding="utf-8") as gate:
                gate.read()
        return number

    @tool
    def sleep_at(self, ledger: str, number: int, at: int) -> int:
        _enter(ledger, number)
        if number == at:
            time.sleep(3600)
        return number

    @tool
    def fail_at(self, number: int, at: int) -> int:
        if number == at:
            raise KeyError(number)
        return number

    @tool
    def visit(self, number: int) -> int | None:
        before = VISITOR.get()
        VISITOR.set(number)
        return before

    @tool
    def sized(self, size: int) -> str:
        return "x" * size

    @tool
    def number_of(self, picked: Any) -> int:
        return picked if isinstance(picked, int) else picked.number

    @tool
    def pick(self, number: int) -> Any:
        return Picked(number) if number % 3 == 0 else number

    @tool
    async def later(self, number: int) -> int:
        return number

    @tool
    def fork_at(self, number: int, at: int) -> int:
        if number == at:
            pid = os.fork()
            if pid == 0:
                return -1  # goes no further than the tool
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return number

    @tool
    def count(self, name: str, ctx: Any) -> None:
        variable = ctx.get_variable(name)
        while True:
            try:
                ctx.update_variable(name, variable.value + 1, expected_version=variable.version)
            except VersionConflict:
                variable = ctx.get_variable(name)
            else:
                return
