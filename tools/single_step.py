"""Stops a forked child at any instruction of a compiled function, and kills it there.

The children are forked by a template that does nothing else: where their memory lies decides
which way the C library copies, so they must all find the heap as the first one did. A breakpoint
stands where the function begins. One run is stepped through to learn its instructions; every
later run is the same, so it gets a breakpoint close before the wanted instruction and takes the
last steps one by one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Astray", "Program", "Trace", "refusal"]

_PEEKUSER, _POKEUSER, _PEEKTEXT, _POKETEXT = 3, 6, 1, 4
_CONT, _SINGLESTEP, _SEIZE, _INTERRUPT, _EXITKILL = 7, 9, 0x4206, 0x4207, 0x00100000
_ALL = 0x40000000  # __WALL: wait for who is traced, though another one's child
_RIP, _RSP = 16 * 8, 19 * 8
_INT3 = 0xCC
_GET_ROBUST_LIST = 274
#: Steps that are rather taken than looked for a breakpoint that saves them.
_NEAR = 250
#: A breakpoint that is passed costs about so many steps.
_PASS_COSTS = 5
#: Of the rounds of one string instruction only some are kept: the first, the last, every so many.
_ROUNDS_APART = 997

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Astray(Exception):
    """The child did not come where it was expected."""


def _ptrace(request: int, pid: int, address: int, data: int) -> int:
    ctypes.set_errno(0)
    result: int = _libc.ptrace(request, pid, address, data)
    if result == -1 and (error := ctypes.get_errno()):
        raise OSError(error, f"ptrace: {os.strerror(error)}")
    return result & (1 << 64) - 1


def _wait(pid: int) -> None:
    """Until it stops at a trap."""
    status = os.waitpid(pid, _ALL)[1]
    if not os.WIFSTOPPED(status):
        raise Astray(f"it ended: {os.waitstatus_to_exitcode(status)}")
    if os.WSTOPSIG(status) != signal.SIGTRAP:
        raise Astray(f"it got signal {os.WSTOPSIG(status)}")


def _robust_list(pid: int) -> tuple[int, int]:
    """The locks that the kernel gives up for it when it dies: the list, and what is pending."""
    head, size = ctypes.c_void_p(), ctypes.c_size_t()
    _libc.syscall(_GET_ROBUST_LIST, pid, ctypes.byref(head), ctypes.byref(size))
    if not head.value:
        return 0, 0
    return _ptrace(_PEEKTEXT, pid, head.value, 0), _ptrace(_PEEKTEXT, pid, head.value + 16, 0)


def _step(pid: int) -> int:
    """One instruction; where the next one is."""
    _ptrace(_SINGLESTEP, pid, 0, 0)
    _wait(pid)
    return _ptrace(_PEEKUSER, pid, _RIP, 0)


def _plant(pid: int, address: int) -> int:
    """Set a breakpoint; the word that was there."""
    word = _ptrace(_PEEKTEXT, pid, address, 0)
    _ptrace(_POKETEXT, pid, address, word & ~0xFF | _INT3)
    return word


def _run_to(pid: int, address: int, times: int = 1) -> None:
    """Stop where ``address`` is about to be executed for the ``times``-th time."""
    word = _plant(pid, address)
    while True:
        _ptrace(_CONT, pid, 0, 0)
        _wait(pid)
        if _ptrace(_PEEKUSER, pid, _RIP, 0) != address + 1:
            raise Astray("it stopped elsewhere")
        _ptrace(_POKETEXT, pid, address, word)
        _ptrace(_POKEUSER, pid, _RIP, address)
        times -= 1
        if times == 0:
            return
        _step(pid)
        _plant(pid, address)


def refusal() -> str | None:
    """Why processes cannot be stepped here; ``None`` if they can."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return "stepping is written for Linux on x86-64"
    with contextlib.closing(_Template(lambda: lambda: None)) as template:
        pid = template.fork()
        try:
            _ptrace(_SEIZE, pid, 0, _EXITKILL)
        except OSError as error:
            template.let_go()
            return f"ptrace is refused: {error.strerror}"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, _ALL)
    return None


