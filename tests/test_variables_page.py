"""docs/variables.md says what the code does: its tables are held to it, row by row."""

from __future__ import annotations

import datetime as dt
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from value_samples import same

from snakepit_mp import errors
from snakepit_mp.errors import VariableTypeError
from snakepit_mp.values import patterns
from snakepit_mp.values.coercion import coerce
from snakepit_mp.values.constraints import suitable
from snakepit_mp.values.types import TYPES, type_name

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "variables.md").read_text()
NAMES = {"np": np, "dt": dt}


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def value(expression: str) -> Any:
    return eval(expression, dict(NAMES))


KINDS = [code(row[0])[0] for row in rows("Types")]
ACCEPTED = [
    (kind, given, normal)
    for kind, row in zip(KINDS, rows("Types"), strict=True)
    for given, normal in re.findall(r"`([^`]+)` → `([^`]+)`", row[3])
]
REFUSED = [
    (kind, given) for kind, row in zip(KINDS, rows("Types"), strict=True) for given in code(row[4])
]


def test_every_type_is_listed() -> None:
    assert sorted(KINDS) == list(TYPES)
    assert len(ACCEPTED) > 10
    assert len(REFUSED) > 20


@pytest.mark.parametrize(
    ("kind", "python"),
    [(kind, name) for kind, row in zip(KINDS, rows("Types"), strict=True) for name in code(row[1])],
)
def test_python_types(kind: str, python: str) -> None:
    assert type_name(value(python)) == kind


@pytest.mark.parametrize(("kind", "given", "normal"), ACCEPTED)
def test_what_becomes_what(kind: str, given: str, normal: str) -> None:
    assert same(coerce(kind, value(given)), value(normal))


@pytest.mark.parametrize(("kind", "given"), REFUSED)
def test_what_is_refused(kind: str, given: str) -> None:
    with pytest.raises(VariableTypeError):
        coerce(kind, value(given))


def test_constraints_and_the_types_they_suit() -> None:
    listed = {name: set(code(row[1])) for row in rows("Constraints") for name in code(row[0])}
    kinds_of = {
        name: {kind for kind in TYPES if name in suitable(kind)}
        for kind in TYPES
        for name in suitable(kind)
    }
    assert listed == kinds_of
    order = [name for name in listed if name in suitable("string")]
    assert order == list(suitable("string"))


def test_limits_of_patterns() -> None:
    assert f"at most {patterns.MAX_PATTERN:,} characters" in PAGE
    assert f"texts of at most {patterns.MAX_TEXT:,}" in PAGE


def test_attributes_of_errors() -> None:
    for name, _, attributes in rows("Errors"):
        (cls,) = code(name)
        parameters = inspect.signature(getattr(errors, cls).__init__).parameters.values()
        facts = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        assert set(code(attributes)) == facts
