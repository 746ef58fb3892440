"""Lists the plug-ins (``fix_*.py``), and says at the top of a run what is tested."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from snakepit_mp import _accel
from snakepit_mp.lanes.mailbox import works_here

pytest_plugins = [
    "fix_timeouts",
    "fix_leaks",
    "fix_impl",
    "fix_pool",
    "fix_store",
    "fix_forkserver",
    "fix_worker",
    "fix_bridge",
]

#: No twin has a part in what these are about: where both suites run, one of them is enough.
EITHER_TWIN = (
    "core/",
    "runtime/",
    "test_imports.py",
    "test_packaging.py",
    *(
        f"integration/test_{name}.py"
        for name in (
            "affinity",
            "asyncio",
            "awkward_moments",
            "batches",
            "breaker",
            "diagnosis",
            "ends",
            "lanes",
            "logs",
            "no_hang",
            "orphans",
            "recovery",
            "recycling",
            "reload",
            "shutdown",
            "start_failures",
            "tree",
        )
    ),
)

#: What is about execution, errors, streams, deadlines or deaths is run on each lane.
EACH_LANE = tuple(
    f"integration/test_{name}.py"
    for name in (
        "asyncio",
        "callables",
        "context",
        "crash_restart",
        "death_matrix",
        "diagnosis",
        "execute",
        "interrupts",
        "retries",
        "submit",
    )
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    path = Path(str(metafunc.module.__file__))
    if "lane" in metafunc.fixturenames and path.as_posix().endswith(EACH_LANE):
        # No twin has a part in the lane over gRPC.
        over_grpc = pytest.param("grpc", marks=pytest.mark.either_twin)
        # The suite of the compiled twin has the mailbox, that of the pure one the socket.
        own = "mailbox" if works_here() else "socket"
        metafunc.parametrize("lane", [own, over_grpc], indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            path = item.path.relative_to(here).as_posix()
            if path.startswith(EITHER_TWIN):
                item.add_marker("either_twin")


def pytest_report_header() -> str:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("grpcio", "protobuf"))
    return f"snakepit_mp: implementation {_accel.implementation!r}, {', '.join(versions)}"
