"""What do the benchmarks share? Pools that are ready and warm, ours and the peers'."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import pytest
from apparatus import WORKERS, Echo

from snakepit_mp import Pool, _accel


def pytest_report_header() -> str:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("grpcio", "protobuf"))
    return f"snakepit_mp: implementation {_accel.implementation!r}, {', '.join(versions)}"


@pytest.fixture(params=["auto"])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """Two workers that have both been used, without a bridge; the parameter is the lane."""
    with Pool(Echo, workers=WORKERS, bridge=None, lane=request.param) as pool:
        pool.await_ready(workers=WORKERS)
        for _ in range(4 * WORKERS):
            pool.execute("echo", (-1,))
        yield pool


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    """What was measured against what."""
    names = ("grpcio", "loky", "pebble", "mpire", "joblib", "deadpool-executor", "distributed")
    found = {}
    for name in ("snakepit-mp", *names, "ray"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    machine_info["versions"] = {**found, "implementation": _accel.implementation}
    machine_info["node"] = ""  # nobody's business
