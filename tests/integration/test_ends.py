"""Ends that nobody planned: Ctrl-C twice, exits in tools and threads, work left in hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from fault_adapters import Stubborn, words
from fix_pool import until
from fix_timeouts import scaled

from snakepit_mp.errors import RemoteError

_SCRIPT = """
    import sys
    sys.path.insert(0, {tests!r})
    from fault_adapters import Stubborn
    from snakepit_mp import Pool

    if __name__ == "__main__":
        pool = Pool(Stubborn, workers=2, grace={grace})
        pool.await_ready(60)
"""


def script(folder: Path, end: str, grace: float = 5.0) -> list[str]:
    """An application that ends so."""
    tests = str(Path(__file__).parent.parent)
    text = textwrap.dedent(_SCRIPT).format(tests=tests, grace=grace)
    path = folder / "application.py"
    path.write_text(text + textwrap.indent(textwrap.dedent(end), " " * 4))
    return [sys.executable, str(path)]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def test_second_ctrl_c_kills_what_the_first_was_polite_to(tmp_path: Path, ledger: Path):
    """The tool swallows the interrupt, and grace is an hour."""
    end = f"""
        with pool:
            pool.execute("swallow", {{"path": {str(ledger)!r}}})
    """
    with subprocess.Popen(
        script(tmp_path, end, grace=3600.0), stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: "entered" in words(ledger), 30)
        process.send_signal(signal.SIGINT)
        until(lambda: "swallowed" in words(ledger), 30)
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=scaled(30))[1]

    assert time.monotonic() - before < scaled(10)
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_ctrl_c_interrupts_the_tool_and_ends_in_time(tmp_path: Path, ledger: Path):
    end = f"""
        with pool:
            pool.execute("sleep", {{"path": {str(ledger)!r}}})
    """
    with subprocess.Popen(
        script(tmp_path, end, grace=3600.0), stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: "entered" in words(ledger), 30)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=scaled(30))[1]

    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert words(ledger) == ["entered", "tidied"]


@pytest.mark.parametrize(
    "end",
    [
        "pool.submit('sleep', {'path': LEDGER})",
        "pool.submit('ignore_signals', {'path': LEDGER}).running()",
        "stream = pool.stream('stall', {'path': LEDGER}); next(stream)",
        "future = pool.submit('sleep', {'path': LEDGER}); future.cancel(); del pool",
        "sys.exit(0)",
    ],
)
def test_interpreter_that_ends_with_work_in_hand_ends_clean(tmp_path: Path, ledger: Path, end: str):
    done = subprocess.run(
        script(tmp_path, end.replace("LEDGER", repr(str(ledger)))),
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_exit_in_a_tool_is_the_callers_error_and_not_the_workers_end(make_pool):
    pool = make_pool(Stubborn, workers=1)
    pid = pool.execute("pid")

    with pytest.raises(RemoteError, match="SystemExit"):
        pool.execute(sys.exit, (3,))
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        pool.execute(_raise_keyboard_interrupt)

    assert pool.execute("pid") == pid


def _raise_keyboard_interrupt() -> None:
    raise KeyboardInterrupt


def test_threads_that_a_tool_leaves_do_not_hold_up_the_end(make_pool):
    pool = make_pool(Stubborn, workers=1, grace=scaled(30))
    pool.execute(_leave_a_thread)
    before = time.monotonic()

    pool.shutdown()

    assert time.monotonic() - before < scaled(10)


def _leave_a_thread() -> None:
    import threading

    threading.Thread(target=time.sleep, args=(600.0,)).start()


def test_forked_copy_ends_without_harm(make_pool, tmp_path: Path):
    """It leaves through its own exit, with the pool alive in the parent."""
    pool = make_pool(Stubborn, workers=1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            del pool
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert pool.execute("echo", (1,)) == 1
