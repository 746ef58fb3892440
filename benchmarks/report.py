"""What do calls cost, ours and others'? Makes pages and plots of what `make bench` measured.

    python benchmarks/report.py RESULTS.json [INSTRUCTIONS.json]

Rewrites the part of docs/benchmarks.md between its two marks, and docs/plots/.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pygal

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, PLOTS = DOCS / "benchmarks.md", DOCS / "plots"
BEGIN, END = "<!-- calls: begin -->\n", "<!-- calls: end -->\n"

#: Those about calls and workers; the others have tables of their own.
FILES = ("benchmarks/bench_execute.py", "benchmarks/bench_spawn.py", "benchmarks/bench_recovery.py")

#: The rows of ours, by the lane that the benchmark's parameter names.
OURS = re.compile(r"snakepit_mp")
STANDARD = "ProcessPoolExecutor"


@dataclass(frozen=True)
class Goal:
    """What was hoped for of the first row of ours: at most so much of somebody else's."""

    group: str
    than: str
    ratio: float
    of: str = "median"


GOALS = (
    Goal("execute-roundtrip", STANDARD, 1 / 40),
    Goal("execute-roundtrip", "plain grpc", 1 / 80),
    Goal("execute-roundtrip", STANDARD, 1 / 10, "p99"),
    Goal("execute-every-ms", STANDARD, 1 / 15),
    Goal("execute-after-50-ms", STANDARD, 1 / 5),
    Goal("throughput-8-threads", STANDARD, 1 / 5),
)


@dataclass(frozen=True)
class Row:
    """One benchmark; seconds."""

    name: str
    median: float
    p99: float

    @property
    def ours(self) -> bool:
        return OURS.search(self.name) is not None


def rows_of(results: Mapping[str, Any]) -> dict[str, list[Row]]:
    """By group, each from the fastest on, but the first of ours before all."""
    groups: dict[str, list[Row]] = {}
    for found in results["benchmarks"]:
        if not found["fullname"].startswith(FILES):
            continue
        times = sorted(found["stats"]["data"])
        row = Row(
            name_of(found["name"]),
            found["stats"]["median"],
            times[min(len(times) - 1, len(times) * 99 // 100)],
        )
        groups.setdefault(found["group"] or "other", []).append(row)
    return {group: sorted(rows, key=lambda row: row.median) for group, rows in groups.items()}


def name_of(benchmark: str) -> str:
    """``bench_peer_map[multiprocessing_pool]`` is "multiprocessing pool"."""
    function, _, parameter = benchmark.removeprefix("bench_").rstrip("]").partition("[")
    if function.startswith("peer"):
        return parameter.replace("_", " ").strip()
    if function.startswith("snakepit_mp"):
        which = " with a function" if "function" in function else ""
        return f"**snakepit_mp**, {parameter}{which}"
    return f"{function} {parameter}".replace("_", " ").strip()


def shown(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:,.0f} µs"
    return f"{seconds * 1e3:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def table_of(rows: list[Row]) -> Iterator[str]:
    first = next((row for row in rows if row.ours), rows[0])
    yield "| | median | 99th percentile | of the first of ours |"
    yield "| --- | --- | --- | --- |"
    for row in rows:
        ratio = row.median / first.median
        yield f"| {row.name} | {shown(row.median)} | {shown(row.p99)} | {ratio:,.2f} |"


def goals_of(groups: Mapping[str, list[Row]]) -> Iterator[str]:
    yield "| goal | at most | here |"
    yield "| --- | --- | --- |"
    for goal in GOALS:
        rows = groups.get(goal.group, [])
        ours = next((row for row in rows if row.ours), None)
        other = next((row for row in rows if row.name.startswith(goal.than)), None)
        if ours is not None and other is not None:
            here = getattr(ours, goal.of) / getattr(other, goal.of)
            met = "met" if here <= goal.ratio else f"missed, {here / goal.ratio:.1f} times too much"
            what = f"{goal.group}, {goal.of}, of {goal.than}'s"
            yield f"| {what} | 1/{1 / goal.ratio:.0f} | 1/{1 / here:.1f}: {met} |"


def plot(group: str, rows: list[Row]) -> str:
    """Write the bars of a group; the file's name."""
    chart = pygal.HorizontalBar(
        logarithmic=True, js=[], show_legend=False, height=60 + 34 * len(rows), width=900
    )
    chart.title = f"{group}: median, in µs, logarithmic"
    chart.x_labels = [row.name.replace("*", "") for row in reversed(rows)]
    bars = [
        {"value": round(row.median * 1e6, 1), "color": "#c0392b" if row.ours else "#7f8c8d"}
        for row in reversed(rows)
    ]
    chart.add("median", bars)
    drawn = re.sub(r"<!--.*?-->", "", chart.render(is_unicode=True), flags=re.DOTALL)
    # A name that is not drawn anew with every run.
    drawn = re.sub(r"chart-[0-9a-f-]{36}", "chart", drawn)
    name = re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-") + ".svg"
    PLOTS.mkdir(exist_ok=True)
    (PLOTS / name).write_text(drawn + "\n")
    return name


def machine_of(results: Mapping[str, Any]) -> str:
    info = results["machine_info"]
    brand = info.get("cpu", {}).get("brand_raw", info.get("machine", ""))
    count = info.get("cpu", {}).get("count", "?")
    versions = ", ".join(f"{name} {version}" for name, version in sorted(info["versions"].items()))
    return (
        f"{count} CPUs ({brand}), {info['system']} {info['release'].partition('-')[0]}, "
        f"{info['python_implementation']} {info['python_version']}; {versions}."
    )


def page_of(results: Mapping[str, Any], instructions: Mapping[str, Any]) -> Iterator[str]:
    groups = rows_of(results)
    yield from ("## Calls", "")
    yield from ("    make bench", "")
    yield (
        "measures what follows and writes it; one row: `python -m pytest benchmarks "
        "--benchmark-only -k '...'`. Everybody's workers are two, started and used before. "
        "The ratio is to the fastest lane of ours: above 1, it takes longer."
    )
    yield from ("", machine_of(results), "")
    yield from goals_of(groups)
    for name, count in instructions.items():
        yield f"\nInstructions of the interpreter {name}: {count:,} (`benchmarks/instructions.py`)."
    for group, rows in groups.items():
        yield from ("", f"### {group}", "")
        yield from table_of(rows)
        yield from ("", f"![{group}](plots/{plot(group, rows)})")
    yield ""


def main(results: str, instructions: str | None = None) -> None:
    counted = json.loads(Path(instructions).read_text()) if instructions else {}
    text = "\n".join(page_of(json.loads(Path(results).read_text()), counted))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + text + END + after)


if __name__ == "__main__":
    main(*sys.argv[1:])
