"""What did a worker die of? Collects what is known and tells it to the callers it hurt.

The notice of a death comes before its exit status, which only the fork server can read. A
caller's exception waits for it, but not longer than `PATIENCE`.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import indent

from ..core.instructions import Death, Deaths
from ..errors import PoisonTaskError, SnakepitError, TaskTimeout, WorkerDied
from .incarnation import ExitStatus, LastWords
from .waiter import Ticket
from .watcher import Watcher

__all__ = ["PATIENCE", "Deathbook", "explained"]

#: Seconds that a caller's exception waits for the exit status.
PATIENCE = 0.02

#: Deaths remembered; older ones are told without what is known of them.
_REMEMBERED = 256

#: Lines of standard error in an exception's message; its attribute has more.
_SHOWN_LINES = 5

Key = tuple[int, int]
Tell = Callable[[BaseException], None]


@dataclass(slots=True)
class _Entry:
    words: LastWords | None = None
    at: float | None = None  # when it was noticed
    status: ExitStatus | None = None


@dataclass(slots=True)
class _Report:
    """An exception that waits for exit statuses."""

    ticket: Ticket
    deaths: Deaths
    tell: Tell


class Deathbook:
    """Who died, and how."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._waiting: list[_Report] = []

    def died(self, key: Key, words: LastWords) -> None:
        """A worker's death was noticed, just now."""
        with self._lock:
            entry = self._entry(key)
            entry.words, entry.at = words, time.monotonic()

    def status(self, key: Key, status: ExitStatus) -> None:
        """The fork server has read how a worker ended."""
        with self._lock:
            self._entry(key).status = status
            ready = [report for report in self._waiting if self._complete(report.deaths)]
            self._waiting = [report for report in self._waiting if report not in ready]
        for report in ready:
            self._tell(report)

    def report(self, ticket: Ticket, deaths: Deaths, tell: Tell) -> None:
        """Call ``tell`` with the exception for ``deaths``: at once, or when more is known."""
        report = _Report(ticket, deaths, tell)
        with self._lock:
            ready = self._complete(deaths)
            if not ready:
                self._waiting.append(report)
        if ready:
            self._tell(report)
        else:
            self._watcher.after(PATIENCE, lambda: self._give_up(report))

    def _give_up(self, report: _Report) -> None:
        with self._lock:
            if not any(waiting is report for waiting in self._waiting):
                return
            self._waiting = [waiting for waiting in self._waiting if waiting is not report]
        self._tell(report)

    def _entry(self, key: Key) -> _Entry:
        entry = self._entries.setdefault(key, _Entry())
        while len(self._entries) > _REMEMBERED:
            self._entries.popitem(last=False)
        return entry

    def _complete(self, deaths: Deaths) -> bool:
        entries = (self._entries.get((d.worker_id, d.incarnation)) for d in deaths.deaths)
        return all(entry is None or entry.status is not None for entry in entries)

    def _tell(self, report: _Report) -> None:
        errors = tuple(self._error(report.ticket, death) for death in report.deaths.deaths)
        if report.deaths.poison:
            report.tell(_poison(report.ticket, errors))
        else:
            report.tell(errors[-1])

    def _error(self, ticket: Ticket, death: Death) -> WorkerDied:
        with self._lock:
            entry = self._entries.get((death.worker_id, death.incarnation)) or _Entry()
        status = entry.status or ExitStatus(None, None)
        words = entry.words or LastWords(None)
        error = WorkerDied(
            _sentence(ticket, death, words.pid, status),
            worker_id=death.worker_id,
            pid=words.pid,
            exit_code=status.exit_code,
            signal=status.signal,
            oom=status.oom,
            peak_rss=status.peak_rss,
            stack=words.stack,
            stderr=words.stderr,
            entered=death.entered,
            attempt=death.attempt,
            duration=None if words.since is None or entry.at is None else entry.at - words.since,
        )
        error.args = (error.args[0] + _details(error),)
        return error


def explained(failure: BaseException, ticket: Ticket) -> BaseException:
    """A failure with what only the ticket knows: the command and its time-out."""
    if not isinstance(failure, TaskTimeout) or ticket.timeout is None:
        return failure
    where = "running" if failure.entered else "waiting for a worker"
    what = "the next item of " if ticket.streaming else ""
    return TaskTimeout(
        f"{what}{ticket.command!r} did not come within {ticket.timeout:g} s; it was {where}",
        timeout=ticket.timeout,
        entered=failure.entered,
    )


def _sentence(ticket: Ticket, death: Death, pid: int | None, status: ExitStatus) -> str:
    if status.oom:
        how = "was killed by the kernel for want of memory"
    elif status.signal is not None:
        how = f"was killed by {status.signal}"
    elif status.exit_code is not None:
        how = f"exited with code {status.exit_code}"
    else:
        how = "died"
    where = "while it ran" if death.entered else "before it ran"
    advice = (
        "; if the tool may safely run twice, declare it @tool(idempotent=True)"
        if death.entered and not ticket.idempotent
        else ""
    )
    return (
        f"worker {death.worker_id} (pid {pid}) {how} {where} {ticket.command!r} "
        f"(attempt {death.attempt}){advice}"
    )


def _details(error: WorkerDied) -> str:
    """The rest of the message, each fact that is known on lines of its own."""
    text = ""
    if error.duration is not None:
        text += f"\nafter {error.duration:.3g} s"
    if error.peak_rss is not None:
        text += ", " if text else "\n"
        text += f"with at most {error.peak_rss / 1e6:.0f} MB of memory"
    if error.stack:
        text += f"\nits stack:\n{indent(error.stack, '  ')}"
    lines = error.stderr.rstrip().splitlines()[-_SHOWN_LINES:]
    if lines:
        text += "\nthe last of its standard error:\n" + indent("\n".join(lines), "  ")
    return text


def _poison(ticket: Ticket, errors: tuple[WorkerDied, ...]) -> SnakepitError:
    story = "".join(f"\n- {error}" for error in errors)
    return PoisonTaskError(
        f"{len(errors)} workers died under {ticket.command!r}, which is not tried again:{story}",
        deaths=errors,
    )
