"""Whose is a directory of sockets? Nobody's any more, if its lock is free.

A pool's directory is private (0700) and holds a lock file, locked by the application for as
long as it lives. The kernel drops the lock at its death, however it comes; an unlocked
directory is anybody's to remove. The lock is of the kind that a forked child does not
inherit. Closing *any* descriptor of the file would drop it, hence nobody opens the lock
file of a directory of his own process.

The guard starts with this module: what is imported here delays it.
"""

from __future__ import annotations

import fcntl
import os
import stat

__all__ = ["PREFIX", "is_private", "lock_new", "own", "remove", "remove_if_abandoned"]

PREFIX = "snakepit_mp-"
_LOCK = "lock"

#: The directories of this process's own pools.
own: set[str] = set()


def remove_if_abandoned(directory: str | os.PathLike[str]) -> bool:
    """Remove a pool's directory if its application is dead; whether it was."""
    path = os.fspath(directory)
    if path in own or not os.path.basename(path).startswith(PREFIX) or not is_private(path):
        return False
    try:
        lock_fd = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _remove_empty(path)
    try:
        if not _lock(lock_fd):
            return False
        remove(path)
        return True
    finally:
        os.close(lock_fd)


def is_private(path: str) -> bool:
    """Whether it is a directory, not a link to one, that only this user may enter."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    mode = stat.S_IMODE(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not mode & 0o077


def lock_new(directory: str) -> int | None:
    """Lock a new directory; ``None`` if a sweep came first and has removed it."""
    path = os.path.join(directory, _LOCK)
    try:
        lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    # Whoever sweeps removes what he could lock, and then our lock is on a file without name.
    if _lock(lock_fd) and os.path.exists(path):
        return lock_fd
    os.close(lock_fd)
    return None


def remove(directory: str) -> None:
    """Remove it with its files, the lock last, so that an interrupted removal can go on."""
    for name in os.listdir(directory):
        if name != _LOCK:
            _unlink(os.path.join(directory, name))
    _unlink(os.path.join(directory, _LOCK))
    os.rmdir(directory)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _lock(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # held; systems differ in which they raise
        return False
    return True


def _remove_empty(directory: str) -> bool:
    """Remove a directory whose maker died before he could lock it, or the rest of one."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return False  # somebody else was faster
    except OSError:
        if os.path.exists(os.path.join(directory, _LOCK)):
            return False  # its maker is alive, and just has locked it
        raise
    return True
