"""Threads that imports leave are found, and the right module is named."""

from __future__ import annotations

import importlib
import sys
import threading

import pytest
from fix_pool import until

from snakepit_mp.errors import WorkerStartError
from snakepit_mp.runtime.kernel import thread_ids
from snakepit_mp.runtime.threads import ThreadBlame, refuse_threads

LEAVES_A_THREAD = """
    import threading
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
"""


@pytest.fixture
def leave_thread(make_module):
    """Makes modules that leave a thread; these end with the test."""
    made = []

    def make(more=""):
        made.append(make_module(LEAVES_A_THREAD + more))
        return made[-1]

    yield make
    for name in made:
        if name in sys.modules:
            sys.modules[name].done.set()
            sys.modules[name].thread.join()


def test_the_innermost_module_is_the_culprit(make_module, leave_thread):
    inner = leave_thread()
    middle = make_module(f"import json, {inner}")
    outer = make_module(f"import {middle}")
    with ThreadBlame() as blame:
        importlib.import_module(outer)
    assert blame.culprit() == inner


def test_a_module_that_starts_its_thread_first_is_not_taken_for_what_it_imports(
    make_module, leave_thread
):
    inner = make_module("value = 1")
    outer = leave_thread(f"    import {inner}")
    with ThreadBlame() as blame:
        importlib.import_module(outer)
    assert blame.culprit() == outer


def test_a_module_whose_thread_has_ended_is_not_blamed(leave_thread):
    first, second = leave_thread(), leave_thread()
    with ThreadBlame() as blame:
        importlib.import_module(first)
        importlib.import_module(second)
    ended = sys.modules[first]
    ended.done.set()
    ended.thread.join()
    # A joined thread may be listed for another moment.
    until(lambda: ended.thread.native_id not in thread_ids())
    assert blame.culprit() == second


def test_threads_from_before_are_nobodys(make_module):
    with ThreadBlame() as blame:
        importlib.import_module(make_module("value = 1"))
    assert blame.culprit() is None


def test_modules_are_what_they_are_without_it(make_module):
    """Loaders keep their type and forget about being watched."""
    name = make_module("value = 1")
    with ThreadBlame():
        module = importlib.import_module(name)
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    assert "exec_module" not in vars(module.__loader__)
    assert importlib.reload(module).value == 1


def test_missing_modules_are_missing(make_module):
    with ThreadBlame(), pytest.raises(ModuleNotFoundError):
        importlib.import_module("nothing_of_this_name")
    assert not any(isinstance(finder, ThreadBlame) for finder in sys.meta_path)


def test_more_threads_than_one_are_refused():
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        with pytest.raises(WorkerStartError, match=r"the imports left threads.*import_in"):
            refuse_threads()
    finally:
        release.set()
        thread.join()
