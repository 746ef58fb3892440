"""What becomes of a process that a tool forks? It ends where the tool's code ends.

Such a child has a copy of the worker's inbox and shares its status page. If it went on after
its tool, it would be a second worker that nobody knows.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import NoReturn

__all__ = ["OnlyThisProcess", "flush_output"]


class OnlyThisProcess:
    """A block that only the process which made this object gets out of.

    A process forked inside ends with the block as a script would: what was raised decides
    on the exit code and is shown on standard error.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    def check(self) -> None:
        """The same in the middle of the block: a forked process ends here, with exit code 0."""
        if os.getpid() != self._pid:
            _leave(None)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            _leave(error)


def flush_output() -> None:
    """Write what is buffered; in a parent also before a fork, or its children write it too."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as it is where the application has closed it
            stream.flush()


def _leave(error: BaseException | None) -> NoReturn:
    code = 1
    try:
        code = _exit_code(error)
        flush_output()
    finally:
        os._exit(code)


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        return 1
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1
