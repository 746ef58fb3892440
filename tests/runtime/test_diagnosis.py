"""What callers are told about deaths: complete where possible, in time in any case."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable

import pytest

from snakepit_mp.core.instructions import Death, Deaths
from snakepit_mp.errors import PoisonTaskError, TaskTimeout, WorkerDied
from snakepit_mp.runtime.diagnosis import PATIENCE, Deathbook, explained
from snakepit_mp.runtime.incarnation import ExitStatus, LastWords
from snakepit_mp.runtime.waiter import Ticket


class FakeWatcher:
    """Keeps timers until the test lets them be due."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self.timers.append((delay, action))


@pytest.fixture
def watcher() -> FakeWatcher:
    return FakeWatcher()


@pytest.fixture
def book(watcher: FakeWatcher) -> Deathbook:
    return Deathbook(watcher)  # type: ignore[arg-type]


def _ticket(*, idempotent: bool = False, streaming: bool = False) -> Ticket:
    return Ticket(1, "tool", b"", None, streaming, idempotent, 0.5, None, None)


def _deaths(*incarnations: int, poison: bool = False, entered: bool = True) -> Deaths:
    deaths = (Death(0, n, 1, entered, attempt) for attempt, n in enumerate(incarnations, 1))
    return Deaths(tuple(deaths), poison)


def test_told_at_once_when_the_status_is_known(book: Deathbook, watcher: FakeWatcher):
    told: list[BaseException] = []
    book.status((0, 1), ExitStatus(None, "SIGSEGV"))
    book.died((0, 1), LastWords(77))

    book.report(_ticket(), _deaths(1), told.append)

    (error,) = told
    assert isinstance(error, WorkerDied)
    assert (error.pid, error.signal, error.exit_code, error.entered) == (77, "SIGSEGV", None, True)
    assert "SIGSEGV while it ran 'tool' (attempt 1)" in str(error)
    assert watcher.timers == []


def test_waits_for_the_status_and_tells_once(book: Deathbook, watcher: FakeWatcher):
    told: list[BaseException] = []
    book.died((0, 1), LastWords(77))

    book.report(_ticket(), _deaths(1), told.append)
    assert told == []
    book.status((0, 1), ExitStatus(3, None))

    assert [getattr(error, "exit_code", None) for error in told] == [3]
    (delay, give_up) = watcher.timers[0]
    give_up()
    assert delay == PATIENCE
    assert len(told) == 1


def test_tells_what_is_known_when_patience_ends(book: Deathbook, watcher: FakeWatcher):
    told: list[BaseException] = []
    book.died((0, 1), LastWords(77))
    book.report(_ticket(), _deaths(1, entered=False), told.append)

    watcher.timers[0][1]()
    book.status((0, 1), ExitStatus(3, None))

    (error,) = told
    assert "worker 0 (pid 77) died before it ran 'tool'" in str(error)
    assert "idempotent" not in str(error)


def test_poison_tells_every_death(book: Deathbook):
    told: list[BaseException] = []
    for number, name in ((1, "SIGKILL"), (2, "SIGSEGV")):
        book.died((0, number), LastWords(70 + number))
        book.status((0, number), ExitStatus(None, name))

    book.report(_ticket(idempotent=True), _deaths(1, 2, poison=True), told.append)

    (error,) = told
    assert isinstance(error, PoisonTaskError)
    assert [death.signal for death in error.deaths] == ["SIGKILL", "SIGSEGV"]
    assert "SIGKILL" in str(error)
    assert "SIGSEGV" in str(error)


def test_advice_only_where_it_helps(book: Deathbook):
    told: list[BaseException] = []
    book.died((0, 1), LastWords(77))
    book.status((0, 1), ExitStatus(None, "SIGKILL"))

    book.report(_ticket(), _deaths(1), told.append)
    book.report(_ticket(idempotent=True), _deaths(1), told.append)

    assert ["idempotent" in str(error) for error in told] == [True, False]


def test_everything_that_is_known_is_told(book: Deathbook):
    told: list[BaseException] = []
    lines = "".join(f"line {n}\n" for n in range(9))
    since = time.monotonic() - 2.0
    book.status((0, 1), ExitStatus(None, "SIGKILL", oom=True, peak_rss=123_000_000))
    book.died((0, 1), LastWords(77, lines, 'File "x.py", line 3 in tool', since))

    book.report(_ticket(), _deaths(1), told.append)

    (error,) = told
    assert isinstance(error, WorkerDied)
    assert (error.oom, error.peak_rss, error.stderr) == (True, 123_000_000, lines)
    assert error.duration is not None
    assert 2.0 <= error.duration < 60.0
    first, *rest = str(error).splitlines()
    assert "killed by the kernel for want of memory while it ran 'tool'" in first
    assert rest[0].endswith("with at most 123 MB of memory")
    assert "line 3 in tool" in str(error)
    assert rest[-5:] == [f"  line {n}" for n in range(4, 9)]
    again = pickle.loads(pickle.dumps(error))
    assert (again.stack, again.duration, str(again)) == (error.stack, error.duration, str(error))


@pytest.mark.parametrize(
    ("entered", "streaming", "words"),
    [
        (True, False, "'tool' did not come within 0.5 s; it was running"),
        (False, False, "waiting for a worker"),
        (True, True, "the next item of 'tool'"),
    ],
)
def test_time_out_names_the_command_and_the_limit(entered, streaming, words):
    error = explained(TaskTimeout("bare", entered=entered), _ticket(streaming=streaming))

    assert isinstance(error, TaskTimeout)
    assert words in str(error)
    assert (error.timeout, error.entered) == (0.5, entered)


def test_other_failures_are_left_as_they_are():
    failure = KeyError("x")

    assert explained(failure, _ticket()) is failure
