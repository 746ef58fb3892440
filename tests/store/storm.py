"""Processes do everything at random while a killer goes round; then every promise is looked at.

    python tests/store/storm.py [--seconds 60] [--processes 8] [--seed 7]

Moments are random here on purpose: this looks for what the exact tests do not think of.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snakepit_mp import _accel
from snakepit_mp.config import StoreConfig
from snakepit_mp.errors import (
    SessionNotFound,
    StoreBusy,
    StoreFull,
    VariableExists,
    VariableNotFound,
    VersionConflict,
)
from snakepit_mp.store.layout import ALLOCATOR_LOCK, ALLOCATOR_MUTEX, STRIPE_COUNT
from snakepit_mp.store.session_store import SessionStore

__all__ = ["Report", "Storm"]

SESSIONS = [f"s{number}" for number in range(6)]
#: Never deleted, for what must add up.
LEDGER = "ledger"
#: Sessions for looking which stripes can be locked, besides one in the stripe of each other.
MORE_PROBES = 12
NAMES = ("x", "y", "z")
#: In repetitions of eight bytes: in the record, in blocks, in runs of pages.
SIZES = (1, 3, 12, 90, 700, 1_010, 3_000, 9_000)
#: What may happen to an operation while others delete and write the same.
EXPECTED = (SessionNotFound, VariableNotFound, VariableExists, VersionConflict)
#: Counters of each process: operations, refusals, counts of the ledger, lines that were busy.
DONE, REFUSED, COUNTED, BUSY = range(4)
MOST_VIEWS = 6
_SPARE = 8


def sealed(number: int, size: int) -> bytes:
    """A value in which a tear shows."""
    return b"%07d|" % number * size


def assert_whole(value: Any) -> None:
    """Nothing of another value is in it."""
    if isinstance(value, np.ndarray):
        assert (value == value.flat[0]).all(), "a torn array"
        return
    value = bytes(value)
    assert value == value[:8] * (len(value) // 8), "a torn value"


class Worker:
    """One process: random operations for ever."""

    def __init__(self, store: SessionStore, counters: memoryview, seed: int) -> None:
        self._store = store
        self._counters = counters
        self._rng = random.Random(seed)
        self._views: list[tuple[Any, bytes]] = []
        self._ways: list[Callable[[str], object]] = [
            *(3 * [self._write, self._batch, self._read, self._snapshot]),
            *(2 * [self._register, self._delete, self._keep, self._history, self._hold]),
            *[self._fill, self._add, self._program, self._watch, self._list, self._look],
            *[self._compare, self._rollback, self._session, self._passing],
        ]

    def run(self) -> None:
        self._store.after_fork()
        while True:
            way, session = self._rng.choice(self._ways), self._rng.choice(SESSIONS)
            try:
                way(session)
                self._counters[DONE] += 1
            except EXPECTED:
                self._counters[REFUSED] += 1
            except StoreBusy:  # somebody is stopped
                self._counters[BUSY] += 1
            except StoreFull:  # of views that are held and not yet free again
                self._views.clear()

    def _value(self) -> bytes:
        return sealed(self._rng.randrange(10**7), self._rng.choice(SIZES))

    def _write(self, session: str) -> None:
        self._store.update_variable(session, self._rng.choice(NAMES), self._value())

    def _batch(self, session: str) -> None:
        self._store.update_variables(session, dict.fromkeys(("left", "right"), self._value()))

    def _read(self, session: str) -> None:
        assert_whole(self._store.get_value(session, self._rng.choice(NAMES)))

    def _snapshot(self, session: str) -> None:
        pair = self._store.get_values(session, ["left", "right"])
        assert bytes(pair["left"]) == bytes(pair["right"]), "half a batch"
        assert_whole(pair["left"])

    def _register(self, session: str) -> None:
        history = self._rng.choice((0, 0, 2))
        name = self._rng.choice("pqr")
        self._store.register_variable(session, name, "any", self._value(), history=history)

    def _delete(self, session: str) -> None:
        self._store.delete_variable(session, self._rng.choice("pqr"))

    def _keep(self, session: str) -> None:
        self._store.update_variable(session, "kept", self._value())

    def _history(self, session: str) -> None:
        found = self._store.history(session, "kept")
        versions = [old.version for old in found]
        assert versions == sorted(set(versions), reverse=True), "a history out of order"
        for old in found:
            assert_whole(old.value)

    def _rollback(self, session: str) -> None:
        found = self._store.history(session, "kept")
        self._store.rollback(session, "kept", self._rng.choice(found).version)

    def _compare(self, session: str) -> None:
        seen = self._store.get_variable(session, "x")
        assert_whole(seen.value)
        self._store.update_variable(session, "x", self._value(), expected_version=seen.version)

    def _hold(self, session: str) -> None:
        """Keep a view, and see that it stays as it is."""
        view = self._store.get_value(session, self._rng.choice(NAMES))
        self._views.append((view, bytes(view)))
        if len(self._views) > MOST_VIEWS:
            view, content = self._views.pop(self._rng.randrange(MOST_VIEWS))
            assert bytes(view) == content, "a view has changed"

    def _look(self, _: str) -> None:
        for view, content in self._views:
            assert bytes(view) == content, "a view has changed"

    def _fill(self, session: str) -> None:
        """An array that is filled in place, and now and then given up."""
        array = self._store.allocate(self._rng.choice((100, 2_000, 20_000)), "i8")
        array[:] = self._rng.randrange(10**9)
        if self._rng.random() < 0.8:
            self._store.update_variable(session, "array", array)
        assert_whole(self._store.get_value(session, "array"))

    def _add(self, _: str) -> None:
        self._store.increment(LEDGER, "count")
        self._counters[COUNTED] += 1

    def _program(self, session: str) -> None:
        whose, name = self._rng.choice((session, None)), self._rng.choice("ab")
        if self._rng.random() < 0.5:
            self._store.put_program(whose, name, self._value())
        elif self._rng.random() < 0.5:
            self._store.delete_program(whose, name)
        else:
            assert_whole(self._store.get_program(whose, name))

    def _watch(self, session: str) -> None:
        for change in self._store.watch(session, ["x"], timeout=self._rng.uniform(0, 0.01)):
            if change.value is not None:
                assert_whole(change.value)
            break

    def _list(self, session: str) -> None:
        for variable in self._store.list_variables(session):
            assert_whole(variable.value)
        if self._rng.random() < 0.1:
            self._store.list_sessions()
            self._store.cleanup_expired_sessions()

    def _passing(self, _: str) -> None:
        """A session of a short life."""
        name = self._store.create_session(ttl=self._rng.uniform(0.001, 0.05)).id
        self._store.register_variable(name, "x", "any", self._value())

    def _session(self, session: str) -> None:
        if self._rng.random() < 0.3:
            with contextlib.suppress(SessionNotFound):
                self._store.delete_session(session)
        prepare(self._store, session)


def prepare(store: SessionStore, session: str) -> None:
    """Make sure that a session has its variables."""
    store.create_session(session)
    first = sealed(0, 1)
    # In one batch from here on; before that, a snapshot must not tell them apart.
    for name in (*NAMES, "left", "right", "array"):
        store.register_variable(session, name, "any", first, exist_ok=True)
    store.register_variable(session, "kept", "any", first, history=3, exist_ok=True)


@dataclass
class Report:
    """What a storm did, and what it found."""

    operations: int = 0
    refused: int = 0
    kills: int = 0
    stops: int = 0
    #: Stops within a lock.
    blocking: int = 0
    busy: int = 0
    #: Pages in use: the most in the first and second half, and with everything deleted.
    pages: list[int] = field(default_factory=lambda: [0, 0, 0])
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"implementation: {_accel.implementation}",
            f"operations: {self.operations:,} done, {self.refused:,} refused, {self.busy:,} busy",
            f"kills: {self.kills}, stops: {self.stops}, of these within a lock: {self.blocking}",
            "pages in use: at most {} in the first half, {} in the second, {} at the end".format(
                *self.pages
            ),
            f"violations: {len(self.violations)}",
        ]
        return "\n".join(lines + [f"  {violation}" for violation in self.violations])


class Storm:
    """``patience``: seconds within which what is not locked for ever must be had."""

    def __init__(self, processes: int, seconds: float, seed: int = 7, patience: float = 10) -> None:
        self._processes = processes
        self._seconds = seconds
        self._seed = seed
        self._patience = patience
        self._rng = random.Random(seed)
        self._report = Report()
        self._pids: dict[int, int] = {}  # by place
        self._spawned = 0
        self._count_at_least = 0

    def run(self) -> Report:
        """All of it; the report has what was wrong."""
        self._shared = mmap.mmap(-1, 32 * self._processes)
        self._counters = memoryview(self._shared).cast("Q")
        files = len(os.listdir("/proc/self/fd"))
        with SessionStore(StoreConfig(max_bytes=256 << 20)) as self._store:
            self._store._locks.timeout = self._patience
            self._probes = self._choose_probes()
            self._set_up()
            empty = self._pages()
            try:
                for place in range(self._processes):
                    self._spawn(place)
                self._blow()
            finally:
                self._end()
            self._reckon(empty)
        self._counters.release()
        self._shared.close()
        self._expect(len(os.listdir("/proc/self/fd")) == files, "file descriptors are left")
        return self._report

    def _set_up(self) -> None:
        # Every stripe gets its table of sessions, which it keeps.
        missing = set(range(STRIPE_COUNT))
        while missing:
            name = self._store.create_session().id
            missing.discard(self._store._keys.place(name).stripe)
            self._store.delete_session(name)
        for name in self._probes:
            self._store.create_session(name)
            self._store.register_variable(name, "x", "integer", 0)
        self._store.create_session(LEDGER)
        self._store.register_variable(LEDGER, "count", "integer", 0)

    def _choose_probes(self) -> list[str]:
        stripe_of = {name: self._store._keys.place(name).stripe for name in (*SESSIONS, LEDGER)}
        missing = set(stripe_of.values())
        found: dict[int, str] = {}  # by stripe, of which none may have two
        for name in (f"probe{number}" for number in itertools.count()):
            stripe = self._store._keys.place(name).stripe
            if (stripe in missing or not missing) and stripe not in found:
                found[stripe] = name
                missing.discard(stripe)
            if not missing and len(found) >= len(SESSIONS) + MORE_PROBES:
                return list(found.values())
        raise AssertionError

    def _spawn(self, place: int) -> None:
        self._spawned += 1
        seed = self._seed * 100_003 + self._spawned
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                Worker(self._store, self._counters[4 * place : 4 * place + 4], seed).run()
            except BaseException:  # noqa: BLE001  the end of the process
                traceback.print_exc()
            finally:
                os._exit(1)
        self._pids[place] = pid

    def _blow(self) -> None:
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < self._seconds and not self._report.violations:
            time.sleep(self._rng.uniform(0.0005, 0.03))  # a random moment, that is the point
            place = self._rng.randrange(self._processes)
            if self._rng.random() < 0.8:
                self._kill(place)
                self._report.kills += 1
                self._spawn(place)
            else:
                self._stop(place)
                self._report.stops += 1
            half = int(2 * passed > self._seconds)
            self._report.pages[half] = max(self._report.pages[half], self._pages())

    def _kill(self, place: int) -> None:
        pid = self._pids.pop(place)
        os.kill(pid, signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._expect(ended == -signal.SIGKILL, f"a process ended by itself: {ended}")

    def _stop(self, place: int) -> None:
        """Whoever is stopped blocks the writers of its own stripe at most, and no reader."""
        pid = self._pids[place]
        os.kill(pid, signal.SIGSTOP)
        status = os.waitpid(pid, os.WUNTRACED)[1]
        if not os.WIFSTOPPED(status):
            self._pids.pop(place)
            self._spawn(place)
            self._expect(False, f"a process ended by itself: {os.waitstatus_to_exitcode(status)}")
            return
        try:
            if _accel.implementation == "c":
                self._read_everything()
            self._probe(pid)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _read_everything(self) -> None:
        """As often as it takes for each to be of one moment, but without a lock that is held."""
        begin = time.monotonic()
        for session in SESSIONS:
            with contextlib.suppress(*EXPECTED):
                assert_whole(self._store.get_value(session, "x"))
                pair = self._store.get_values(session, ["left", "right"])
                self._expect(bytes(pair["left"]) == bytes(pair["right"]), "half a batch")
        took = time.monotonic() - begin
        self._expect(took < self._patience, f"readers waited {took:.1f} s for one that is stopped")

    def _probe(self, pid: int) -> None:
        locks, busy, give_up = (
            self._store._locks,
            set(self._probes),
            time.monotonic() + self._patience,
        )
        patience, locks.timeout = locks.timeout, 0.05
        try:
            while len(busy) > 1 and time.monotonic() < give_up:
                busy = {name for name in busy if not self._can_write(name)}
                if len(busy) > 1 and self._holds_allocator(pid):
                    self._report.blocking += 1
                    return  # then no stripe gets memory, nor gives any back
        finally:
            locks.timeout = patience
        self._report.blocking += len(busy)
        self._expect(len(busy) <= 1, f"one that is stopped blocks {sorted(busy)}")

    def _can_write(self, session: str) -> bool:
        try:
            self._store.update_variable(session, "x", self._report.stops % 100)
        except StoreBusy:
            return False
        return True

    def _holds_allocator(self, pid: int) -> bool:
        if _accel.implementation == "c":  # a mutex begins with the thread that has it
            return self._store._segment.words[ALLOCATOR_MUTEX] & 0x3FFFFFFF == pid
        try:
            with self._store._locks.exclusive(ALLOCATOR_LOCK):
                return False
        except StoreBusy:
            return True

    # The end.

    def _end(self) -> None:
        for place in list(self._pids):
            self._kill(place)
        report, counters = self._report, self._counters
        report.operations = sum(counters[DONE::4])
        report.refused = sum(counters[REFUSED::4])
        report.busy = sum(counters[BUSY::4])

    def _reckon(self, empty: int) -> None:
        store = self._store
        begin = time.monotonic()
        problems = store.verify()  # locks every stripe
        took = time.monotonic() - begin
        self._expect(took < self._patience, f"locking and checking all took {took:.1f} s")
        self._report.violations += problems
        store.cleanup_expired_sessions()
        self._report.violations += store.verify()
        counted, value = sum(self._counters[COUNTED::4]), store.get_value(LEDGER, "count")
        right = counted <= value <= counted + self._report.kills + self._processes
        self._expect(right, f"{counted} increments gave {value}")
        self._delete_all()
        self._report.pages[2] = self._pages()
        # A table that has grown once may lie in another page, nothing else may be left.
        left = self._pages() - empty
        self._expect(left <= _SPARE, f"{left} pages are lost")
        self._report.violations += store.verify()

    def _delete_all(self) -> None:
        for session in self._store.list_sessions():
            if session.id in (LEDGER, *self._probes):
                continue
            with contextlib.suppress(SessionNotFound):  # it expires in this moment
                for variable in self._store.list_variables(session.id):
                    assert_whole(variable.value)
                self._store.delete_session(session.id)
        for name in self._store.list_programs(None):
            self._store.delete_program(None, name)
        self._store.cleanup_expired_sessions()

    def _pages(self) -> int:
        stats = self._store.stats()
        return stats.bytes_used // (1 << 14)

    def _expect(self, truth: bool, violation: str) -> None:
        if not truth:
            self._report.violations.append(violation)


def main() -> int:
    parser = argparse.ArgumentParser(description="Random operations and random kills.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    report = Storm(arguments.processes, arguments.seconds, arguments.seed).run()
    print(report)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
