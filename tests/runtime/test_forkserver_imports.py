"""What the fork server imports, and what becomes of it where that fails."""

from __future__ import annotations

import os
import signal

import pytest
from fix_forkserver import wait_readable

from snakepit_mp.errors import RemoteError, StoreMismatch, WorkerStartError
from snakepit_mp.lanes.exceptions import RemoteTraceback
from snakepit_mp.runtime.forkserver import ImportFailed

ECHO = """
    from snakepit_mp.adapter import Adapter, tool

    class Echo(Adapter):
        @tool
        def echo(self, text: str) -> str:
            return text
"""


def test_an_import_error_is_told_with_its_traceback_and_the_server_ends(application, make_module):
    module = make_module("import nothing_of_this_name")
    application.start(f"{module}:Echo")
    error = application.receive(ImportFailed).error
    assert isinstance(error, ModuleNotFoundError)
    assert "nothing_of_this_name" in str(error)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert f"{module}.py" in str(error.__cause__)
    assert application.server.receive() is None
    assert wait_readable(application.server.pidfd)


@pytest.mark.parametrize(
    ("source", "kind", "text"),
    [
        ("raise SystemExit(3)", RemoteError, "SystemExit"),
        ("value = 1", AttributeError, "Echo"),
        ("class Echo: pass", Exception, "not a subclass of Adapter"),
    ],
)
def test_whatever_goes_wrong_at_import_is_told(application, make_module, source, kind, text):
    application.start(f"{make_module(source)}:Echo")
    error = application.receive(ImportFailed).error
    assert isinstance(error, kind)
    assert text in str(error)


def test_an_import_error_without_pickle(application, make_module):
    application.start(f"{make_module('raise ValueError(42)')}:Echo", allow_pickle=False)
    error = application.receive(ImportFailed).error
    assert isinstance(error, ValueError)
    assert error.args == (42,)


def test_requests_made_before_a_failed_import_end_with_the_server(application, make_module):
    application.start(f"{make_module('raise ValueError')}:Echo")
    worker = application.request()
    application.receive(ImportFailed)
    assert application.server.receive() is None
    assert worker.next_event() is None


def test_output_of_the_import_is_written_once(application, make_module, capfd):
    module = make_module("""
        from snakepit_mp.adapter import Adapter
        print("imported")

        class Fine(Adapter): ...
    """)
    application.start_imported(f"{module}:Fine")
    for worker in [application.spawn(number) for number in range(2)]:
        worker.serve()
        worker.order_stop()
        assert application.exited(worker) == (0, None)
    assert capfd.readouterr().out == "imported\n"


def test_an_import_may_ignore_children(application, make_module):
    module = make_module("""
        import signal
        from snakepit_mp.adapter import Adapter
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

        class Fine(Adapter): ...
    """)
    application.start_imported(f"{module}:Fine")
    worker = application.spawn()
    os.kill(worker.pid, signal.SIGKILL)
    assert application.exited(worker) == (None, "SIGKILL")


def test_a_store_that_does_not_fit_is_told(application, tmp_path, monkeypatch):
    with open(tmp_path / "no store", "w+b") as file:
        file.write(bytes(1 << 16))
        file.flush()
        monkeypatch.setattr(application.store, "descriptors", lambda: (file.fileno(),) * 2)
        application.start()
        assert isinstance(application.receive(ImportFailed).error, StoreMismatch)


THREADS = """
    import threading
    from snakepit_mp.adapter import Adapter, tool

    threading.Thread(target=threading.Event().wait, daemon=True).start()

    class Threads(Adapter):
        @tool
        def run(self): ...
"""


def test_threads_at_import_are_refused_by_name_of_the_module(application, make_module):
    culprit = make_module(THREADS)
    module = make_module(f"import json, {culprit}\nThreads = {culprit}.Threads")
    application.start(f"{module}:Threads")
    error = application.receive(ImportFailed).error
    assert isinstance(error, WorkerStartError)
    assert f"importing {culprit!r} started threads" in str(error)
    assert 'import_in="worker"' in str(error)


def test_threads_of_a_preloaded_module_are_refused_too(application, make_module):
    culprit = make_module(THREADS)
    application.start(preload=(culprit,))
    assert repr(culprit) in str(application.receive(ImportFailed).error)


def test_threads_that_ended_during_the_import_do_no_harm(application, make_module):
    """They may still be listed by the kernel when they are joined already."""
    module = make_module("""
        import threading
        from snakepit_mp.adapter import Adapter

        for _ in range(20):
            threads = [threading.Thread(target=int) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        class Fine(Adapter): ...
    """)
    application.start_imported(f"{module}:Fine")
    application.spawn().serve()


def test_import_in_worker_is_the_way_out(application, make_module):
    name = f"{make_module(THREADS)}:Threads"
    assert application.start_imported(name, import_in="worker").tools is None
    worker = application.spawn()
    assert list(worker.event("tools")["tools"]) == ["run"]
    worker.serve()
    assert application.server.pid != worker.pid


def test_an_import_error_in_the_worker_is_the_workers(application, make_module):
    name = f"{make_module('raise ValueError(42)')}:Echo"
    application.start_imported(name, import_in="worker")
    worker = application.spawn()
    with pytest.raises(ValueError, match="42"):
        worker.event("started")
    assert application.exited(worker) == (1, None)
