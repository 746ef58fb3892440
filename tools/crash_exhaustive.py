"""Kills a process at every instruction of every operation of the compiled store.

    python -m tools.crash_exhaustive [--stride N] [--all] [--operation NAME]... [--list]

After each kill the survivor reads without waiting, locks every stripe, checks the whole segment
and goes on: everything has its old or its new value, and no block is lost. The segment is put
back as it was between kills. What outlives a process are the segment's bytes and its list of
robust mutexes; an instruction that changes neither leaves what the one before it left, so it is
killed at only with --all. Prints a table, and fails if a promise was broken.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from operator import setitem
from typing import Any

from snakepit_mp import _accel
from snakepit_mp.errors import VariableExists
from snakepit_mp.session import VariableMapping
from snakepit_mp.store import crashpoints
from snakepit_mp.store.access import VariableAccess
from snakepit_mp.store.layout import (
    PAGES,
    SMALL_MOST,
)
from snakepit_mp.store.places import NewVariable
from snakepit_mp.values.codec import encode
from tools.crash_world import CLOCK, Call, World
from tools.single_step import Astray, Program, Trace, refusal

__all__ = ["OPERATIONS", "Result", "World", "examine"]

#: A kill that led elsewhere is tried again, since the kernel's clock may take a step more.
_TRIES = 5
#: Bytes whose encoding just fits into a page.
_LONGEST = SMALL_MOST - len(encode(bytes(SMALL_MOST))) + SMALL_MOST


@dataclass(frozen=True)
class Operation:
    """``arm`` is called in the child and returns the call; ``entry`` names its function.

    ``before``: what happens first, in the parent.
    """

    arm: Callable[[World], Call]
    entry: str = "write"
    before: Callable[[World], object] = lambda world: None


def _large(world: World) -> Call:
    world.allocate(10_000)()  # the child's slot
    return world.write("large", b"n" * 9_000)


def _allocated(world: World, size: int) -> Call:
    world.allocate(10_000)()  # the child's slot
    return world.allocate(size)


def _dropped(world: World, name: str, *arguments: object) -> Call:
    """A view or an allocation that is given up."""
    held = [getattr(world.raw, name)(*arguments)]
    return held.clear


def _left_at(wanted: str, doomed: Callable[[World], Call]) -> Callable[[World], None]:
    """Leave the store as a kill at a labelled step does."""

    def before(world: World) -> None:
        def step(label: str) -> None:
            if label == wanted:
                os.kill(os.getpid(), signal.SIGKILL)

        pid = os.fork()
        if pid == 0:
            try:
                world.store.after_fork()
                call = doomed(world)
                crashpoints.step = step
                _speedups().report_steps(True)
                call()
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != -signal.SIGKILL:
            raise Astray(f"nobody met {wanted}")

    return before


def _rich(world: World) -> Call:
    """Takes a new page and runs, and makes others garbage."""
    return world.write("large", b"n" * 30_000, "block", b"c" * 4_000, "kept", b"x" * 9_000)


def _mapping(world: World) -> VariableMapping:
    """One that remembers where its variables lie."""
    mapping = VariableMapping(world.store, world.place.name)
    for name in ("float", "string", "integer"):
        mapping[name]
    return mapping


def _with_page(world: World) -> Call:
    """The same under a stripe's lock alone."""
    return world.write("block", b"c" * 4_000, "kept", b"x" * 2_000, "v9", b"y" * 1_000)


def _tidy(world: World) -> Call:
    return world.call("tidy", world.place.stripe)


def _bury(world: World) -> None:
    """Leave a deleted session whose variables are still to be freed."""
    for number in range(40):
        world.register(f"more{number}", b"m" * 50)
    world.raw.delete_session(world.place)


