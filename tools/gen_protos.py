"""Which Python code belongs to ``proto/``? Writes it, or with ``--check`` compares it.

Needs the tools of the dependency group ``protos``; ``make protos`` installs them into an
environment of their own and calls this.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
#: No asyncio here; a servicer need not define every method: the rest answer UNIMPLEMENTED.
GRPC_STUBS = "only_sync,generate_concrete_servicer_stubs"
OUTPUTS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def sources() -> list[str]:
    """Every definition, relative to ``proto/``; its folder is the generated code's folder."""
    return sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))


def generated(root: Path) -> dict[str, str]:
    """The generated files below ``root``, by relative path."""
    paths = (path for pattern in OUTPUTS for path in (root / "snakepit_mp").rglob(pattern))
    return {str(path.relative_to(root)): path.read_text() for path in sorted(paths)}


def generate(target: Path) -> None:
    """Replace all generated code below ``target``."""
    for name in generated(target):
        (target / name).unlink()
    outs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python")]
    outs += [f"--mypy_out=quiet:{target}", f"--mypy_grpc_out=quiet,{GRPC_STUBS}:{target}"]
    plugins = [
        f"--plugin={name}={Path(sys.executable).parent / name}"
        for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *plugins, *outs]
    subprocess.run([*command, *sources()], check=True)


def check() -> list[str]:
    """The generated files that are missing, stale, or left over."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        wanted, present = generated(Path(folder)), generated(ROOT)
    return sorted(
        name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and change nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    differing = check()
    if differing:
        print("not what proto/ says (run `make protos`):", *differing, sep="\n  ")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
