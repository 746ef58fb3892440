"""What must not outlive a pool? Its directory of sockets, and its processes.

A pool's directory is private (0700) and holds a lock file, locked by the application for as
long as it lives. The kernel drops the lock at its death, however it comes; an unlocked
directory is anybody's to remove. The lock is of the kind that a forked child does not
inherit. Closing *any* descriptor of the file would drop it, hence nobody opens the lock
file of a directory of his own process.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import signal
import stat
import tempfile
import weakref
from pathlib import Path
from typing import Protocol

from ..errors import ConfigError
from ..telemetry.logs import logger

__all__ = [
    "Lasting",
    "SocketDirectory",
    "end_at_exit",
    "kill_group",
    "remove_if_abandoned",
    "sweep",
]

_PREFIX = "snakepit_mp-"
_LOCK = "lock"
# What a Unix socket's address holds, with its end mark; less on BSDs.
_LONGEST_ADDRESS = 108 if os.uname().sysname == "Linux" else 104
# What a directory's path may grow by: a slash, its own name and that of a socket.
_ROOM = len(f"/{_PREFIX}{'n' * 16}-{'x' * 8}/w99999-9999999.sock") + 1

_own: set[Path] = set()


class Lasting(Protocol):
    """Something with threads and processes, of the process ``owner``."""

    owner: int

    def abandon(self) -> None:
        """Begin to end, without waiting."""

    def join(self) -> None:
        """Wait for the end."""


_lasting: weakref.WeakSet[Lasting] = weakref.WeakSet()


def end_at_exit(thing: Lasting) -> None:
    """Have it end before the interpreter does, if it lives that long."""
    _lasting.add(thing)


@atexit.register
def _end_all() -> None:
    ending = [thing for thing in _lasting if thing.owner == os.getpid()]
    for thing in ending:
        thing.abandon()
    for thing in ending:
        thing.join()


class SocketDirectory:
    """The private directory of one pool, under ``path``, until `remove`."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd
        self._maker = os.getpid()

    @classmethod
    def create(cls, name: str = "default") -> SocketDirectory:
        """Make one for the pool ``name``, and remove what this user's dead pools left.

        In ``$XDG_RUNTIME_DIR`` if that is a private directory, else in the directory for
        temporary files. Raises `ConfigError` if its path is too long for a Unix socket.
        """
        base = _base()
        sweep(base)
        prefix = f"{_PREFIX}{re.sub('[^A-Za-z0-9_.]', '_', name)[:16]}-"
        while True:
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
            _own.add(path)
            lock_fd = _lock_new(path)
            if lock_fd is not None:
                return cls(path, lock_fd)
            _own.discard(path)  # swept between these steps: it looked like a dead pool's

    @property
    def bridge_path(self) -> str:
        """Where the application's own bridge listens."""
        return str(self.path / "bridge.sock")

    def socket_path(self, worker_id: int, incarnation: int) -> str:
        """Where that incarnation of a worker listens."""
        return str(self.path / f"w{worker_id}-{incarnation}.sock")

    def forget(self, socket_path: str) -> None:
        """Remove the socket that a dead worker left behind, if it ever made one."""
        Path(socket_path).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory with all sockets; a forked copy of the application must not."""
        if self._lock_fd < 0 or self._maker != os.getpid():
            return
        _remove(self.path)
        os.close(self._lock_fd)
        self._lock_fd = -1
        _own.discard(self.path)


def kill_group(pid: int) -> None:
    """Kill the process group ``pid``; nothing happens if it has no living member."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        if os.uname().sysname == "Linux":
            raise
        # A BSD answers so where all members are dead and wait to be reaped.


def sweep(base: Path) -> None:
    """Remove the directories of this user's dead pools from ``base``."""
    for path in base.glob(f"{_PREFIX}*"):
        try:
            remove_if_abandoned(path)
        except OSError as error:
            logger.warning("cannot remove %s, left by a dead pool: %s", path, error)


def remove_if_abandoned(path: Path) -> bool:
    """Remove a pool's directory if its application is dead; whether it was."""
    if path in _own or not path.name.startswith(_PREFIX) or not _is_private(path):
        return False
    try:
        lock_fd = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _remove_empty(path)
    try:
        if not _lock(lock_fd):
            return False
        _remove(path)
        return True
    finally:
        os.close(lock_fd)


def _base() -> Path:
    """The directory for runtime files of this user, or else the one for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _fits(Path(runtime)) and _is_private(Path(runtime)):
        return Path(runtime)
    base = Path(tempfile.gettempdir())
    if not _fits(base):
        raise ConfigError(
            f"Unix sockets cannot be made in {str(base)!r}: with {len(os.fsencode(base))} bytes "
            f"the path is too long, {_LONGEST_ADDRESS - _ROOM} would do. Set TMPDIR or "
            "XDG_RUNTIME_DIR to a private directory with a shorter path"
        )
    return base


def _fits(base: Path) -> bool:
    return len(os.fsencode(base)) + _ROOM <= _LONGEST_ADDRESS


def _is_private(path: Path) -> bool:
    """Whether it is a directory, not a link to one, that only this user may enter."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    mode = stat.S_IMODE(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not mode & 0o077


def _lock_new(directory: Path) -> int | None:
    """Lock a new directory; ``None`` if a sweep came first and has removed it."""
    path = directory / _LOCK
    try:
        lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    # Whoever sweeps removes what he could lock, and then our lock is on a file without name.
    if _lock(lock_fd) and path.exists():
        return lock_fd
    os.close(lock_fd)
    return None


def _lock(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # held; systems differ in which they raise
        return False
    return True


def _remove(directory: Path) -> None:
    """Remove it with its files, the lock last, so that an interrupted removal can go on."""
    for entry in directory.iterdir():
        if entry.name != _LOCK:
            entry.unlink(missing_ok=True)
    (directory / _LOCK).unlink(missing_ok=True)
    directory.rmdir()


def _remove_empty(directory: Path) -> bool:
    """Remove a directory whose maker died before he could lock it, or the rest of one."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return False  # somebody else was faster
    except OSError:
        if (directory / _LOCK).exists():
            return False  # its maker is alive, and just has locked it
        raise
    return True