OPERATIONS: dict[str, Operation] = {
    "set inline": Operation(lambda world: world.write("small", b"t" * 20)),
    "set block": Operation(lambda world: world.write("block", b"c" * 501)),
    "set longest block": Operation(lambda world: world.write("block", b"c" * _LONGEST)),
    "set large": Operation(_large),
    "set large, first": Operation(lambda world: world.write("large", b"n" * 9_000)),
    "set history": Operation(lambda world: world.write("kept", b"n" * 100)),
    "batch": Operation(
        lambda world: world.write(*(x for n in range(12) for x in (f"v{n}", b"w" * (1 + n * 41))))
    ),
    "set through a mapping": Operation(
        lambda world: partial(setitem, _mapping(world), "float", 2.5), "VariableAccess.__setitem__"
    ),
    "batch through a mapping": Operation(
        lambda world: partial(
            _mapping(world)._update, {"float": 2.5, "string": "t" * 20, "integer": 7}
        ),
        "VariableAccess._update",
    ),
    "create variable": Operation(
        lambda world: world.call(
            "register", world.place, world.key("x"), NewVariable(b"any", b"x" * 40, b"f"), False
        ),
        "register",
    ),
    "create variable with history": Operation(
        lambda world: world.call(
            "register", world.place, world.key("x"), NewVariable(b"any", b"x", b"f", 4), False
        ),
        "register",
    ),
    "delete variable": Operation(
        lambda world: world.call("delete_variable", world.place, world.key("kept")),
        "delete_variable",
    ),
    "constrain": Operation(
        lambda world: world.call(
            "constrain",
            world.place,
            world.key("small"),
            world.raw.versions(world.place, [world.key("small")])[0][0],
            0,
            1,
            b"new facts",
        ),
        "constrain",
    ),
    "create session": Operation(
        lambda world: world.call("create_session", world.new, 0, b"metadata", False),
        "create_session",
    ),
    "delete session": Operation(
        lambda world: world.call("delete_session", world.place), "delete_session"
    ),
    "sweep": Operation(
        lambda world: world.call("sweep", world.place.stripe),
        "sweep",
        lambda world: world.raw.freeze_clock(CLOCK + 2 * 10**9),
    ),
    "bury": Operation(_tidy, "tidy", _bury),
    "view": Operation(lambda world: world.call("value", world.place, world.key("large")), "value"),
    "allocate": Operation(lambda world: _allocated(world, 40_000), "allocate"),
    "grow": Operation(lambda world: _allocated(world, 2_000_000), "allocate"),
    "give up": Operation(lambda world: _dropped(world, "allocate", 10_000), "~Allocation"),
    "view dropped": Operation(
        lambda world: _dropped(world, "values", world.place, [world.key("large")]), "~Pin"
    ),
    "collect": Operation(
        lambda world: world.call("collect"), "collect", _left_at("stripe.logged", _large)
    ),
    "collect committed": Operation(
        lambda world: world.call("collect"), "collect", _left_at("stripe.committed", _large)
    ),
}
for _label in crashpoints.LABELS:
    if _label.startswith("allocator"):  # first met where no stripe is locked
        OPERATIONS[f"repair after {_label}, alone"] = Operation(
            lambda world: world.allocate(40_000), "allocate", _left_at(_label, _rich)
        )
    if _label != "segment.grown":
        OPERATIONS[f"repair after {_label}"] = Operation(
            _tidy, "tidy", _left_at(_label, _with_page)
        )


@dataclass
class Result:
    """What came of an operation."""

    name: str
    instructions: int = 0
    changing: int = 0
    kills: int = 0
    missed: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)


def _speedups() -> Any:
    return _accel.speedups


def _entry_of(world: World, name: str) -> int:
    """The address of a method's function, or with ``~`` of what frees an object of that type."""
    if name.startswith("~"):
        kind = {"~Pin": _pin_type, "~Allocation": _allocation_type}[name](world)
        return ctypes.c_uint64.from_address(id(kind) + 48).value  # tp_dealloc
    if name == "VariableAccess.__setitem__":
        wrapper = VariableAccess.__dict__["__setitem__"]
        return ctypes.c_uint64.from_address(id(wrapper) + 48).value  # d_wrapped
    owner = VariableAccess if name.startswith("VariableAccess") else type(world.raw)
    method = owner.__dict__[name.rpartition(".")[2]]
    definition = ctypes.c_uint64.from_address(id(method) + 40).value  # d_method
    return ctypes.c_uint64.from_address(definition + 8).value  # ml_meth


def _allocation_type(world: World) -> type:
    return type(world.raw.allocate(10_000))


def _pin_type(world: World) -> type:
    return type(world.raw.value(world.place, world.key("large")).obj)


@contextmanager
def _world(operation: Operation) -> Iterator[World]:
    world = World()
    try:
        operation.before(world)
        yield world
    finally:
        world.store.close()


def examine(name: str, stride: int = 1, everywhere: bool = False) -> Result:
    """Kill at every ``stride``-th instruction of an operation that changes something, or of all."""
    result = Result(name)
    began = time.monotonic()
    with _world(OPERATIONS[name]) as world:
        _Examination(world, OPERATIONS[name], result).run(stride, everywhere)
    result.seconds = time.monotonic() - began
    return result


