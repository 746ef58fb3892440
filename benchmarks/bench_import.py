"""What does the import cost? Whole processes; the bare interpreter is the zero line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from apparatus import compiled_once

STATEMENTS = {
    "nothing": "pass",
    "concurrent_futures": "import concurrent.futures.process",
    "snakepit_mp": "import snakepit_mp",
    "snakepit_mp_pool": "from snakepit_mp import Pool",
    "grpc": "import grpc",
}


@pytest.mark.benchmark(group="import")
@pytest.mark.parametrize("name", STATEMENTS)
def bench_import(benchmark, name):
    with compiled_once() as env:

        def run():
            subprocess.run([sys.executable, "-c", STATEMENTS[name]], check=True, env=env)

        benchmark.pedantic(run, rounds=10, iterations=1, warmup_rounds=1)
