"""The lists that have to agree: floors with generated code, the stub with the extension."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import snakepit_mp
from snakepit_mp import _accel

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
PACKAGE = Path(snakepit_mp.__file__).parent
BRIDGE = PACKAGE / "bridge"


def _floor(distribution: str) -> str:
    requirements = map(Requirement, PROJECT["project"]["dependencies"])
    (found,) = (r for r in requirements if r.name == distribution)
    return next(s.version for s in found.specifier if s.operator == ">=")


def _stamp(module: str, pattern: str) -> str:
    match = re.search(pattern, (BRIDGE / module).read_text())
    assert match is not None
    return match[1]


def test_protobuf_floor_is_the_generated_codes() -> None:
    """With an older runtime the generated code refuses to be imported."""
    stamp = _stamp("snakepit_bridge_pb2.py", r"Protobuf Python Version: (\S+)")
    assert _floor("protobuf") == stamp


@pytest.mark.parametrize("distribution", ["grpcio", "grpcio-health-checking", "grpcio-reflection"])
def test_grpc_floor_is_the_generated_codes(distribution: str) -> None:
    stamp = _stamp("snakepit_bridge_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '(\S+)'")
    assert _floor(distribution) == stamp


def test_generator_is_pinned_to_its_stamp() -> None:
    stamp = _stamp("snakepit_bridge_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '(\S+)'")
    assert f"grpcio-tools=={stamp}" in PROJECT["dependency-groups"]["protos"]


def test_every_development_tool_is_pinned() -> None:
    tools = [
        Requirement(entry)
        for group in PROJECT["dependency-groups"].values()
        for entry in group
        if isinstance(entry, str)
    ]
    assert [str(t) for t in tools if [s.operator for s in t.specifier] != ["=="]] == []


def test_version_is_stated_alike() -> None:
    assert snakepit_mp.__version__ == PROJECT["project"]["version"]


def test_typed_marker_is_there() -> None:
    assert (PACKAGE / "py.typed").is_file()


def _stub_names() -> set[str]:
    names: set[str] = set()
    for node in ast.parse((PACKAGE / "_speedups.pyi").read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.skipif(_accel.speedups is None, reason="tests the compiled part")
def test_stub_lists_what_the_extension_has() -> None:
    module = vars(_accel.speedups)
    compiled = {
        name
        for name, value in module.items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == "snakepit_mp._speedups"
    }
    assert compiled
    assert compiled <= _stub_names() <= module.keys()
