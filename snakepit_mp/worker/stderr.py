"""Where does standard error go? Where it went before, and into the worker's black box."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from ..lanes.blackbox import BlackBox

__all__ = ["Copied", "copy_stderr", "keep_stderr"]


class Copied:
    """A text stream that is another one, except that what is written is kept, too.

    What C code writes to the descriptor is not seen here.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.box: BlackBox | None = None

    def write(self, text: str) -> int:
        if self.box is not None:
            self.box.note(text.encode(errors="replace"))
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


def copy_stderr() -> None:
    """Replace ``sys.stderr``, before anybody keeps it: a logging handler made by an import."""
    if sys.stderr is not None:  # as it is where the application has closed it
        sys.stderr = Copied(sys.stderr)


def keep_stderr(box: BlackBox) -> None:
    """From here on what goes through `copy_stderr` is kept in ``box``."""
    if isinstance(sys.stderr, Copied):
        sys.stderr.box = box
