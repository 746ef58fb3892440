"""The code blocks of README.md and docs/: each is a script, and each runs.

A block marked ``python`` is run by itself, as a file, in a fresh interpreter. Where a block
marked ``output`` follows it directly, that is exactly what it prints.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from fix_timeouts import scaled

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n*^```output\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A script in a page, and what it should print (``None``: anything)."""

    name: str
    code: str
    output: str | None


def blocks(page: Path) -> list[Block]:
    """The scripts of a page, named by the line they start at."""
    text = page.read_text()
    return [
        Block(
            f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}",
            match["code"],
            match["output"],
        )
        for match in BLOCK.finditer(text)
    ]


ALL = [block for page in PAGES if page.exists() for block in blocks(page)]


def test_readme_has_blocks() -> None:
    """An empty list would let the test below pass without running anything."""
    assert [block for block in ALL if block.name.startswith("README.md:")]


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.name)
def test_block_runs(block: Block, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(block.code)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if block.output is not None:
        assert done.stdout == block.output
