"""Lists the plug-ins (``fix_*.py``), and says at the top of a run what is tested."""

from __future__ import annotations

import importlib.metadata

from snakepit_mp import _accel

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


def pytest_report_header() -> str:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("grpcio", "protobuf"))
    return f"snakepit_mp: implementation {_accel.implementation!r}, {', '.join(versions)}"
