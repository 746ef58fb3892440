"""What does this kernel offer to keep processes together? The calls that Python lacks.

Linux has them all. Elsewhere (macOS) some do nothing, and processes then find out about
each other's end by the end of a channel.

The guard starts with this module: what is imported here delays it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator

__all__ = [
    "ON_LINUX",
    "become_subreaper",
    "children",
    "die_with_parent",
    "exit_descriptor",
    "kill_family",
    "kill_group",
    "reap",
    "send_signal",
    "signal_name",
    "stops",
    "thread_ids",
]

ON_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Loaded here, since the dynamic loader has no business in a freshly forked child.
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    unused = ctypes.c_ulong(0)
    if _libc.prctl(option, ctypes.c_ulong(value), unused, unused, unused):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def become_subreaper() -> None:
    """Adopt all descendants whose parents die; only on Linux."""
    if ON_LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have this process killed when the thread that forked it ends; only on Linux.

    Leaves at once if ``parent`` died before the kernel was told. Outlasts an ``exec``.
    """
    if ON_LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def exit_descriptor(pid: int) -> int:
    """A descriptor, the caller's to close, that becomes readable when the process ends.

    On Linux a pidfd, which can be sent to other processes; raises ``ProcessLookupError`` if
    there is no such process. Else a kqueue, which cannot be sent; readable at once if there
    is no such process.
    """
    if sys.platform == "linux":
        return os.pidfd_open(pid)
    queue = select.kqueue()
    ended = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
    try:
        queue.control([ended], 0)
    except ProcessLookupError:
        reader, writer = os.pipe()
        os.close(writer)
        return reader
    else:
        return os.dup(queue.fileno())
    finally:
        queue.close()


def send_signal(descriptor: int, pid: int, number: int) -> None:
    """Signal the process whose `exit_descriptor` this is; nothing happens if it has ended."""
    try:
        if sys.platform == "linux":
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        pass


def thread_ids() -> set[int]:
    """The threads of this process; elsewhere than on Linux, those Python knows of."""
    if ON_LINUX:
        return {int(task) for task in os.listdir("/proc/self/task")}
    import threading

    return {thread.native_id or 0 for thread in threading.enumerate()}


def kill_group(pid: int) -> None:
    """Kill the process group ``pid``; nothing happens if it has no living member."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        if ON_LINUX:
            raise
        # A BSD answers so where all members are dead and wait to be reaped.


def kill_family(child: int) -> bool:
    """Kill a child that is not reaped yet, and the process group if it leads one.

    False if it has become another user's, whom this one may not kill.
    """
    try:
        if os.getpgid(child) == child:
            kill_group(child)
        else:
            os.kill(child, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def reap(before: Callable[[int], object], *, wait: bool = False) -> tuple[int, int, int] | None:
    """Reap one child that has ended: its pid, wait status and the most bytes it had resident.

    ``None`` if there is none. ``before`` is called with its pid while that cannot be used
    again, and so still names its process group; on systems that cannot peek, just
    afterwards. With ``wait``, blocks until a child ends; ``None`` then means that there are
    no children.
    """
    hang = 0 if wait else os.WNOHANG
    try:
        if not hasattr(os, "waitid"):
            reaped = _wait(-1, hang)
            if reaped[0]:
                before(reaped[0])
            return reaped if reaped[0] else None
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | hang)
    except ChildProcessError:
        return None
    if ended is None:
        return None
    before(ended.si_pid)
    return _wait(ended.si_pid, 0)


def _wait(pid: int, options: int) -> tuple[int, int, int]:
    pid, status, usage = os.wait4(pid, options)
    return pid, status, usage.ru_maxrss * (1024 if ON_LINUX else 1)


def stops() -> Iterator[tuple[int, bool]]:
    """Which children were stopped (true) or continued since the last time; Linux only."""
    while hasattr(os, "waitid"):
        try:
            notice = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
        except ChildProcessError:
            return
        if notice is None:
            return
        yield notice.si_pid, notice.si_code != os.CLD_CONTINUED


def children() -> list[int]:
    """The children of this process that are not reaped yet, adopted ones too; only on Linux."""
    if not ON_LINUX:
        return []
    lists = [f"/proc/self/task/{task}/children" for task in os.listdir("/proc/self/task")]
    if os.path.exists(lists[0]):
        return [int(child) for each in lists for child in _words(each)]
    pid = os.getpid()  # a kernel without those files
    return [child for child in _processes() if _parent_of(child) == pid]


def _words(path: str) -> list[str]:
    with open(path, encoding="ascii") as file:
        return file.read().split()


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent_of(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            # The command in parentheses may hold anything; state and parent follow it.
            return int(stat.read().rpartition(")")[2].split()[1])
    except OSError:
        return None  # it ended meanwhile


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; real-time signals have numbers only, such as ``SIG40``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
