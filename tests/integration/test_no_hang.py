"""No call hangs: a machine plays with a real pool, real processes and real signals.

Whatever is done to it, every call ends before its deadline, ``grace`` and a fifth of a second have
passed, with an outcome that was promised, and nothing runs twice that must not. More of it:
``SNAKEPIT_MP_NO_HANG_EXAMPLES=300 pytest tests/integration/test_no_hang.py``.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fault_adapters import Plays, words
from fix_timeouts import scaled
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from snakepit_mp import Pool
from snakepit_mp.errors import (
    PoisonTaskError,
    PoolClosed,
    PoolSaturated,
    TaskTimeout,
    WorkerDied,
    WorkerStartError,
)

GRACE = 0.3
LATE = scaled(GRACE + 0.2)
EXAMPLES = int(os.environ.get("SNAKEPIT_MP_NO_HANG_EXAMPLES", "8"))

#: What a call may end with besides what its tool does; some only after what makes it possible.
ALWAYS: tuple[type[BaseException], ...] = (TaskTimeout,)
AFTER_A_KILL = (WorkerDied, PoisonTaskError)
AFTER_SHUTDOWN = (CancelledError, PoolClosed, WorkerDied, PoisonTaskError, WorkerStartError)
OWN: dict[str, tuple[type[BaseException], ...]] = {
    "nap": (),
    "nap_again": (),
    "raises": (ZeroDivisionError,),
    "leave": AFTER_A_KILL,
    "never_stop": (),
    "items": (),
}

kinds = st.sampled_from(sorted(OWN))
naps = st.sampled_from([0.0, 0.02, 0.2])
deadlines = st.sampled_from([0.2, 0.6, 1.5])


@dataclass
class Call:
    """One call, and what became of it."""

    name: str
    kind: str
    seconds: float
    future: Future[Any] | None = None
    cancelled: bool = False
    outcome: Any = None
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    thread: threading.Thread | None = None


class Machine(RuleBasedStateMachine):
    """Plays; the outcome of each call is judged when all have ended."""

    @initialize(on_full=st.sampled_from(["wait", "raise"]), workers=st.integers(1, 2))
    def begin(self, on_full: str, workers: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = str(self.folder / "ledger")
        self.calls: list[Call] = []
        self.killed = self.closed = False
        self.pool = Pool(
            Plays, workers=workers, grace=GRACE, queue_size=3, on_full=on_full, bridge=None
        )
        self.pool.await_ready(scaled(20))

    # -- calls -------------------------------------------------------------------------

    def call(self, kind: str, deadline: float, seconds: float) -> tuple[Call, dict[str, Any]]:
        call = Call(f"{kind}-{len(self.calls)}", kind, scaled(deadline))
        self.calls.append(call)
        return call, {"path": self.ledger, "name": call.name, "seconds": seconds}

    def follow(self, call: Call, get: Callable[[], Any]) -> None:
        """Have it end in a thread, which notes how and when."""

        def wait() -> None:
            try:
                call.outcome = get()
            except BaseException as error:  # noqa: BLE001 - it is judged later
                call.outcome = error
            call.ended = time.monotonic()

        call.thread = threading.Thread(target=wait)
        call.thread.start()

    @rule(kind=kinds.filter(lambda kind: kind != "items"), deadline=deadlines, seconds=naps)
    def execute(self, kind: str, deadline: float, seconds: float) -> None:
        call, args = self.call(kind, deadline, seconds)
        self.follow(call, lambda: self.pool.execute(kind, args, timeout=call.seconds))

    @rule(kind=kinds.filter(lambda kind: kind != "items"), deadline=deadlines, seconds=naps)
    def submit(self, kind: str, deadline: float, seconds: float) -> None:
        call, args = self.call(kind, deadline, seconds)

        def run() -> Any:
            call.future = self.pool.submit(kind, args, timeout=call.seconds)
            if call.cancelled:
                call.future.cancel()
            return call.future.result()

        self.follow(call, run)

    @rule(deadline=deadlines, seconds=naps, wanted=st.integers(0, 6))
    def stream(self, deadline: float, seconds: float, wanted: int) -> None:
        call, args = self.call("items", deadline, seconds)

        def run() -> list[int]:
            found: list[int] = []
            stream = self.pool.stream("items", args, timeout=call.seconds)
            with contextlib.closing(stream):
                for item in stream:
                    found.append(item)
                    if len(found) >= wanted:
                        break
            return found

        self.follow(call, run)

    @rule(choice=st.integers(0, 100))
    @precondition(lambda self: self.calls)
    def cancel(self, choice: int) -> None:
        call = self.calls[choice % len(self.calls)]
        if call.kind != "items":
            call.cancelled = True
            if call.future is not None:
                call.future.cancel()

    @rule(choice=st.integers(0, 100))
    @precondition(lambda self: self.calls)
    def wait_for_one(self, choice: int) -> None:
        call = self.calls[choice % len(self.calls)]
        assert call.thread is not None
        call.thread.join(scaled(30))
        assert not call.thread.is_alive(), f"{call.name} hangs"

    # -- bad luck ----------------------------------------------------------------------

    @rule(
        choice=st.integers(0, 3),
        number=st.sampled_from(
            [signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP, signal.SIGCONT]
        ),
    )
    def signal_a_worker(self, choice: int, number: signal.Signals) -> None:
        pids = [row.pid for row in self.pool.workers() if row.pid is not None]
        if pids:
            self.killed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[choice % len(pids)], number)

    @rule()
    def kill_the_fork_server(self) -> None:
        server = self.pool._engine._servers.latest
        if server is not None and server.own_pid is not None:
            self.killed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.own_pid, signal.SIGKILL)

    @rule(cancel=st.booleans())
    @precondition(lambda self: len(self.calls) > 6 and not self.closed)
    def shut_down(self, cancel: bool) -> None:
        self.closed = True
        self.pool.shutdown(wait=False, cancel_futures=cancel, grace=GRACE)

    # -- the reckoning -----------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        try:
            for call in self.calls:
                assert call.thread is not None
                call.thread.join(scaled(30))
            began = time.monotonic()
            self.pool.shutdown(cancel_futures=True, grace=GRACE)
            assert time.monotonic() - began < scaled(GRACE + 5), "the shutdown took too long"
            for call in self.calls:
                self.judge(call)
            self.audit()
        finally:
            self.pool.shutdown(grace=0)
            shutil.rmtree(self.folder)

    def judge(self, call: Call) -> None:
        assert call.ended is not None, f"{call.name} hangs"
        outcome = call.outcome
        # The time-out of a stream is for each item; it has five, and an end.
        times = 6 if call.kind == "items" else 1
        took = call.ended - call.started
        assert took < times * call.seconds + LATE, f"{call.name}: {outcome!r} after {took:.2f} s"
        if not isinstance(outcome, BaseException):
            assert self.is_right(call), f"{call.name} gave {outcome!r}"
            return
        allowed = (*ALWAYS, *OWN[call.kind])
        if self.killed or any(one.kind == "leave" for one in self.calls):
            allowed += AFTER_A_KILL
        if self.closed:
            allowed += AFTER_SHUTDOWN
        if call.cancelled:
            allowed += (CancelledError,)
        if self.pool.config.on_full == "raise":
            allowed += (PoolSaturated,)
        assert isinstance(outcome, allowed), f"{call.name} ended with {outcome!r}"

    def is_right(self, call: Call) -> bool:
        if call.kind == "items":
            found: list[int] = call.outcome
            return found == list(range(len(found)))
        return call.kind in ("nap", "nap_again") and call.outcome == call.name

    def audit(self) -> None:
        """What ran, by the tools' own books, against what was said."""
        path = Path(self.ledger)
        ran = collections.Counter(words(path) if path.exists() else [])
        for call in self.calls:
            if call.kind != "nap_again":
                assert ran[call.name] <= 1, f"{call.name} ran {ran[call.name]} times"
            if not isinstance(call.outcome, BaseException) and call.kind != "items":
                assert ran[call.name] >= 1, f"{call.name} never ran, and gave {call.outcome!r}"


Machine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(scaled(120) + 10 * EXAMPLES)
class TestNoHang(Machine.TestCase):
    """The machine, as a test."""
