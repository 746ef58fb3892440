"""Do the packages that users install work? Builds them, looks inside, and tests each.

Makes the sdist and, from it, the compiled wheel of this machine and the pure wheel, in
``dist/``. Each wheel is installed into a fresh environment outside the checkout and runs the
sdist's tests there, with the implementation it has to have.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
#: Implementation -> the switch that builds its wheel.
WHEELS = {"c": "yes", "python": "no"}


def run(*command: str | Path, **env: str) -> None:
    print("+", *command, flush=True)
    subprocess.run(command, check=True, env={**os.environ, **env})


def build_sdist(folder: Path) -> tuple[Path, Path]:
    """The sdist in ``dist/``, and where it lies unpacked in ``folder``."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", DIST, ROOT)
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return sdist, folder / sdist.name.removesuffix(".tar.gz")


def build_wheel(sdist: Path, implementation: str) -> Path:
    before = set(DIST.glob("*.whl"))
    run(
        *(sys.executable, *PIP, "wheel", "--no-deps", "--no-cache-dir"),
        *("--wheel-dir", DIST, sdist),
        SNAKEPIT_MP_BUILD_EXTENSION=WHEELS[implementation],
    )
    (wheel,) = set(DIST.glob("*.whl")) - before
    return wheel


def complaints(wheel: Path, implementation: str) -> list[str]:
    """What is wrong with the contents of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    wanted = ["py.typed", "_speedups.pyi", "bridge/snakepit_bridge_pb2.py"]
    wanted += ["bridge/snakepit_bridge_pb2.pyi", "bridge/snakepit_bridge_pb2_grpc.pyi"]
    found = [f"lacks {name}" for name in wanted if f"snakepit_mp/{name}" not in names]
    found += [
        f"holds {name}"
        for name in names
        if not name.startswith(("snakepit_mp/", "snakepit_mp-")) or name.endswith((".c", ".pyx"))
    ]
    compiled = [name for name in names if name.endswith(".so")]
    if len(compiled) != (1 if implementation == "c" else 0):
        found.append(f"holds compiled modules: {compiled}")
    if implementation == "python" and not wheel.name.endswith("-py3-none-any.whl"):
        found.append("is not tagged py3-none-any")
    return [f"{wheel.name} {complaint}" for complaint in found]


def test(wheel: Path, implementation: str, tests: Path, folder: Path) -> None:
    """Install ``wheel`` into a fresh environment and run the unpacked sdist's tests."""
    environment = folder / f"venv-{implementation}"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, *PIP, "install", "--upgrade", "pip>=25.1")
    group = f"{tests / 'pyproject.toml'}:test"
    run(python, *PIP, "install", f"{wheel}[digits]", "--group", group)
    os.chdir(tests)
    run(python, "-m", "pytest", SNAKEPIT_MP_IMPL=implementation)
    os.chdir(ROOT)


def main() -> int:
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sdist, tests = build_sdist(folder)
        shutil.rmtree(tests / "snakepit_mp")  # the tests must find the installed one
        wheels = {each: build_wheel(sdist, each) for each in WHEELS}
        wrong = [line for each, wheel in wheels.items() for line in complaints(wheel, each)]
        if wrong:
            print(*wrong, sep="\n")
            return 1
        for implementation, wheel in wheels.items():
            test(wheel, implementation, tests, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