class _Examination:
    """One operation, killed everywhere."""

    def __init__(self, world: World, operation: Operation, result: Result) -> None:
        self._world = world
        self._result = result
        self._operation = operation
        self._entry = _entry_of(world, operation.entry)

    def _arm(self) -> Call:
        self._world.store.after_fork()
        return self._operation.arm(self._world)

    def run(self, stride: int, everywhere: bool) -> None:
        world = self._world
        little = world.copy(world.segment.words[PAGES])
        before = world.contents(), world.tidied()
        world.restore(little)
        self._once()
        pages = world.segment.words[PAGES]
        shared = world.watched(little)
        self._allowed = [before, (world.contents(), world.tidied())]
        world.restore(little)
        with closing(Program(self._entry, self._arm)) as program:
            self._kill_all(program, shared, world.copy(pages), stride, everywhere)

    def _kill_all(
        self,
        program: Program,
        shared: Callable[[], object],
        start: list[tuple[slice, bytes]],
        stride: int,
        everywhere: bool,
    ) -> None:
        trace = program.trace(shared)
        self._world.restore(start)
        self._result.instructions = len(trace.inside)
        self._result.changing = len(trace.changing)
        for number in (trace.inside if everywhere else trace.changing)[::stride]:
            if not self._kill(program, trace, number, start):
                self._result.missed += 1
                continue
            self._result.kills += 1
            for problem in self._problems():
                self._note(trace.at[number], number, problem)
            self._world.restore(start)

    def _once(self) -> None:
        """Let a child do it."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._arm()()
                status = 0
            finally:
                os._exit(status)
        if os.waitpid(pid, 0)[1]:
            raise Astray("the operation fails")

    def _kill(
        self, program: Program, trace: Trace, number: int, start: list[tuple[slice, bytes]]
    ) -> bool:
        for _ in range(_TRIES):
            with suppress(Astray):
                program.kill_at(trace, number)
                return True
            self._world.restore(start)
        return False

    def _note(self, address: int, number: int, problem: str) -> None:
        where = f"instruction {number} at entry{address - self._entry:+#x}"
        self._result.violations.append(f"{self._result.name}, {where}: {problem}")

    def _problems(self) -> list[str]:
        """What a survivor finds: another process, so that this one stays as it is."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._world.store.after_fork()
                os.write(writer, "\n".join(self._found())[:4_000].encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            told = pipe.read().decode()
        if os.waitpid(pid, 0)[1]:
            told += "\nthe survivor did not live"
        return told.splitlines()

    def _found(self) -> list[str]:
        world = self._world
        try:
            seen = world.contents()  # readers do not wait for a repair
            problems = world.store.verify()  # locks every stripe
            if world.contents() != seen:
                problems.append("a repair changed what readers see")
            used = world.tidied()
            if not any(seen == contents for contents, _ in self._allowed):
                problems.append("neither the old nor the new value")
            elif not any((seen, used) == allowed for allowed in self._allowed):
                wanted = [pages for contents, pages in self._allowed if contents == seen]
                problems.append(f"{used} pages are in use, not {wanted}")
            self._go_on()
            return problems + world.store.verify()
        except Exception as error:  # noqa: BLE001  it is told, whatever it is
            return [f"{type(error).__name__}: {error}"]

    def _go_on(self) -> None:
        """Others use what was touched."""
        world = self._world
        world.raw.create_session(world.place, 0, b"", True)
        for name in ("small", "large", "block", "kept", "x"):
            with suppress(VariableExists):
                world.register(name, b"a" * 60)
            world.write(name, name.encode() * 90)()
        world.tidied()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stride", type=int, default=1, help="kill at every N-th instruction")
    parser.add_argument("--all", action="store_true", help="also where nothing has changed")
    parser.add_argument("--operation", action="append", help="one of --list; may come again")
    parser.add_argument("--list", action="store_true", help="print the operations, and do nothing")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    if arguments.list:
        print("\n".join(OPERATIONS))
        return 0
    reason = refusal() or (None if _speedups() else "there is no compiled store to step through")
    if reason:
        print(f"nothing done: {reason}")
        return 2
    print(
        f"{'operation':40} {'instructions':>12} {'changing':>9} {'kills':>7} {'missed':>6} {'s':>6}  violations"
    )
    broken = 0
    for name in arguments.operation or OPERATIONS:
        result = examine(name, arguments.stride, arguments.all)
        print(
            f"{name:40} {result.instructions:12} {result.changing:9} "
            f"{result.kills:7} {result.missed:6} {result.seconds:6.1f}  {len(result.violations)}",
            flush=True,
        )
        for violation in result.violations[:5]:
            print(f"    {violation}")
        broken += len(result.violations)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
