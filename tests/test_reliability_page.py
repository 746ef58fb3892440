"""docs/reliability.md names tests: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()


def named() -> list[tuple[str, str]]:
    """Files and tests; a test without a file is in the one named last before it."""
    found, file = [], ""
    for name in re.findall(r"`([\w/]*?(?:\.py)?(?:::\w+)?)`", PAGE):
        path, _, test = name.partition("::")
        if path.endswith(".py"):
            file = path
        elif path or not test:
            continue
        found.append((file, test))
    return found


@pytest.mark.parametrize(("file", "test"), named())
def test_it_exists(file: str, test: str) -> None:
    path = (TESTS.parent if file.startswith("benchmarks/") else TESTS) / file
    assert path.exists()
    assert f"def {test}(" in path.read_text() or not test


def test_there_are_many() -> None:
    assert len(named()) > 40
