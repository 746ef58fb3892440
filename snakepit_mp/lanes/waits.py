"""How does a caller wait, and still hear Ctrl-C? In slices, if it is the main thread.

A signal that comes after the interpreter's last look and before the system call has its flag
set, but nobody to see it: the thread sleeps on. The next slice sees it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["SLICE", "wait_for"]

#: Seconds; other threads never get the exception, and sleep as long as they want.
SLICE = 0.05

_T = TypeVar("_T")


def wait_for(wait: Callable[[float | None], _T], deadline: float | None = None) -> _T:
    """What ``wait(seconds)`` returns, as soon as that is true, or when the deadline has passed.

    ``seconds`` is how long it may take at most; ``None`` is for ever. ``deadline`` is on
    ``time.monotonic()``.
    """
    main = threading.current_thread() is threading.main_thread()
    while True:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        longest = SLICE if main else threading.TIMEOUT_MAX
        result = wait(longest if left is None else min(left, longest))
        if result or (left is not None and left <= longest):
            return result
