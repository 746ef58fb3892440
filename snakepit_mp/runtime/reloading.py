"""What does a caller wait for who wants new code?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..adapter import ToolSpec
from ..errors import PoolError

__all__ = ["Reloading"]


@dataclass(slots=True)
class Reloading:
    """One reload. ``since``: the generation of the fork server that there was before.

    ``tools``: those of the new code, once known.
    """

    since: int
    tools: Mapping[str, ToolSpec] | None = None
    over: bool = False
    failure: PoolError | None = None

    def end(self, failure: PoolError | None) -> None:
        self.failure = failure
        self.over = True

    def result(self, timeout: float | None) -> None:
        """Nothing, if it went well; raises why not, or ``TimeoutError`` if it goes on."""
        if not self.over:
            raise TimeoutError(f"the pool was still being reloaded after {timeout} s; that goes on")
        if self.failure is not None:
            raise self.failure
