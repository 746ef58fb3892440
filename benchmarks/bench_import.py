"""What does the import cost? Whole processes; the bare interpreter is the zero line."""

from __future__ import annotations

import subprocess
import sys

import pytest

STATEMENTS = {
    "nothing": "pass",
    "concurrent_futures": "import concurrent.futures.process",
    "snakepit_mp": "import snakepit_mp",
    "grpc": "import grpc",
}


@pytest.mark.benchmark(group="import")
@pytest.mark.parametrize("name", STATEMENTS)
def bench_import(benchmark, name):
    command = [sys.executable, "-c", STATEMENTS[name]]
    benchmark.pedantic(subprocess.run, (command,), {"check": True}, rounds=10, iterations=1)
