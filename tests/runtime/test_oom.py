"""The kernel's count of kills for want of memory, wherever this system keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from snakepit_mp.runtime.oom import OomKills

#: Where the count is, and what /proc/self/cgroup says then.
PLACES = {
    "cgroup 2": ("sys/fs/cgroup/a/b/memory.events", "0::/a/b\n"),
    "cgroup 2 in a container": ("sys/fs/cgroup/memory.events", "0::/../x\n"),
    "cgroup 1": ("sys/fs/cgroup/memory/c/memory.oom_control", "4:cpu:/z\n3:memory,hugetlb:/c\n"),
    "neither": ("proc/vmstat", "4:cpu:/z\n"),
    "no cgroups": ("proc/vmstat", None),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_is_told_once(tmp_path: Path, place: str):
    name, membership = PLACES[place]
    counter = tmp_path / name
    counter.parent.mkdir(parents=True)
    if membership is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(membership)

    counter.write_text("low 0\noom 5\noom_kill 2\n")
    kills = OomKills(tmp_path)
    assert not kills.happened()
    counter.write_text("low 0\noom 9\noom_kill 3\n")
    assert kills.happened()
    assert not kills.happened()


def test_where_nothing_counts_nothing_happens(tmp_path: Path):
    kills = OomKills(tmp_path)
    assert not kills.happened()


def test_this_machine_counts():
    assert not OomKills().happened()
