"""docs/design.md shows what the code is: the lifecycle, and every folder."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import snakepit_mp
from snakepit_mp.core.lifecycle import diagram

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "design.md").read_text()


def test_diagram_is_printed_from_the_table() -> None:
    (shown,) = re.findall(r"^```mermaid\n(stateDiagram.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert shown == diagram()


def test_every_folder_and_module_has_its_question() -> None:
    table = PAGE.partition("## The house")[2].partition("\n## ")[0]
    package = Path(snakepit_mp.__file__).parent
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    rows = "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    assert set(re.findall(r"`([^`]+)`", rows)) == folders | modules


def test_layers_are_those_that_the_linter_holds() -> None:
    (shown,) = re.findall(r"^```\n(pool → .*)\n```$", PAGE, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert shown.split(" → ") == [layer for layer in layers if not layer.startswith("(")]
