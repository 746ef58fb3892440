"""How does the store compare, and which goals does it meet? Prints tables of ratios.

    python benchmarks/store_report.py [rounds]

Everybody takes turns, many short ones, so that a busy moment of the machine hits all alike. A
cell is the median of ours divided by the median of the other's: below 1 we are faster.
"""

from __future__ import annotations

import gc
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median
from timeit import Timer
from typing import NamedTuple

from store_peers import PEERS, QUESTIONS, Missing, elsewhere, filled_store, started
from store_writer import IDLE, MODES, STAMPS, Writer

from snakepit_mp import SessionStore, implementation
from snakepit_mp.session import Session

#: Seconds of one turn, and how many turns everybody has if nothing else is said.
_TURN = 5e-4
_ROUNDS = 100

Case = tuple[str, str]  # what is asked, and whom
Times = dict[Case, list[float]]
_OURS = ("ours", "ours in place")
_WORDS = {
    ("read", "ours"): "read a float",
    ("write", "ours"): "write a float (ours: validated)",
    ("array-read", "ours"): "read an array of 1 MiB",
    ("array-write", "ours"): "write an array of 1 MiB",
    ("array-write", "ours in place"): "the same, ours filled in place",
    ("snapshot", "ours"): "read 10 of one moment",
    ("batch", "ours"): "write 10 in one step",
    ("session", "ours"): "create and delete a session",
}


class Goal(NamedTuple):
    """``here``: by the median and by the least; the goal is to be at most ``most``."""

    what: str
    most: float
    here: tuple[float, float]
    unit: str = ""


