"""The checker refuses wrong histories, and the store's real ones pass, with and without kills."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fix_store import FORKS, assert_intact, small_store
from store.linearizability import CONFLICT, EXISTS, MISSING, Operation, by_variable, why_not

from snakepit_mp.errors import VariableExists, VariableNotFound, VersionConflict
from snakepit_mp.session import VariableMapping
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS

START = {"x": (0, 1), "y": (0, 1)}


# The checker itself.


def history(*parts: tuple[Any, ...]) -> list[Operation]:
    return [Operation(number, *part) for number, part in enumerate(parts)]


RIGHT = {
    "one after the other": history(
        (0, 1, "write", {"x": 5}, [2]),
        (2, 3, "read", ["x"], [(5, 2)]),
    ),
    "two reads during a write": history(
        (0, 9, "write", {"x": 5}, [2]),
        (1, 2, "read", ["x"], [(0, 1)]),
        (3, 4, "read", ["x"], [(5, 2)]),
    ),
    "a version that was not told": history(
        (0, 1, "write", {"x": 5}, [2]),
        (2, 3, "read", ["x"], [(5, None)]),
    ),
    "a killed write that happened": history(
        (0, None, "write", {"x": 5}, None),
        (5, 6, "read", ["x"], [(5, 2)]),
    ),
    "a killed write that did not": history(
        (0, None, "write", {"x": 5}, None),
        (5, 6, "read", ["x"], [(0, 1)]),
    ),
    "a killed write that happened late": history(
        (0, None, "write", {"x": 5}, None),
        (1, 2, "read", ["x"], [(0, 1)]),
        (3, 4, "read", ["x"], [(5, 2)]),
    ),
    "a conflict": history(
        (0, 5, "compare", {"x": (1, 7)}, [2]),
        (0, 5, "compare", {"x": (1, 8)}, [CONFLICT, 2]),
    ),
    "two increments": history(
        (0, 5, "add", {"x": 1}, [2]),
        (0, 5, "add", {"x": 1}, [3]),
        (6, 7, "read", ["x"], [(2, 3)]),
    ),
    "a batch seen whole": history(
        (0, 9, "write", {"x": 1, "y": 1}, [2, 2]),
        (1, 2, "read", ["x", "y"], [(0, 1), (0, 1)]),
        (3, 4, "read", ["x", "y"], [(1, 2), (1, 2)]),
    ),
    "deleted and made again": history(
        (0, 1, "delete", ["x"], None),
        (2, 3, "read", ["x"], [MISSING]),
        (2, 3, "write", {"x": 9}, MISSING),
        (4, 5, "create", {"x": 3}, [1]),
        (6, 7, "create", {"x": 4}, EXISTS),
        (8, 9, "read", ["x"], [(3, 1)]),
    ),
}
WRONG = {
    "a stale read": history(
        (0, 1, "write", {"x": 5}, [2]),
        (2, 3, "read", ["x"], [(0, 1)]),
    ),
    "new, then old": history(
        (0, 9, "write", {"x": 5}, [2]),
        (1, 2, "read", ["x"], [(5, 2)]),
        (3, 4, "read", ["x"], [(0, 1)]),
    ),
    "a value that nobody wrote": history((0, 1, "read", ["x"], [(6, 1)])),
    "a value of another version": history(
        (0, 1, "write", {"x": 5}, [2]),
        (2, 3, "read", ["x"], [(5, 3)]),
    ),
    "a lost update": history(
        (0, 5, "write", {"x": 5}, [2]),
        (0, 5, "write", {"x": 6}, [2]),
    ),
    "a lost increment": history(
        (0, 5, "add", {"x": 1}, [2]),
        (0, 5, "add", {"x": 1}, [3]),
        (6, 7, "read", ["x"], [(1, 3)]),
    ),
    "two winners": history(
        (0, 5, "compare", {"x": (1, 7)}, [2]),
        (0, 5, "compare", {"x": (1, 8)}, [2]),
    ),
    "a conflict without a cause": history((0, 5, "compare", {"x": (1, 8)}, [CONFLICT, 2])),
    "half a batch": history(
        (0, 9, "write", {"x": 1, "y": 1}, [2, 2]),
        (1, 2, "read", ["x", "y"], [(1, 2), (0, 1)]),
    ),
    "two batches in two orders": history(
        (0, 9, "write", {"x": 1, "y": 1}, [2, 2]),
        (0, 9, "write", {"x": 2, "y": 2}, [3, 3]),
        (10, 11, "read", ["x", "y"], [(1, 2), (2, 3)]),
    ),
    "a killed write that came and went": history(
        (0, None, "write", {"x": 5}, None),
        (1, 2, "read", ["x"], [(5, 2)]),
        (3, 4, "read", ["x"], [(0, 1)]),
    ),
    "a killed write that happened before its call": history(
        (1, 2, "read", ["x"], [(5, 2)]),
        (3, None, "write", {"x": 5}, None),
    ),
    "there after its deletion": history(
        (0, 1, "delete", ["x"], None),
        (2, 3, "read", ["x"], [(0, 1)]),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_history_passes(name: str) -> None:
    assert why_not(RIGHT[name], START) is None


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_is_refused(name: str) -> None:
    assert "none of these fits" in why_not(WRONG[name], START)


def simulated(seed: int, count: int = 200) -> list[Operation]:
    """What five processes would have seen of one true dictionary."""
    rng = random.Random(seed)
    values = dict(START)
    free = [0] * 5  # when a process has returned from its last call
    found = []
    for moment in range(10, 10 * (count + 1), 10):
        process = min(range(5), key=lambda number: (free[number], rng.random()))
        called = max(free[process], moment - rng.randrange(40)) + 1
        free[process] = moment + 1 + rng.randrange(40)
        names = rng.choice([["x"], ["y"], ["x", "y"]])
        if rng.random() < 0.5:
            kind, argument, result = "read", names, [values[name] for name in names]
        else:
            kind, argument = "write", dict.fromkeys(names, moment)
            values |= {name: (moment, values[name][1] + 1) for name in names}
            result = [values[name][1] for name in names]
        if called < moment:
            found.append(
                Operation(process, called, max(free[process], moment), kind, argument, result)
            )
        else:  # it would have been too late: as if it had never been called
            values = values if kind == "read" else undone(values, argument, found)
    return found


def undone(
    values: dict[str, Any], argument: dict[str, Any], found: list[Operation]
) -> dict[str, Any]:
    before = dict(START)
    for operation in found:
        if operation.kind == "write":
            for name, value in operation.argument.items():
                before[name] = (value, before[name][1] + 1)
    return before


@pytest.mark.parametrize("seed", range(10))
def test_one_wrong_result_in_a_long_history_is_found(seed: int) -> None:
    whole = simulated(seed)
    assert why_not(whole, START) is None
    reads = [number for number, one in enumerate(whole) if one.kind == "read"]
    early, late = next(
        (one, other)
        for one in reads
        for other in reversed(reads)
        if whole[one].returned < whole[other].called
        and whole[one].argument == whole[other].argument
        and whole[one].result != whole[other].result
    )
    changed = list(whole)
    changed[late] = replace(whole[late], result=whole[early].result)  # a stale read
    assert why_not(changed, START) is not None
    changed[early] = replace(whole[early], result=whole[late].result)  # two results swapped
    assert why_not(changed, START) is not None
    write = next(number for number, one in enumerate(whole[20:], 20) if one.kind == "write")
    assert why_not(whole[:write] + whole[write + 1 :], START) is not None  # a lost update


# Histories of the store.

#: Lengths of values in repetitions: in the record, in a block, in a run of pages.
SIZES = (1, 1, 30, 1_000)
NAMES = ("x", "y", "z")


def sealed(number: int, size: int) -> str:
    return f"{number:08}|" * size


def opened(value: str) -> int:
    """The number in a value, which must not be torn."""
    assert value == value[:9] * (len(value) // 9), "torn"
    return int(value[:8])


Attempt = tuple[str, Any, Callable[[SessionStore], Any]]


def read(names: Sequence[str]) -> Attempt:
    def perform(store: SessionStore) -> Any:
        found = store.get_variables("s", names, missing_ok=True)
        return [
            (opened(found[name].value), found[name].version) if name in found else MISSING
            for name in names
        ]

    return "read", names, perform


def read_value(name: str) -> Attempt:
    def perform(store: SessionStore) -> Any:
        try:
            return [(opened(store.get_value("s", name)), None)]
        except VariableNotFound:
            return [MISSING]

    return "read", [name], perform


def write(names: Sequence[str], number: int, size: int) -> Attempt:
    def perform(store: SessionStore) -> Any:
        try:
            done = store.update_variables("s", dict.fromkeys(names, sealed(number, size)))
        except VariableNotFound:
            return MISSING
        return [done[name] for name in names]

    return "write", dict.fromkeys(names, number), perform


def compare(name: str, expected: int, number: int, size: int) -> Attempt:
    def perform(store: SessionStore) -> Any:
        try:
            value = sealed(number, size)
            return [store.update_variable("s", name, value, expected_version=expected)]
        except VersionConflict as error:
            return [CONFLICT, error.current]
        except VariableNotFound:
            return MISSING

    return "compare", {name: (expected, number)}, perform


def create(name: str, number: int, size: int) -> Attempt:
    def perform(store: SessionStore) -> Any:
        try:
            return [store.register_variable("s", name, "string", sealed(number, size)).version]
        except VariableExists:
            return EXISTS

    return "create", {name: number}, perform


def delete(name: str) -> Attempt:
    def perform(store: SessionStore) -> Any:
        try:
            store.delete_variable("s", name)
        except VariableNotFound:
            return MISSING

    return "delete", [name], perform


def through_a_mapping(names: Sequence[str], number: int, reads: bool) -> Attempt:
    """The same by the shortest way, which remembers where a variable lies."""
    values = dict.fromkeys(names, sealed(number, 1))

    def perform(store: SessionStore) -> Any:
        mapping = mapping_of(store)
        try:
            if reads and len(names) == 1:
                return [(opened(mapping[names[0]]), None)]
            if reads:
                found = mapping.get_values(names)
                return [(opened(found[name]), None) for name in names]
            if len(names) == 1:
                mapping[names[0]] = values[names[0]]
                return [None]
            done = mapping.update_variables(values)
            return [done[name] for name in names]
        except VariableNotFound:
            return MISSING if not reads or len(names) > 1 else [MISSING]

    return ("read", names, perform) if reads else ("write", dict.fromkeys(names, number), perform)


@functools.cache
def mapping_of(store: SessionStore) -> VariableMapping:
    return VariableMapping(store, "s", strict=True)


def singles(rng: random.Random, number: int) -> Attempt:
    """Reads, writes and compares of one variable."""
    name, size = rng.choice(NAMES), rng.choice(SIZES)
    return rng.choice(
        [
            read([name]),
            read_value(name),
            through_a_mapping([name], number, rng.random() < 0.7),
            write([name], number, size),
            compare(name, rng.randrange(1, 40), number, size),
        ]
    )


def several(rng: random.Random, number: int) -> Attempt:
    """Batches and snapshots as well."""
    names = rng.sample(NAMES, rng.randrange(2, 4))
    return rng.choice(
        [
            read(names),
            write(names, number, rng.choice(SIZES)),
            through_a_mapping(names, number, reads=True),
            through_a_mapping(names, number, reads=False),
            singles(rng, number),
        ]
    )


def fleeting(rng: random.Random, number: int) -> Attempt:
    """Variables come and go."""
    name, size = rng.choice(NAMES), rng.choice(SIZES)
    return rng.choice(
        [
            read([name]),
            write([name], number, size),
            through_a_mapping([name], number, rng.random() < 0.7),
            create(name, number, size),
            delete(name),
        ]
    )


@dataclass
class Recorder:
    """A forked process that tells of each call before and after it."""

    number: int
    pid: int
    pipe: int
    text: bytes = b""
    ended: bool = False
    calls: list[Any] = field(default_factory=list)

    @classmethod
    def start(
        cls, store: SessionStore, number: int, attempts: Iterable[Attempt], gate: tuple[int, int]
    ) -> Recorder:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(reader)
                os.close(gate[1])
                store.after_fork()
                os.read(gate[0], 1)  # end of file: all are there
                perform_all(store, writer, attempts)
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        return cls(number, pid, reader)

    def take(self) -> None:
        """Read what it has told; at its end it is reaped, and has not failed."""
        if got := os.read(self.pipe, 1 << 16):
            self.text += got
            return
        os.close(self.pipe)
        self.ended = True
        assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) in (0, -signal.SIGKILL)

    def operations(self) -> list[Operation]:
        """What it did; of a killed process the last may be pending."""
        lines = [json.loads(line) for line in self.text.split(b"\n")[:-1]]
        found = []
        for called, kind, argument in lines[::2]:
            found.append(Operation(self.number, called, None, kind, argument))
        for place, (returned, result) in enumerate(lines[1::2]):
            found[place] = replace(found[place], returned=returned, result=result)
        return found


def perform_all(store: SessionStore, pipe: int, attempts: Iterable[Attempt]) -> None:
    def tell(*parts: Any) -> None:
        os.write(pipe, json.dumps(parts).encode() + b"\n")

    for kind, argument, perform in attempts:
        tell(time.monotonic_ns(), kind, argument)
        result = perform(store)
        tell(time.monotonic_ns(), result)


def recorded(
    store: SessionStore,
    choose: Callable[[random.Random, int], Attempt],
    count: int,
    kills: dict[int, int],
) -> list[Operation]:
    """The history of five processes; ``kills``: after how many lines which of them is killed."""
    plans = [
        [choose(random.Random(1000 * process + n), 1000 * process + n + 1) for n in range(count)]
        for process in range(5)
    ]
    gate = os.pipe()
    recorders = []
    for number, plan in enumerate(plans):
        recorders.append(Recorder.start(store, number, plan, gate))
    os.close(gate[0])
    selector = selectors.DefaultSelector()
    for recorder in recorders:
        selector.register(recorder.pipe, selectors.EVENT_READ, recorder)
    os.close(gate[1])
    while selector.get_map():
        for key, _ in selector.select():
            recorder = key.data
            recorder.take()
            if recorder.ended:
                selector.unregister(key.fileobj)
            elif recorder.text.count(b"\n") >= kills.get(recorder.number, 1 << 30):
                os.kill(recorder.pid, signal.SIGKILL)
    selector.close()
    return [operation for recorder in recorders for operation in recorder.operations()]


@pytest.mark.parametrize("kills", [{}, {1: 30, 3: 61}], ids=["unharmed", "some are killed"])
@pytest.mark.parametrize("choose", [singles, several, fleeting])
def test_histories_of_the_store_are_linearizable(
    choose: Callable[[random.Random, int], Attempt], kills: dict[int, int]
) -> None:
    with small_store() as store:
        store.create_session("s")
        for name in NAMES:
            store.register_variable("s", name, "string", sealed(0, 1))
        found = recorded(store, choose, 150, kills)
        assert_intact(store)
    start = dict.fromkeys(NAMES, (0, 1))
    assert sum(one.returned is None for one in found) <= len(kills)
    assert overlapping(found)
    if choose is several:
        assert why_not(found, start) is None
    else:
        for name, part in by_variable(found).items():
            assert why_not(part, {name: start[name]}) is None


def overlapping(found: list[Operation]) -> bool:
    """Whether the processes really ran at the same time."""
    ordered = sorted(found, key=lambda one: one.called)
    return any(
        one.returned is not None and other.called < one.returned and one.process != other.process
        for one, other in itertools.pairwise(ordered)
    )