def _texts(part: str) -> list[range]:
    """Where the code of the files lies whose name has ``part`` in it."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, rights, *_, name = line.split(None, 5)
        if "x" in rights and part in name:
            first, last = (int(end, 16) for end in where.split("-"))
            found.append(range(first, last))
    return found


@dataclass
class Trace:
    """The instructions of one call: ``at[k]`` is the next one after ``k`` steps.

    ``changing``: the ``k`` whose last step changed something that outlives the process.
    ``inside``: those of the extension, and of the C library where the extension called it.
    """

    at: list[int]
    changing: list[int]
    inside: list[int] = field(default_factory=list)
    #: How often an instruction of the extension has come by then; 0: it is another's.
    times: list[int] = field(default_factory=list)
    #: How often the interpreter has been entered by then, or the kernel's clock read: they need
    #: not do the same twice.
    visits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        own, libraries = _texts("_speedups"), _texts("/libc.so") + _texts("/ld-linux")
        kernel = _texts("[vdso]")
        seen: Counter[int] = Counter()
        called_by_own, visits = False, 0
        for number, address in enumerate(self.at):
            inside = any(address in text for text in own)
            library = any(address in text for text in libraries)
            seen[address] += inside
            self.times.append(seen[address] if inside else 0)
            if any(address in text for text in kernel):
                visits += 1
            elif not library:
                visits += called_by_own and not inside
                called_by_own = inside
            self.visits.append(visits)
            if inside or (library and called_by_own):
                self.inside.append(number)
        self.inside = [number for number in self.inside if not self._is_one_of_many(number)]
        self.changing = [number for number in self.changing if not self._is_one_of_many(number)]

    def _is_one_of_many(self, number: int) -> bool:
        """Whether it is a round of a string instruction that need not be looked at."""
        around = self.at[max(number - 2, 0) : number + 2]
        return len(around) == 4 and len(set(around)) == 1 and number % _ROUNDS_APART != 0

    def start_for(self, number: int) -> int:
        """The instruction before ``number`` at which a breakpoint saves most.

        One of the extension, with no visit to the interpreter or the clock in between.
        """
        nearest = number
        while not self.times[nearest]:
            nearest -= 1
        near = range(max(number - _NEAR, 0), nearest)
        places = [k for k in near if self.times[k] and self.visits[k] == self.visits[nearest]]
        places.append(nearest)
        return min(places, key=lambda k: _PASS_COSTS * self.times[k] + number - k)


class _Template:
    """A process that forks children in which ``arm()()`` is called: all of them are the same."""

    def __init__(self, arm: Callable[[], Callable[[], object]]) -> None:
        self._arm = arm
        (told, orders), (heard, tell) = os.pipe(), os.pipe()
        (self._gate, self._open), self._ends = os.pipe(), [orders, heard]
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(orders)
                os.close(self._open)
                self._serve(told, tell)
            finally:
                os._exit(1)
        os.close(told)
        os.close(tell)

    def _serve(self, told: int, tell: int) -> None:
        gc.disable()
        while os.read(told, 1):
            pid = os.fork()
            if pid == 0:
                self._call(tell)
            os.waitpid(pid, 0)

    def _call(self, tell: int) -> None:
        status, ready = 1, 0
        try:
            try:
                call = self._arm()
                ready = os.getpid()
            finally:
                os.write(tell, ready.to_bytes(4, "little"))
            os.read(self._gate, 1)
            call()
            status = 0
        finally:
            os._exit(status)

    def fork(self) -> int:
        """A child that waits before its call until it is let go."""
        orders, heard = self._ends
        os.write(orders, b".")
        pid = int.from_bytes(os.read(heard, 4), "little")
        if pid == 0:
            raise Astray("there is no call to make")
        return pid

    def let_go(self) -> None:
        os.write(self._open, b".")

    def close(self) -> None:
        for end in (*self._ends, self._gate, self._open):
            os.close(end)
        os.waitpid(self._pid, 0)


class Program:
    """A call that can be made in any number of children. ``entry``: address of the function.

    ``arm`` runs in the child and returns the call; the first time that this enters the
    function is what is looked at. To be closed.
    """

    def __init__(self, entry: int, arm: Callable[[], Callable[[], object]]) -> None:
        self._entry = entry
        self._template = _Template(arm)

    def close(self) -> None:
        self._template.close()

    @contextlib.contextmanager
    def _stopped(self) -> Iterator[int]:
        """A child that is stopped where the function begins; killed in the end."""
        pid = self._template.fork()
        try:
            _ptrace(_SEIZE, pid, 0, _EXITKILL)
            _ptrace(_INTERRUPT, pid, 0, 0)
            _wait(pid)
            self._template.let_go()
            _run_to(pid, self._entry)
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it ended by itself
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, _ALL)

    def trace(self, shared: Callable[[], object]) -> Trace:
        """Step through the whole call, and let the child end. ``shared``: what outlives it."""
        with self._stopped() as pid:
            stack = _ptrace(_PEEKUSER, pid, _RSP, 0)
            home = _ptrace(_PEEKTEXT, pid, stack, 0)
            at, changing, last = [self._entry], [0], (shared(), _robust_list(pid))
            while (address := _step(pid)) != home or _ptrace(_PEEKUSER, pid, _RSP, 0) <= stack:
                now = shared(), _robust_list(pid)
                if now != last:
                    changing.append(len(at))
                last = now
                at.append(address)
            _ptrace(_CONT, pid, 0, 0)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, _ALL)[1])
        if status != 0:
            raise Astray(f"the call failed: {status}")
        return Trace(at, changing)

    def kill_at(self, trace: Trace, number: int) -> None:
        """Kill a child that has executed ``number`` instructions of the call."""
        with self._stopped() as pid:
            start = trace.start_for(number) if number else 0
            if start:
                _run_to(pid, trace.at[start], trace.times[start])
            for _ in range(number - start):
                _step(pid)
            if _ptrace(_PEEKUSER, pid, _RIP, 0) != trace.at[number]:
                raise Astray(f"instruction {number} is another one this time")
