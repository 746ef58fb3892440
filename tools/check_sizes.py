"""Is anything too long to be read at once? Modules over 500 lines, functions over 60."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("snakepit_mp", "_speedups", "tests", "tools", "benchmarks", "examples")
SUFFIXES = (".py", ".pyx", ".pxi", ".pxd", ".h")
MODULE_LINES = 500
FUNCTION_LINES = 60


def modules() -> Iterator[Path]:
    """Every source that somebody wrote, so without generated code."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and "_pb2" not in path.name:
                yield path


def too_long(path: Path) -> Iterator[str]:
    """A line for the module, and for each of its functions, that is over the limit."""
    name = path.relative_to(ROOT)
    text = path.read_text()
    if (lines := len(text.splitlines())) > MODULE_LINES:
        yield f"{name}: {lines} lines, more than {MODULE_LINES}"
    if path.suffix != ".py":
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES:
                where = f"{name}:{node.lineno}: {node.name}"
                yield f"{where} has {lines} lines, more than {FUNCTION_LINES}"


def main() -> int:
    complaints = [line for path in modules() for line in too_long(path)]
    print(*complaints, sep="\n", end="\n" if complaints else "")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
