"""Does ``_speedups.pyi`` describe the compiled module? Runs mypy's stubtest where it is built."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE = "snakepit_mp._speedups"
#: Cython adds this one to every module.
ALLOWED = f"{MODULE}.__test__\n"


def main() -> int:
    if importlib.util.find_spec(MODULE) is None:
        print(f"{MODULE} is not built: its stub is not checked")
        return 0
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as allowlist:
        allowlist.write(ALLOWED)
        allowlist.flush()
        command = [sys.executable, "-m", "mypy.stubtest", MODULE, "--allowlist", allowlist.name]
        command += ["--ignore-unused-allowlist", "--mypy-config-file", "pyproject.toml"]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
