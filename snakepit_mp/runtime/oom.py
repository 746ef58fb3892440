"""Was it the kernel that killed for want of memory? Its own count of such kills."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["OomKills"]

_ROOT = Path("/")


class OomKills:
    """How often the kernel has killed in this process's cgroup; else on the whole machine.

    ``root``: where the file systems ``proc`` and ``sys`` are.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        self._seen = self._count()

    def happened(self) -> bool:
        """Whether it has killed since this was asked the last time."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    def _count(self) -> int:
        for path in self._counters():
            try:
                lines = path.read_text(encoding="ascii").splitlines()
            except OSError:
                continue  # another version of cgroups, or none
            facts = dict(line.split(maxsplit=1) for line in lines if " " in line)
            if facts.get("oom_kill", "").isdigit():
                return int(facts["oom_kill"])
        return 0

    def _counters(self) -> Iterator[Path]:
        cgroups = self._root / "sys/fs/cgroup"
        for controllers, path in self._memberships():
            if controllers == "":
                yield cgroups / path / "memory.events"
            elif "memory" in controllers.split(","):
                yield cgroups / "memory" / path / "memory.oom_control"
        yield cgroups / "memory.events"  # the container's own, whatever the path outside is
        yield self._root / "proc/vmstat"

    def _memberships(self) -> Iterator[tuple[str, str]]:
        try:
            lines = (self._root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        except OSError:
            return  # no Linux, or no /proc
        for line in lines:
            _, controllers, path = line.split(":", 2)
            yield controllers, path.lstrip("/")
