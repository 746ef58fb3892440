"""Public names: every module lists its own, sorted, and the package lists the users'."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
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


def _documented() -> Iterator[tuple[str, str | None]]:
    """Every public class, function and method of the package, with its docstring."""
    for name in snakepit_mp.__all__:
        value = getattr(snakepit_mp, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            yield name, value.__doc__
        if inspect.isclass(value):
            for member, method in inspect.getmembers(value, inspect.isfunction):
                if not member.startswith("_"):
                    yield f"{name}.{member}", inspect.getdoc(method)


def test_public_names_are_documented() -> None:
    """Not by what a dataclass makes up where nothing is written: its signature."""
    bare = [name for name, text in _documented() if not text or text.startswith(f"{name}(")]
    assert bare == []


def test_public_names_are_imported_when_first_used():
    code = """
import sys, snakepit_mp
assert not any(name.startswith("snakepit_mp.") for name in sys.modules), sys.modules
assert set(snakepit_mp.__all__) <= set(dir(snakepit_mp))
snakepit_mp.Adapter, snakepit_mp.errors
assert "snakepit_mp.pool" not in sys.modules
for name in snakepit_mp.__all__:
    assert getattr(snakepit_mp, name) is getattr(snakepit_mp, name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_store_returns_has_a_public_name() -> None:
    with snakepit_mp.SessionStore(snakepit_mp.StoreConfig(max_bytes=1 << 20)) as store:
        assert type(store.create_session("s")) is snakepit_mp.SessionInfo
        assert type(store.register_variable("s", "x", None, 1)) is snakepit_mp.Variable
        assert type(store.stats()) is snakepit_mp.StoreStats
        [old] = store.history("s", "x")
        assert type(old) is snakepit_mp.OldValue
        changes = store.watch("s", timeout=0)
        store.update_variable("s", "x", 2)
        assert type(next(changes)) is snakepit_mp.Change


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Poool"):
        _ = snakepit_mp.Poool