def interleaved(timers: dict[Case, Timer], rounds: int) -> Times:
    """Seconds of one statement, in each round."""
    counts, before = {}, {}
    for case, timer in timers.items():
        timer.timeit(1)
        seconds = timer.timeit(10) / 10
        # An array has to find the caches as if nobody else were there, all its blocks.
        turn = 4 * _TURN if case[0].startswith("array") else _TURN
        counts[case] = max(1, int(turn / seconds))
        before[case] = max(min(5, counts[case]), counts[case] // 10)
    times: Times = {case: [] for case in timers}
    for _ in range(rounds):
        for case, timer in timers.items():
            timer.timeit(before[case])  # what ran before has had the caches
            times[case].append(timer.timeit(counts[case]) / counts[case])
    return times


def peers(stack: ExitStack) -> dict[Case, Timer]:
    """A timer for every statement of every peer that is here."""
    timers = {}
    for peer in PEERS:
        try:
            names = started(peer, stack)
        except Missing as error:
            print(f"without {peer.name}: {error}", file=sys.stderr)
            continue
        for what, statement in peer.statements.items():
            timers[what, peer.name] = Timer(statement, globals=names)
    # By question, so that those who are compared follow each other.
    order = list(QUESTIONS)
    return dict(sorted(timers.items(), key=lambda item: order.index(item[0][0])))


class Disturbed(NamedTuple):
    """``reads``: seconds of one, by what ran beside it, in the half of the rounds with most writes;
    ``writes``: how many there were in the time of a read. ``wakes``: seconds from a write to who waits for it.
    ``pipe``: half a round trip through two pipes."""

    reads: dict[str, list[float]]
    writes: dict[str, float]
    wakes: list[float]
    pipe: float


def disturbed(rounds: int) -> Disturbed:
    with ExitStack() as stack:
        store, session = filled_store(stack)
        others = elsewhere(store, session)
        writer = stack.enter_context(Writer(store, session.id, others))
        targets = [(session.id, "x"), (session.id, "y"), *((other, "x") for other in others)]

        def versions() -> int:
            return sum(store.get_variable(*target).version for target in targets)

        timer = Timer("s['x']", globals={"s": session})
        count = max(1, int(4 * _TURN / (timer.timeit(100) / 100)))
        rows: dict[str, list[tuple[float, float]]] = {beside: [] for beside in MODES}
        with writer.apart():
            for _ in range(rounds):
                for beside, mode in MODES.items():
                    writer.order(mode)
                    timer.timeit(count // 10 + 1)
                    before = versions()
                    seconds = timer.timeit(count) / count
                    rows[beside].append(((versions() - before) / count, seconds))
            writer.order(IDLE)
        # Of a writer that the machine has kept from writing nobody can tell what it costs.
        busy = {beside: busier_half(found) for beside, found in rows.items()}
        reads = {beside: [seconds for _, seconds in found] for beside, found in busy.items()}
        writes = {beside: median(many for many, _ in found) for beside, found in busy.items()}
        pipe = median(Timer(lambda: writer.order(IDLE)).repeat(rounds, 1)) / 2
        return Disturbed(reads, writes, list(wakes(session, writer, 3 * rounds)), pipe)


def busier_half(rows: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of the rounds with writes those with the most; all, where nobody writes."""
    wrote = [row for row in rows if row[0] > 0]
    typical = median(many for many, _ in wrote) if wrote else 0
    return [row for row in rows if row[0] >= typical]


def wakes(session: Session, writer: Writer, count: int) -> Iterator[float]:
    """Seconds that a stamp is old when who waits for it sees it."""
    changes = session.watch(["stamp"], timeout=5)
    writer.order(STAMPS)
    for _ in range(count):
        change = next(changes)
        yield (time.monotonic_ns() - change.value) / 1e9
    writer.order(IDLE)


def bytes_of_a_variable(sessions: int = 20, variables: int = 1000) -> float:
    """What the store uses for a bounded float, with the sessions' share."""
    with SessionStore() as store:
        before = store.stats().bytes_used
        for number in range(sessions):
            session = Session(store, store.create_session(f"s{number}").id)
            for name in range(variables):
                session.register_variable(f"v{name}", "float", 0.5, constraints={"min": 0.0})
        return (store.stats().bytes_used - before) / (sessions * variables)


# What is printed.


def ratio(number: float) -> str:
    if number >= 10:
        return f"{number:,.0f}"
    return f"{number:.2g}" if number >= 0.001 or not number else "< 0.001"


def head(*cells: str) -> None:
    print(f"\n| {' | '.join(cells)} |\n{'| --- ' * len(cells)}|")


def comparison(times: Times) -> None:
    columns = [peer.name for peer in PEERS if any(by == peer.name for _, by in times)]
    columns = [by for by in columns if by not in (*_OURS, "empty loop")]
    head("the store", "ours", *(f"/ {by}" for by in columns))
    for case, words in _WORDS.items():
        ours = median(times[case])
        others = (times.get((case[0], by)) for by in columns)
        cells = [ratio(ours / median(other)) if other else "" for other in others]
        print(f"| {words} | {1e6 * ours:,.3g} µs | {' | '.join(cells)} |")


def disturbance(found: Disturbed) -> None:
    head("a float read beside", "/ beside nobody", "by the least", "writes for a read")
    alone = found.reads["nobody"]
    for beside, seconds in found.reads.items():
        if beside != "nobody":
            cells = f"{median(seconds) / median(alone):.2f} | {min(seconds) / min(alone):.2f}"
            print(f"| {beside} | {cells} | {ratio(found.writes[beside])} |")


def goals(times: Times, found: Disturbed, each: float) -> Iterator[Goal]:
    def of(what: str, by: str = "ours") -> tuple[float, float]:
        return median(times[what, by]), min(times[what, by])

    def against(what: str, other: tuple[float, float]) -> tuple[float, float]:
        typical, least = of(what)
        return typical / other[0], least / other[1]

    yield Goal("float read : `dict`", 3, against("read", of("read", "dict")))
    if ("read", "LMDB fresh") in times:
        yield Goal("float read : LMDB fresh", 0.25, against("read", of("read", "LMDB fresh")))
        put = of("write", "LMDB fresh")
        yield Goal("validated float write : LMDB put", 0.25, against("write", put))
    typical, least = of("array-read")
    yield Goal("read of 1 MiB", 1, (1e6 * typical, 1e6 * least), " µs")
    copy = of("array-write", "memcpy")
    yield Goal("write of 1 MiB : `memcpy`", 1.3, against("array-write", copy))
    yield Goal("snapshot of 10 : one read", 12, against("snapshot", of("read")))
    yield Goal("batch of 10 : one write", 20, against("batch", of("write")))
    other, alone = found.reads["a writer in other stripes"], found.reads["nobody"]
    busy = found.reads["a busy neighbour"]
    pair = median(other) / median(alone), min(other) / min(alone)
    yield Goal("read beside a writer in other stripes : beside nobody", 1.2, pair)
    pair = median(other) / median(busy), min(other) / min(busy)
    yield Goal("the same : beside a neighbour that writes to a dict", 1.2, pair)
    yield Goal(
        "watch to wake, asleep", 100, (1e6 * median(found.wakes), 1e6 * min(found.wakes)), " µs"
    )
    yield Goal("a small variable", 300, (each, each), " bytes")


def verdicts(goals: Iterator[Goal]) -> None:
    head("goal", "at most", "median here", "least here", "met")
    for goal in goals:
        typical, least = (f"{ratio(number)}{goal.unit}" for number in goal.here)
        met = "yes" if goal.here[0] <= goal.most else "no"
        if met == "no" and goal.here[1] <= goal.most:
            met = "by the least"
        print(f"| {goal.what} | {goal.most:g}{goal.unit} | {typical} | {least} | {met} |")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS
    gc.disable()
    with ExitStack() as stack:
        times = interleaved(peers(stack), rounds)
    found = disturbed(rounds)
    loop = median(times["read", "empty loop"])
    print(
        f"Python {platform.python_version()}, implementation {implementation!r}, {rounds} rounds. "
        f"An empty loop, which is in every number, is {loop / median(times['read', 'dict']):.2f} of "
        f"the read of a dict; a wake through a pipe takes {1e6 * found.pipe:.0f} µs."
    )
    comparison(times)
    disturbance(found)
    verdicts(goals(times, found, bytes_of_a_variable()))


if __name__ == "__main__":
    main()
