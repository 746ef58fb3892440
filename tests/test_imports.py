"""What an import does: each module stands alone, and the package starts light."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fix_timeouts import scaled

import snakepit_mp

PACKAGE = Path(snakepit_mp.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)

#: Whatever is imported first, the package itself comes before it. What that has not brought
#: along is imported in a child of its own: as good as a fresh interpreter, and much faster.
ONE_BY_ONE = """
import importlib, os, sys
import cloudpickle, grpc, numpy
import snakepit_mp
failed = []
for name in set(sys.argv[1:]) - set(sys.modules):
    pid = os.fork()
    if pid == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(f"{name}: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        failed.append(name)
sys.exit(1 if failed else 0)
"""


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # so that it may fork
    )


def test_each_module_can_be_imported_first() -> None:
    """In an order of their own, users' imports must meet no cycle and no warning."""
    assert len(MODULES) > 1
    done = _run(ONE_BY_ONE, *MODULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_imports_neither_grpc_nor_numpy() -> None:
    heavy = ("grpc", "numpy", "google.protobuf", "cloudpickle")
    script = (
        f"import sys; from snakepit_mp import *; print(*[m for m in {heavy} if m in sys.modules])"
    )
    done = _run(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
