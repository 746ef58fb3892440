"""Public names: every module lists its own, sorted, and the package lists the users'."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import snakepit_mp

PACKAGE = Path(snakepit_mp.__file__).parent
#: Modules that define something; generated code has no list.
MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_pb2" not in path.name and len(ast.parse(path.read_text()).body) > 1
]
IDS = [str(path.relative_to(PACKAGE)) for path in MODULES]


def _exported(path: Path) -> list[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    pytest.fail("the module has no __all__")


def _order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest; each by name."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_all_is_sorted(path: Path) -> None:
    names = _exported(path)
    assert names == sorted(set(names), key=_order)


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_all_names_exist(path: Path) -> None:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    assert [name for name in _exported(path) if not hasattr(module, name)] == []


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_public_classes_and_functions_are_listed(path: Path) -> None:
    defined = {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    }
    public = {name for name in defined if not name.startswith("_")}
    assert public - set(_exported(path)) == set()
