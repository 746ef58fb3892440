"""What must not outlive a pool? Its directory of sockets, and what it runs.

`abandoned` says how the directory of a dead pool is told from one in use.
"""

from __future__ import annotations

import atexit
import os
import re
import tempfile
import weakref
from pathlib import Path
from typing import Protocol

from ..errors import ConfigError
from ..telemetry.logs import logger
from . import abandoned
from .abandoned import PREFIX, remove_if_abandoned
from .kernel import kill_group

__all__ = [
    "Lasting",
    "SocketDirectory",
    "end_at_exit",
    "kill_group",
    "remove_if_abandoned",
    "sweep",
]

# What a Unix socket's address holds, with its end mark; less on BSDs.
_LONGEST_ADDRESS = 108 if os.uname().sysname == "Linux" else 104
# What a directory's path may grow by: a slash, its own name and that of a socket.
_ROOM = len(f"/{PREFIX}{'n' * 16}-{'x' * 8}/w99999-9999999.sock") + 1


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
        prefix = f"{PREFIX}{re.sub('[^A-Za-z0-9_.]', '_', name)[:16]}-"
        while True:
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
            abandoned.own.add(str(path))
            lock_fd = abandoned.lock_new(str(path))
            if lock_fd is not None:
                return cls(path, lock_fd)
            # It was swept between these steps: it looked like a dead pool's.
            abandoned.own.discard(str(path))

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
        abandoned.remove(str(self.path))
        os.close(self._lock_fd)
        self._lock_fd = -1
        abandoned.own.discard(str(self.path))


def sweep(base: Path) -> None:
    """Remove the directories of this user's dead pools from ``base``."""
    for path in base.glob(f"{PREFIX}*"):
        try:
            remove_if_abandoned(path)
        except OSError as error:
            logger.warning("cannot remove %s, left by a dead pool: %s", path, error)


def _base() -> Path:
    """The directory for runtime files of this user, or else the one for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _fits(Path(runtime)) and abandoned.is_private(runtime):
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
