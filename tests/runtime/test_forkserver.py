"""The fork server as the application sees it: with real processes and real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from fix_forkserver import wait_readable
from fix_pool import until

import snakepit_mp
from snakepit_mp.runtime.forkserver import Exited, Forked, Imported, Resumed, Stopped

ROOT = str(Path(snakepit_mp.__file__).parents[1])

ECHO = """
    from snakepit_mp.adapter import Adapter, tool

    class Echo(Adapter):
        @tool
        def echo(self, text: str) -> str:
            return text
"""

# Writes facts about the worker it starts in, as JSON.
FACTS = """
    import gc, json, os, random, signal, sys
    from snakepit_mp.adapter import Adapter

    class Facts(Adapter):
        def start(self):
            links = {}
            for fd in os.listdir("/proc/self/fd"):
                try:
                    links[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
                except FileNotFoundError:
                    pass  # the listing's own
            facts = {
                "pid": os.getpid(),
                "group": os.getpgid(0),
                "threads": len(os.listdir("/proc/self/task")),
                "files": links,
                "random": random.random(),
                "blocked": [int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
                "child_signal_is_default": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
                "interrupt_is_ignored": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
                "wakeup": signal.set_wakeup_fd(-1),
                "collects": gc.isenabled(),
                "frozen": gc.get_freeze_count(),
                "environment": dict(os.environ),
                "main": sys.modules["__main__"].__name__,
            }
            path = os.environ["FACTS"] + f".{os.getpid()}"
            with open(path, "w") as file:
                json.dump(facts, file)
"""

# Each worker starts a grandchild in its group, and one in a session of its own.
FAMILY = """
    import os, subprocess, sys
    from snakepit_mp.adapter import Adapter

    SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]

    class Family(Adapter):
        def start(self):
            pids = [
                subprocess.Popen(SLEEP).pid,
                subprocess.Popen(SLEEP, start_new_session=True).pid,
            ]
            with open(os.environ["FACTS"], "w") as file:
                file.write(" ".join(map(str, pids)))
"""


@pytest.fixture
def facts_of(application, make_module, tmp_path):
    """Start a server of `Facts`, fork workers, and return what each found out."""

    def start(workers=1, **settings):
        env = {"FACTS": str(tmp_path / "facts"), **settings.pop("env", {})}
        application.start_imported(f"{make_module(FACTS)}:Facts", env=env, **settings)
        spawned = [application.spawn(worker_id) for worker_id in range(workers)]
        for each in spawned:
            each.serve()
        return [json.loads((tmp_path / f"facts.{each.pid}").read_text()) for each in spawned]

    return start


@pytest.fixture
def family(application, make_module, tmp_path):
    """A worker with two grandchildren; it, the one in its group, and the one outside."""
    env = {"FACTS": str(tmp_path / "family")}
    application.start_imported(f"{make_module(FAMILY)}:Family", env=env)
    worker = application.spawn()
    worker.serve()
    near, far = map(int, (tmp_path / "family").read_text().split())
    return worker, psutil.Process(near), psutil.Process(far)


def forker(worker) -> psutil.Process:
    """The process that forked it: the fork server itself, not its guard."""
    return psutil.Process(psutil.Process(worker.pid).ppid())


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


# -- a worker's life ---------------------------------------------------------------------


def test_the_tools_are_told_once_imported(application, make_module):
    imported = application.start_imported(f"{make_module(ECHO)}:Echo")
    assert list(imported.tools) == ["echo"]
    assert imported.tools["echo"].signature == "echo(text: str) -> str"


def test_a_worker_is_forked_serves_and_ends_politely(application, make_module):
    application.start_imported(f"{make_module(ECHO)}:Echo")
    worker = application.spawn(3, 5)
    assert worker.serve() == f"unix:{application.directory.path}/w3-5.sock"
    assert os.getpgid(worker.pid) == worker.pid
    assert forker(worker).ppid() == application.server.pid
    worker.order_stop()
    assert application.exited(worker) == (0, None)
    assert wait_readable(worker.pidfd)


def test_requests_may_come_before_the_import_is_done(application, make_module):
    application.start(f"{make_module(ECHO)}:Echo")
    workers = [application.request(number) for number in range(3)]
    application.receive(Imported)
    for worker in workers:
        application.answered(worker).serve()


def test_a_pool_without_adapter_needs_none(application):
    assert application.start_imported().tools == {}
    application.spawn().serve()


def test_death_by_signal_is_reported_with_its_name(application):
    application.start_imported()
    worker = application.spawn()
    os.kill(worker.pid, signal.SIGKILL)
    assert application.exited(worker) == (None, "SIGKILL")


def test_death_by_a_real_time_signal_is_reported_with_its_number(application):
    application.start_imported()
    worker = application.spawn()
    os.kill(worker.pid, signal.SIGRTMIN + 3)
    assert application.exited(worker) == (None, f"SIG{signal.SIGRTMIN + 3}")


def test_exit_codes_are_reported(application, make_module):
    module = make_module("""
        import os
        from snakepit_mp.adapter import Adapter

        class Leaves(Adapter):
            def start(self):
                os._exit(3)
    """)
    application.start_imported(f"{module}:Leaves")
    worker = application.spawn()
    assert application.exited(worker) == (3, None)


def test_a_stopped_worker_is_reported_at_once_and_so_is_its_return(application):
    application.start_imported()
    worker = application.spawn(4, 2)
    worker.serve()
    os.kill(worker.pid, signal.SIGSTOP)
    assert application.receive(Stopped) == Stopped(4, 2, worker.pid, stopped=True)
    os.kill(worker.pid, signal.SIGCONT)
    assert application.receive(Stopped) == Stopped(4, 2, worker.pid, stopped=False)


def test_a_stopped_server_is_continued_by_its_guard_and_tells_so(application):
    imported = application.start_imported()
    worker = application.spawn()
    assert forker(worker).pid == imported.pid == application.server.own_pid
    os.kill(imported.pid, signal.SIGSTOP)
    application.receive(Resumed)
    application.spawn(1).serve()


def test_a_worker_may_be_continued_without_the_server_saying_anything(application):
    application.start_imported()
    worker = application.spawn()
    worker.serve()
    os.kill(worker.pid, signal.SIGCONT)
    worker.order_stop()
    assert application.exited(worker) == (0, None)


def test_its_end_is_known_before_that_of_its_workers(application):
    application.start_imported()
    workers = [application.spawn(number) for number in range(5)]
    assert not application.server.ended()
    os.kill(application.server.own_pid, signal.SIGKILL)
    for worker in workers:
        assert wait_readable(worker.pidfd)
        assert application.server.ended()


def test_the_dead_are_reaped(application):
    application.start_imported()
    for incarnation in range(3):
        worker = application.spawn(0, incarnation)
        server = forker(worker)
        os.kill(worker.pid, signal.SIGKILL)
        application.exited(worker)
    assert server.children() == []


def test_many_requests_at_once_with_nobody_reading_the_answers(application, make_module):
    """More answers than the channel holds: the server goes on taking requests."""
    module = make_module("""
        import os
        from snakepit_mp.adapter import Adapter

        class Leaves(Adapter):
            def start(self):
                os._exit(0)
    """)
    application.start_imported(f"{module}:Leaves")
    for worker_id in range(200):
        application.request(worker_id)
    forked, exited = {}, set()
    while len(exited) < 200:
        message = application.server.receive()
        if isinstance(message, Forked):
            forked[message.worker_id] = message.pid
            os.close(message.pidfd)
        else:
            assert isinstance(message, Exited)
            assert forked[message.worker_id] == message.pid
            exited.add(message.worker_id)


# -- what a worker inherits --------------------------------------------------------------


def test_a_worker_has_nothing_of_the_server_and_of_other_workers(facts_of, application):
    _, facts = facts_of(workers=2)
    files = {int(fd): link for fd, link in facts["files"].items() if int(fd) > 2}
    kinds = sorted(link.split(":")[0] for link in files.values())
    memory = sorted(link for link in files.values() if "memfd" in link)
    # Its own channel; its status page; the store. No pidfd, no wake-up socket, no control.
    assert kinds.count("socket") == 1
    assert len(files) == 1 + len(memory)
    assert {link for link in memory if "worker" in link} == {"/memfd:snakepit_mp-worker (deleted)"}
    assert facts["files"]["0"] == "/dev/null"


def test_a_worker_starts_alone_in_its_group_with_fresh_signals(facts_of):
    (facts,) = facts_of()
    assert facts["group"] == facts["pid"]
    assert facts["threads"] == 1
    assert facts["blocked"] == []
    assert facts["child_signal_is_default"]
    assert facts["interrupt_is_ignored"]
    assert facts["wakeup"] == -1


def test_signals_that_the_application_blocks_are_not_blocked_in_workers(facts_of):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    try:
        (facts,) = facts_of()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert facts["blocked"] == []


def test_a_worker_collects_garbage_but_not_what_it_shares(facts_of):
    (facts,) = facts_of()
    assert facts["collects"]
    assert facts["frozen"] > 1000


def test_workers_draw_different_random_numbers(facts_of):
    one, other = facts_of(workers=2, preload=("random",))
    assert one["random"] != other["random"]


def test_the_environment_is_set_before_anything_is_imported(facts_of):
    (facts,) = facts_of(env={"OWN": "thing", "MKL_NUM_THREADS": "7"})
    environment = facts["environment"]
    assert environment["GRPC_ENABLE_FORK_SUPPORT"] == "0"
    assert environment["OPENBLAS_NUM_THREADS"] == environment["OMP_NUM_THREADS"] == "1"
    assert (environment["OWN"], environment["MKL_NUM_THREADS"]) == ("thing", "7")


def test_thread_limits_are_raised_in_the_worker(application, make_module, tmp_path):
    module = make_module("""
        import os
        import numpy, threadpoolctl
        from snakepit_mp.adapter import Adapter

        class Blas(Adapter):
            def start(self):
                numpy.dot(numpy.ones((50, 50)), numpy.ones((50, 50)))
                limits = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
                with open(os.environ["FACTS"], "w") as file:
                    print(set(limits), os.environ["OMP_NUM_THREADS"], file=file)
    """)
    path = tmp_path / "limits"
    application.start_imported(f"{module}:Blas", threads=2, env={"FACTS": str(path)})
    application.spawn().serve()
    assert path.read_text() == "{2} 2\n"


# -- death -------------------------------------------------------------------------------


def test_a_dead_workers_group_is_killed_at_once(family, application):
    worker, near, far = family
    os.kill(worker.pid, signal.SIGKILL)
    application.exited(worker)
    until(lambda: is_gone(near))
    assert not is_gone(far)  # not in the group; it lasts until the pool ends


def test_stop_leaves_no_descendant(family, application):
    worker, near, far = family
    application.server.stop()
    assert application.exited(worker) == (None, "SIGKILL")
    assert application.server.receive() is None
    application.server.close()
    assert is_gone(near)
    assert is_gone(far)


def test_adopted_children_are_reaped_silently(application, make_module):
    module = make_module("""
        import os, subprocess, sys
        from snakepit_mp.adapter import Adapter

        ORPHAN = "import os, time; os.fork() or time.sleep(0.05)"

        class Orphans(Adapter):
            def start(self):
                subprocess.run([sys.executable, "-S", "-c", ORPHAN])
    """)
    application.start_imported(f"{module}:Orphans")
    worker = application.spawn()
    worker.serve()
    server = forker(worker)
    until(lambda: [child.pid for child in server.children()] == [worker.pid])
    worker.order_stop()
    assert application.exited(worker) == (0, None)


@pytest.mark.parametrize("who", ["server", "guard"])
def test_workers_die_with_the_server_and_it_with_its_guard(application, who):
    application.start_imported()
    workers = [application.spawn(number) for number in range(2)]
    server = forker(workers[0])
    os.kill(server.pid if who == "server" else application.server.pid, signal.SIGKILL)
    for worker in workers:
        assert wait_readable(worker.pidfd)
    assert application.server.receive() is None
    assert wait_readable(application.server.pidfd)


def test_kill_ends_a_server_that_is_stopped(application):
    application.start_imported()
    worker = application.spawn()
    psutil.Process(application.server.pid).suspend()  # first: it would continue the other
    forker(worker).suspend()
    application.server.kill()
    assert wait_readable(worker.pidfd)
    application.server.close()


def test_stop_during_the_import_ends_the_server(application, make_module, tmp_path):
    """It has one thread, and that is in the user's code: its guard obeys."""
    os.mkfifo(tmp_path / "importing")
    module = make_module("""
        import os, time
        open(os.environ["FIFO"], "w").close()
        time.sleep(600)
    """)
    application.start(f"{module}:Any", env={"FIFO": str(tmp_path / "importing")})
    application.request()
    (tmp_path / "importing").read_text()
    application.server.stop()
    assert wait_readable(application.server.pidfd)
    assert application.server.receive() is None


def test_after_its_end_every_call_is_harmless(application):
    application.start_imported()
    application.server.kill()
    assert wait_readable(application.server.pidfd)
    assert application.server.receive() is None
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        application.request()
    application.server.stop()
    application.server.kill()
    application.server.close()
    application.server.close()


def test_the_keyboard_does_not_reach_it(application):
    application.start_imported()
    os.killpg(application.server.pid, signal.SIGINT)
    application.spawn().serve()


def test_its_guard_ends_all_on_order(family, application):
    """As where a supervisor of the application's sends SIGTERM to every process."""
    worker, near, far = family
    os.kill(application.server.pid, signal.SIGTERM)
    assert wait_readable(worker.pidfd)
    assert wait_readable(application.server.pidfd)
    assert is_gone(near)
    assert is_gone(far)


def test_it_outlives_the_thread_that_started_it(application):
    thread = threading.Thread(target=application.start)
    thread.start()
    thread.join()
    application.receive(Imported)
    application.spawn().serve()


def test_the_guard_imports_little():
    """All that it does takes time before it watches."""
    code = "import sys; before = {*sys.modules}; import snakepit_mp.runtime.guard; print(*before ^ {*sys.modules})"
    bare = [sys.executable, "-S", "-P", "-c", f"import sys; sys.path.append({ROOT!r}); {code}"]
    loaded = set(subprocess.run(bare, stdout=subprocess.PIPE, text=True, check=True).stdout.split())
    own = {name for name in loaded if name.startswith("snakepit_mp")}
    assert own == {
        "snakepit_mp",
        "snakepit_mp.runtime",
        *(f"snakepit_mp.runtime.{name}" for name in ("abandoned", "guard", "kernel")),
    }
    assert not loaded & {"site", "typing", "pathlib", "threading", "subprocess", "socket"}
