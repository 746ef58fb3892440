"""Directories of dead pools go, those of living ones stay."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from snakepit_mp.errors import ConfigError
from snakepit_mp.runtime import abandoned, cleanup
from snakepit_mp.runtime.cleanup import SocketDirectory, kill_group, remove_if_abandoned, sweep

HOLDER = """
import sys
from snakepit_mp.runtime.cleanup import SocketDirectory
directory = SocketDirectory.create("other")
print(directory.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def base(monkeypatch):
    """A private place for directories, with a short path."""
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        yield Path(path)


@pytest.fixture
def directory(base):
    directory = SocketDirectory.create()
    yield directory
    directory.remove()


@pytest.fixture
def holder(base):
    """Another process with a pool's directory, and that directory's path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def dead_directory(base: Path) -> Path:
    """What a killed application leaves: sockets and a lock that nobody holds."""
    path = base / "snakepit_mp-dead-12345678"
    path.mkdir(mode=0o700)
    (path / "lock").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path / "w0-3.sock"))
    return path


def test_it_is_private_and_below_the_users_runtime_directory(directory, base):
    assert directory.path.parent == base
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_the_names_tell_pool_worker_and_incarnation(base):
    directory = SocketDirectory.create("a/b c" * 9)
    try:
        assert directory.path.name.startswith("snakepit_mp-a_b_ca_b_ca_b_ca-")
        assert directory.socket_path(3, 12) == f"{directory.path}/w3-12.sock"
        assert directory.bridge_path == f"{directory.path}/bridge.sock"
    finally:
        directory.remove()


def test_remove_takes_the_sockets_along(directory):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(directory.socket_path(0, 0))
    directory.remove()
    assert not directory.path.exists()
    directory.remove()


def test_forget_removes_the_socket_of_a_dead_worker(directory):
    path = directory.socket_path(0, 0)
    Path(path).touch()
    directory.forget(path)
    directory.forget(path)
    assert not Path(path).exists()


def test_a_forked_copy_of_the_application_removes_nothing(base):
    script = """
import os
from snakepit_mp.runtime.cleanup import SocketDirectory
directory = SocketDirectory.create()
if os.fork() == 0:
    directory.remove()
    os._exit(0)
os.wait()
assert directory.path.exists()
directory.remove()
assert not directory.path.exists()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("unfit", ["", "relative/path", "/nonexistent"])
def test_without_a_runtime_directory_it_is_a_temporary_one(base, monkeypatch, unfit):
    monkeypatch.setenv("XDG_RUNTIME_DIR", unfit)
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    directory = SocketDirectory.create()
    directory.remove()
    assert directory.path.parent == base


def test_a_runtime_directory_that_others_may_enter_is_not_used(base, monkeypatch):
    shared = base / "shared"
    shared.mkdir(mode=0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared))
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    directory = SocketDirectory.create()
    directory.remove()
    assert directory.path.parent == base


def test_too_long_a_path_is_an_error_that_says_what_to_do(base, monkeypatch):
    deep = base / ("x" * 90)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ConfigError, match=r"path is too long.*Set TMPDIR"):
        SocketDirectory.create()


def test_the_longest_path_that_is_accepted_can_be_bound(base, monkeypatch):
    room = cleanup._LONGEST_ADDRESS - cleanup._ROOM - len(str(base)) - 1
    deep = base / ("x" * room)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    directory = SocketDirectory.create("n" * 20)
    assert directory.path.parent == deep
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(directory.socket_path(99_999, 9_999_999))
    directory.remove()


def test_a_dead_pools_directory_goes_when_the_next_pool_starts(base):
    dead = dead_directory(base)
    directory = SocketDirectory.create()
    left = list(base.iterdir())
    directory.remove()
    assert dead not in left


