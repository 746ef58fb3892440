"""What there is around a pool's brain, as `pool_world` knows it: the truth."""

from __future__ import annotations

from dataclasses import dataclass, field

from snakepit_mp.core.events import Phase, Request

Key = tuple[int, int]


@dataclass
class Process:
    key: Key
    generation: int
    alive: bool = True
    starting: bool = True
    told_to_stop: bool = False
    mute: bool = False
    inbox: tuple[int, int] | None = None  # a request sent, not yet taken, and the attempt
    page: tuple[int, int, Phase] = (0, 0, Phase.IDLE)

    @property
    def has_work(self) -> bool:
        return self.inbox is not None or self.page[2] in (Phase.TAKEN, Phase.ENTERED)


@dataclass
class Server:
    generation: int
    alive: bool = True
    asked: list[Key] = field(default_factory=list)


@dataclass
class Call:
    """A caller's side of a request, and what really became of it."""

    request: Request
    answers: list[object] = field(default_factory=list)
    admitted: bool = False
    entered: int = 0  # how often its tool was really called
    deaths: int = 0  # those that may have been its fault
    other_deaths: int = 0
    progressed: bool = False

    @property
    def open(self) -> bool:
        return not self.answers
