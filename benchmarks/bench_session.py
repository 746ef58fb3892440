"""What do a session's variables cost? Beside a dict, and a dict in a process of its own."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from snakepit_mp import SessionStore
from snakepit_mp.session import Session

VALUES = {
    "float": 0.7,
    "str": "a line of text",
    "list": list(range(100)),
    "array_1_mib": np.zeros(1 << 17),
}


@pytest.fixture
def session():
    with SessionStore() as store:
        session = Session(store, store.create_session("s").id)
        session.register_variable("float", "float", 0.5, constraints={"min": 0.0, "max": 2.0})
        for name in VALUES:
            session[name] = VALUES[name]
        yield session


@pytest.fixture
def manager_dict():
    with multiprocessing.get_context("forkserver").Manager() as manager:
        yield manager.dict(VALUES)


@pytest.mark.parametrize("name", VALUES)
def bench_session_read(benchmark, session, name):
    benchmark.group = f"read-{name}"
    benchmark(session.__getitem__, name)


@pytest.mark.parametrize("name", VALUES)
def bench_manager_read(benchmark, manager_dict, name):
    benchmark.group = f"read-{name}"
    benchmark(manager_dict.__getitem__, name)


def bench_dict_read(benchmark):
    benchmark.group = "read-float"
    benchmark(VALUES.__getitem__, "float")


@pytest.mark.parametrize("name", VALUES)
def bench_session_write(benchmark, session, name):
    """The float is validated: it has bounds."""
    benchmark.group = f"write-{name}"
    benchmark(session.__setitem__, name, VALUES[name])


@pytest.mark.parametrize("name", VALUES)
def bench_manager_write(benchmark, manager_dict, name):
    benchmark.group = f"write-{name}"
    benchmark(manager_dict.__setitem__, name, VALUES[name])


def bench_dict_write(benchmark):
    benchmark.group = "write-float"
    benchmark({}.__setitem__, "float", 0.7)
