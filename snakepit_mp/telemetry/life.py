"""How has a component fared that is a thread? What it tells of itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["Life"]


@dataclass(slots=True)
class Life:
    """``since``: when it was started last, on `time.monotonic`; ``error``: what ended it last.

    That is text, for an exception would keep the frames that it came through.
    """

    restarts: int = 0
    since: float = field(default_factory=time.monotonic)
    error: str | None = None

    def restarted(self, error: BaseException) -> None:
        """It had failed, and works again, or is about to."""
        self.restarts += 1
        self.since = time.monotonic()
        self.error = f"{type(error).__name__}: {error}"
