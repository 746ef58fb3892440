"""Was the guard stopped by a signal? Its parent is told, if he waits for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from .kernel import ON_LINUX

__all__ = ["watch_pauses"]


def watch_pauses(
    pid: int, paused: Callable[[], None], failed: Callable[[BaseException], object]
) -> None:
    """Call ``paused``, in a thread of its own, whenever the child ``pid`` is stopped.

    The thread ends with the child; ``failed`` gets what ended it otherwise. Only on Linux, where one can wait without reaping.
    """
    if ON_LINUX:
        name = f"snakepit-mp-pauses-of-{pid}"
        threading.Thread(target=_live, args=(pid, paused, failed), name=name, daemon=True).start()


def _live(pid: int, paused: Callable[[], None], failed: Callable[[BaseException], object]) -> None:
    try:
        _watch(pid, paused)
    except BaseException as error:  # noqa: BLE001 - told to whom it concerns
        failed(error)


def _watch(pid: int, paused: Callable[[], None]) -> None:
    while True:
        try:
            notice = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if notice is None or notice.si_code != os.CLD_STOPPED:
                return
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)  # this notice has been seen
        except ChildProcessError:
            return  # it was reaped meanwhile
        paused()
