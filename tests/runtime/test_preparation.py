"""Adapter classes are found again, wherever the application has them from."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from snakepit_mp.runtime import preparation
from snakepit_mp.runtime.preparation import refuse_in_unguarded_main

ANNOUNCE = """
    import multiprocessing
    from snakepit_mp.config import PoolConfig, StoreConfig
    from snakepit_mp.runtime.forkserver import (
        ForkPlan, ForkServer, Imported, refuse_in_unguarded_main
    )
    from snakepit_mp.store.session_store import SessionStore

    def announce(adapter):
        refuse_in_unguarded_main()
        store = SessionStore(StoreConfig(max_bytes=1 << 22))
        plan = ForkPlan.make(adapter, PoolConfig(store=store))
        server = ForkServer.start(plan, store.descriptors())
        message = server.receive()
        if isinstance(message, Imported):
            how = "by name" if plan.adapter.pickled is None else "by value"
            print(*message.tools, how, multiprocessing.get_start_method(allow_none=True))
        else:
            print(repr(message.error))
        server.stop()
        server.close()
"""

CLASS = """
    import sys
    from announce import announce
    from snakepit_mp.adapter import Adapter, tool

    FACTOR = 2

    class Outer:
        class Inner(Adapter):
            @tool
            def inner(self, x):
                return x * FACTOR

    def make():
        class Local(Adapter):
            @tool
            def local(self): ...
        return Local
"""

GUARDED = (
    CLASS
    + """
    if __name__ == "__main__":
        announce(Outer.Inner)
"""
)


@pytest.fixture
def run(tmp_path):
    """Runs Python on what was written to files below a fresh directory; its output."""

    def run(*arguments, stdin="", cwd="", **files):
        for name, source in {"announce": ANNOUNCE, **files}.items():
            path = tmp_path / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(source))
        path = os.pathsep.join([str(tmp_path), *sys.path])
        done = subprocess.run(
            [sys.executable, *arguments],
            input=textwrap.dedent(stdin),
            capture_output=True,
            text=True,
            cwd=tmp_path / cwd,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert done.stderr == ""
        return done.stdout.strip()

    return run


def test_a_class_of_a_guarded_script(run):
    assert run("app.py", app=GUARDED) == "inner by name None"


def test_a_script_that_was_started_by_a_relative_path_and_changed_directory(run):
    source = GUARDED.replace("announce(", "import os; os.chdir('/'); announce(")
    output = run("../app.py", cwd="elsewhere", app=source, elsewhere__in__other="")
    assert output == "inner by name None"


def test_a_class_of_a_module_that_was_run_by_name(run):
    files = {"package__in____init__": "", "package__in__module": GUARDED}
    assert run("-m", "package.module", **files) == "inner by name None"


def test_a_class_of_a_packages_main_travels_by_value(run):
    files = {"package__in____init__": "", "package__in____main__": GUARDED}
    assert run("-m", "package", **files) == "inner by value None"


def test_a_class_of_a_command_travels_by_value(run):
    command = textwrap.dedent(CLASS) + "announce(Outer.Inner)"
    assert run("-c", command) == "inner by value None"


def test_a_class_of_standard_input_travels_by_value(run):
    assert run("-", stdin=CLASS + "    announce(Outer.Inner)\n") == "inner by value None"


def test_a_class_made_by_a_function_travels_by_value(run):
    source = GUARDED.replace("announce(Outer.Inner)", "announce(make())")
    assert run("app.py", app=source) == "local by value None"


def test_a_class_of_a_module_that_only_this_process_has_travels_by_value(run):
    source = f"""
    import sys, types
    from announce import announce
    module = types.ModuleType("generated")
    sys.modules["generated"] = module
    exec({textwrap.dedent(CLASS)!r}, vars(module))
    if __name__ == "__main__":
        announce(module.Outer.Inner)
    """
    assert run("app.py", app=source) == "inner by value None"


def test_an_unguarded_script_gets_the_familiar_error(run):
    output = run("app.py", app=CLASS + "    announce(Outer.Inner)\n")
    assert output.startswith("RuntimeError")
    assert "bootstrapping phase" in output
    assert "if __name__ == '__main__':" in output


def test_an_unguarded_script_that_uses_multiprocessing_gets_its_error(run):
    source = (
        CLASS
        + """
    import multiprocessing
    if __name__ == "__main__":
        announce(Outer.Inner)
    else:
        multiprocessing.get_context("spawn").Process(target=print).start()
    """
    )
    assert "bootstrapping phase" in run("app.py", app=source)


THREAD = """
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.mark.parametrize("source", [THREAD + GUARDED, GUARDED + THREAD])
def test_a_main_module_that_starts_threads_is_named(run, source):
    output = run("app.py", app=source).replace("\\", "")
    assert "importing '__main__' started threads" in output


def test_a_module_of_the_main_module_that_starts_threads_is_named(run):
    source = "    import culprit\n" + GUARDED
    output = run("app.py", app=source, culprit=THREAD).replace("\\", "")
    assert "importing 'culprit' started threads" in output


def test_pools_are_refused_only_while_importing(monkeypatch):
    refuse_in_unguarded_main()
    monkeypatch.setattr(preparation, "_importing", True)
    with pytest.raises(RuntimeError, match="bootstrapping phase"):
        refuse_in_unguarded_main()
