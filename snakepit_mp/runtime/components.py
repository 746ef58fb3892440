"""Do the pool's own threads live? Each is started again if not; too often, and the pool ends.

One for one, as for workers, and by the same rule. The watcher, who looks, is not among them: its
own end ends the pool at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..config import RestartPolicy
from ..core.restart import RestartIntensity
from ..errors import PoolError
from ..telemetry.life import Life
from ..telemetry.logs import logger
from .tree import Branch
from .watcher import Watcher

__all__ = ["INTERVAL", "Component", "Components", "component_branch"]

#: Seconds between two looks.
INTERVAL = 1.0


class Component(Protocol):
    """Something with a thread of its own."""

    life: Life

    def failure(self) -> BaseException | None:
        """Why it does not work any more; ``None`` while it does, or need not."""

    def start_again(self) -> None:
        """Make it work; may raise."""


@dataclass(slots=True)
class _Watched:
    name: str
    component: Component
    intensity: RestartIntensity
    due: float | None = None  # when it is to be started again


class Components:
    """Looks after them, in the watcher's thread; what it raises ends the pool."""

    def __init__(
        self, watcher: Watcher, policy: RestartPolicy, jitter: Callable[[], float]
    ) -> None:
        self._watcher = watcher
        self._policy = policy
        self._jitter = jitter
        self._all: list[_Watched] = []

    def add(self, name: str, component: Component) -> None:
        """Before `begin`."""
        intensity = RestartIntensity(self._policy, self._jitter)
        self._all.append(_Watched(name, component, intensity))

    def begin(self) -> None:
        self._watcher.after(INTERVAL, self._round)

    def _round(self) -> None:
        for watched in self._all:
            failure = watched.component.failure()
            if failure is not None and watched.due is None:
                self._failed(watched, failure)
        self.begin()

    def _failed(self, watched: _Watched, failure: BaseException) -> None:
        delay = watched.intensity.record_death(time.monotonic())
        if delay is None:
            raise PoolError(f"the {watched.name} fails again and again: {failure!r}") from failure
        watched.due = time.monotonic() + delay
        logger.error(
            "the %s failed, and is started again in %.3g s", watched.name, delay, exc_info=failure
        )
        self._watcher.after(delay, lambda: self._start_again(watched, failure))

    def _start_again(self, watched: _Watched, failure: BaseException) -> None:
        watched.due = None
        try:
            watched.component.start_again()
        except Exception as error:  # noqa: BLE001 - it counts as its next failure
            self._failed(watched, error)
        else:
            watched.component.life.restarted(failure)


def component_branch(name: str, state: str, life: Life, *facts: str) -> Branch:
    """A component's place in the tree."""
    error = () if life.error is None else (f"last error {life.error}",)
    return Branch(
        name,
        state,
        since=time.monotonic() - life.since,
        restarts=life.restarts,
        facts=(*facts, *error),
    )