def test_a_living_pools_directory_stays(holder, base):
    process, path = holder
    sweep(base)
    assert not remove_if_abandoned(path)
    assert sorted(entry.name for entry in path.iterdir()) == ["lock"]
    process.kill()
    process.wait()
    assert remove_if_abandoned(path)
    assert not path.exists()


def test_a_sweep_does_not_drop_the_locks_of_its_own_process(directory, base):
    """Closing any descriptor of a locked file would; so it must not open its own."""
    SocketDirectory.create().remove()
    sweep(base)
    check = (
        "import sys, pathlib; from snakepit_mp.runtime.cleanup import remove_if_abandoned;"
        "sys.exit(remove_if_abandoned(pathlib.Path(sys.argv[1])))"
    )
    subprocess.run([sys.executable, "-c", check, directory.path], check=True)


def test_an_empty_directory_without_lock_goes(base):
    """Its maker died before he could lock it."""
    path = base / "snakepit_mp-default-abcdefgh"
    path.mkdir(mode=0o700)
    assert remove_if_abandoned(path)
    assert not path.exists()


def test_only_directories_of_pools_are_ever_removed(base, monkeypatch):
    other = base / "other"
    other.mkdir(mode=0o700)
    monkeypatch.chdir(other)

    assert not remove_if_abandoned(other)
    assert not remove_if_abandoned(Path())
    assert other.exists()


def test_links_and_directories_of_other_kinds_are_left_alone(base):
    target = base / "elsewhere"
    target.mkdir(mode=0o700)
    (target / "lock").touch()
    (base / "snakepit_mp-link-abcdefgh").symlink_to(target)
    (base / "snakepit_mp-file-abcdefgh").touch()
    (base / "snakepit_mp-open-abcdefgh").mkdir(mode=0o755)
    before = sorted(base.iterdir())
    sweep(base)
    assert sorted(base.iterdir()) == before
    assert (target / "lock").exists()


def test_what_cannot_be_removed_is_reported_and_hinders_nobody(base, caplog):
    odd = dead_directory(base)
    (odd / "folder").mkdir()
    with caplog.at_level(logging.WARNING, "snakepit_mp"):
        directory = SocketDirectory.create()
    directory.remove()
    assert str(odd) in caplog.text


def test_an_interrupted_removal_can_go_on(base):
    """The lock goes last, so that what is left still looks like a pool's directory."""
    odd = dead_directory(base)
    (odd / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        remove_if_abandoned(odd)
    (odd / "folder").rmdir()
    assert (odd / "lock").exists()
    assert remove_if_abandoned(odd)


@pytest.mark.parametrize("stage", ["before the lock file", "after it"])
def test_a_directory_that_is_swept_while_it_is_made_is_made_again(base, monkeypatch, stage):
    real_lock, swept = abandoned.lock_new, []

    def sweeping_lock_new(path: str) -> int | None:
        if not swept:
            swept.append(Path(path))
            if stage == "before the lock file":
                os.rmdir(path)
            else:
                monkeypatch.setattr(abandoned, "_lock", sweeping_lock)
        return real_lock(path)

    def sweeping_lock(fd: int) -> bool:
        monkeypatch.undo()
        (swept[0] / "lock").unlink()
        swept[0].rmdir()
        fcntl.lockf(fd, fcntl.LOCK_EX)
        return True

    monkeypatch.setattr(abandoned, "lock_new", sweeping_lock_new)
    directory = SocketDirectory.create()
    directory.remove()
    assert directory.path != swept[0]
    assert not swept[0].exists()


def test_kill_group_kills_all_its_members():
    script = "import os, time; os.fork(); print(os.getpid(), flush=True); time.sleep(100)"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, process_group=0
    )
    with process:
        for _ in range(2):
            assert process.stdout.readline()
        kill_group(process.pid)
        assert process.wait() == -signal.SIGKILL


def test_kill_group_tolerates_that_nobody_is_left():
    process = subprocess.Popen([sys.executable, "-c", ""], process_group=0)
    process.wait()
    kill_group(process.pid)
