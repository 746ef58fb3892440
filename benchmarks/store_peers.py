"""Who else keeps variables, and how is each asked at its best? For `bench_store`.

A peer is started once, holds the same values as ours, and has a statement for each question that
it can answer. A statement is run in a loop of its own (`timeit`), so that nothing but the loop is
measured besides; of several ways to ask, the fastest one is taken, also where it is not the usual
one: LMDB's transactions are ended by hand, which costs less than ``with``. Who stores bytes gives and gets bytes: encoding is not held against it.
"""

from __future__ import annotations

import importlib
import mmap
import multiprocessing
import os
import shutil
import sqlite3
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from snakepit_mp import SessionStore
from snakepit_mp.config import StoreConfig
from snakepit_mp.session import Session

__all__ = ["PEERS", "QUESTIONS", "Missing", "Peer", "elsewhere", "filled_store", "once", "started"]

#: Each question, and how many statements one round of pytest-benchmark has.
QUESTIONS = {
    "read": 1000,
    "write": 1000,
    "array-read": 100,
    "array-write": 100,
    "snapshot": 100,
    "batch": 100,
    "session": 100,
}
FLOAT = 0.7
ARRAY = np.arange(float(1 << 17))  # 1 MiB
RAW = memoryview(ARRAY).cast("B")
PACKED = struct.pack("<d", FLOAT)
NAMES = [f"v{number}" for number in range(10)]
BATCH = dict.fromkeys(NAMES, FLOAT)
KEYS = [name.encode() for name in NAMES]
ROWS = [(key, PACKED) for key in KEYS]
COMMON = {
    "np": np,
    "copyto": np.copyto,
    "value": FLOAT,
    "array": ARRAY,
    "raw": RAW,
    "packed": PACKED,
}
COMMON |= {"names": NAMES, "batch": BATCH, "keys": KEYS, "rows": ROWS}
_MAP_BYTES = 256 << 20


class Missing(Exception):
    """This peer cannot be had here, and why."""


@dataclass(frozen=True)
class Peer:
    """``start`` gives the names that the statements use, and hands its end to the stack."""

    name: str
    start: Callable[[ExitStack], dict[str, Any]]
    statements: dict[str, str]


def once(inner: Callable[..., float], count: int) -> Callable[[], float]:
    """Runs the loop of a `Timer` so many times, and does nothing else."""
    return lambda: inner(repeat(None, count), time.perf_counter)


def started(peer: Peer, stack: ExitStack) -> dict[str, Any]:
    """The names for its statements. Raises `Missing`."""
    return COMMON | peer.start(stack)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{name} is not installed: {error}") from error


@contextmanager
def _memory_folder() -> Iterator[str]:
    """A folder on tmpfs, where there is one."""
    shared = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=shared if os.path.isdir(shared) else None) as folder:
        yield folder


# Ours.


def filled_store(stack: ExitStack) -> tuple[SessionStore, Session]:
    """A store, and a session with every variable that is asked for, bounded where a float."""
    store = stack.enter_context(SessionStore(StoreConfig(max_bytes=_MAP_BYTES)))
    session = Session(store, store.create_session("s").id)
    for name in ("x", "y", *NAMES):
        session.register_variable(name, "float", 0.5, constraints={"min": 0.0, "max": 2.0})
    session["a"] = ARRAY
    for name in ("stamp", "ping", "pong"):
        session[name] = 0
    return store, session


def elsewhere(store: SessionStore, session: Session, count: int = 4) -> list[str]:
    """Other sessions with a bounded variable, each in another stripe than the session's."""
    taken = {store._place(session.id).stripe}
    found: list[str] = []
    for number in range(10_000):
        name = f"elsewhere-{number}"
        stripe = store._place(name).stripe
        if stripe not in taken:
            taken.add(stripe)
            other = Session(store, store.create_session(name).id)
            other.register_variable("x", "float", 0.5, constraints={"min": 0.0, "max": 2.0})
            found.append(name)
        if len(found) == count:
            return found
    raise RuntimeError("all sessions are in one stripe")


def _ours(stack: ExitStack) -> dict[str, Any]:
    store, session = filled_store(stack)
    return {"store": store, "s": session}


# In one process, or with nothing around the memory.


def _nothing(_: ExitStack) -> dict[str, Any]:
    return {}


def _dict(_: ExitStack) -> dict[str, Any]:
    return {"d": {"x": FLOAT, "a": ARRAY, **BATCH}, "lock": threading.Lock()}


def _memcpy(stack: ExitStack) -> dict[str, Any]:
    """Shared memory that has been touched already, and an array of this process."""
    shared = mmap.mmap(-1, ARRAY.nbytes)
    target = np.frombuffer(shared, dtype=ARRAY.dtype)
    target[:] = ARRAY
    return {"target": target, "mine": ARRAY.copy()}


# Between processes.


def _environment(stack: ExitStack) -> Any:
    lmdb = _module("lmdb")
    folder = stack.enter_context(_memory_folder())
    environment = lmdb.open(
        folder, map_size=_MAP_BYTES, sync=False, metasync=False, writemap=True, max_spare_txns=4
    )
    stack.callback(environment.close)
    with environment.begin(write=True) as transaction:
        for key, value in ((b"x", PACKED), (b"a", RAW), *ROWS):
            transaction.put(key, value)
    return environment


def _lmdb(stack: ExitStack) -> dict[str, Any]:
    return {"begin": _environment(stack).begin}


def _lmdb_open(stack: ExitStack) -> dict[str, Any]:
    """An environment of its own: what an open reader can see is never freed for writers."""
    transaction = _environment(stack).begin()
    buffers = _environment(stack).begin(buffers=True)
    stack.callback(transaction.abort)
    stack.callback(buffers.abort)
    return {"get": transaction.get, "get_buffer": buffers.get}


def _value(_: ExitStack) -> dict[str, Any]:
    return {"v": multiprocessing.get_context("forkserver").Value("d", FLOAT)}


def _ultra(stack: ExitStack) -> dict[str, Any]:
    """With its usual lock, for forked processes: the one for others costs several times as much."""
    from multiprocessing import resource_tracker as tracker

    kept = tracker.register, tracker.unregister, dict(tracker._CLEANUP_FUNCS)
    try:
        ultra = _module("UltraDict").UltraDict
    finally:
        # It switches the tracker off for the whole process, whose other peers rely on it.
        tracker.register, tracker.unregister, functions = kept
        tracker._CLEANUP_FUNCS.update(functions)
    dicts = {}
    for name, values, size in (
        ("d", {"x": FLOAT, **BATCH}, 1 << 20),
        ("big", {"a": ARRAY}, 32 << 20),
    ):
        dicts[name] = ultra(values, buffer_size=size, full_dump_size=size)
        stack.callback(dicts[name].close)
    return dicts


def _shared_memory_dict(stack: ExitStack) -> dict[str, Any]:
    """One for each use: whoever reads one variable decodes all that are in the same."""
    make = _module("shared_memory_dict").SharedMemoryDict
    dicts = {}
    for name, values in (("d", {"x": FLOAT}), ("big", {"a": ARRAY}), ("ten", BATCH)):
        dicts[name] = one = make(
            f"bench-{os.getpid()}-{name}", 1 << 12 if name != "big" else 2 << 20
        )
        stack.callback(one.shm.unlink)
        stack.callback(one.shm.close)
        one.update(values)
    return dicts


def _sqlite(stack: ExitStack) -> dict[str, Any]:
    folder = stack.enter_context(_memory_folder())
    connection = sqlite3.connect(Path(folder, "store.db"), isolation_level=None)
    stack.callback(connection.close)
    execute = connection.execute
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = OFF")
    execute("CREATE TABLE variables (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
    execute("CREATE TABLE arrays (name TEXT PRIMARY KEY, value BLOB)")
    rows = [("x", FLOAT), *BATCH.items()]
    connection.executemany("INSERT INTO variables VALUES (?, ?)", rows)
    execute("INSERT INTO arrays VALUES ('a', ?)", (RAW,))
    return {
        "execute": execute,
        "executemany": connection.executemany,
        "read": "SELECT value FROM variables WHERE name = ?",
        "write": "UPDATE variables SET value = ? WHERE name = ?",
        "ten": f"SELECT name, value FROM variables WHERE name IN ({', '.join('?' * 10)})",
        "changes": [(FLOAT, name) for name in NAMES],
    }


def _manager(stack: ExitStack) -> dict[str, Any]:
    manager = stack.enter_context(multiprocessing.get_context("forkserver").Manager())
    return {"d": manager.dict({"x": FLOAT, "a": ARRAY}), "ten": manager.dict(BATCH)}


def _redis(stack: ExitStack) -> dict[str, Any]:
    client = _module("redis")
    binary = shutil.which("redis-server")
    if binary is None:
        raise Missing("redis-server is not installed")
    folder = stack.enter_context(_memory_folder())
    path = f"{folder}/redis.sock"
    options = ["--port", "0", "--unixsocket", path, "--dir", folder, "--save", ""]
    server = subprocess.Popen(
        [binary, *options, "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    stack.callback(server.wait)
    stack.callback(server.terminate)
    give_up = time.monotonic() + 10
    while not os.path.exists(path):
        if server.poll() is not None or time.monotonic() > give_up:
            raise Missing(f"redis-server does not start (exit code {server.poll()})")
        time.sleep(0.01)
    redis = client.Redis(unix_socket_path=path)
    stack.callback(redis.close)
    redis.mset({"x": PACKED, "a": bytes(RAW), **dict(ROWS)})
    return {"r": redis, "ten": dict(ROWS)}


_MAPPING = {"read": "d['x']", "write": "d['x'] = value"}
_LOCKED = "with lock: "
_DICT = {
    **_MAPPING,
    "array-read": "d['a']",
    "array-write": "d['a'] = array",
    "snapshot": "{name: d[name] for name in names}",
    "batch": "d.update(batch)",
    "session": "d['t'] = {}; del d['t']",
}

PEERS = (
    Peer(
        "ours",
        _ours,
        {
            "read": "s['x']",
            "write": "s['x'] = value",
            "array-read": "s['a']",
            "array-write": "s['a'] = array",
            "snapshot": "s.get_values(names)",
            "batch": "s.update_variables(batch)",
            "session": "store.create_session('t'); store.delete_session('t')",
        },
    ),
    Peer(
        "ours in place",
        _ours,
        {"array-write": "t = s.allocate(131_072); copyto(t, array); s['a'] = t"},
    ),
    Peer("empty loop", _nothing, {"read": "pass"}),
    Peer("dict", _dict, _DICT),
    Peer("dict + Lock", _dict, {name: _LOCKED + text for name, text in _DICT.items()}),
    Peer(
        "memcpy",
        _memcpy,
        {"array-read": "copyto(mine, target)", "array-write": "copyto(target, array)"},
    ),
    Peer(
        "LMDB fresh",
        _lmdb,
        {
            "read": "t = begin(); t.get(b'x'); t.abort()",
            "write": "t = begin(write=True); t.put(b'x', packed); t.commit()",
            "array-read": "t = begin(buffers=True); np.frombuffer(t.get(b'a')); t.abort()",
            "array-write": "t = begin(write=True); t.put(b'a', raw); t.commit()",
            "snapshot": "t = begin(); [t.get(key) for key in keys]; t.abort()",
            "batch": "t = begin(write=True); t.cursor().putmulti(rows); t.commit()",
            "session": "t = begin(write=True); t.put(b't', b''); t.commit(); "
            "t = begin(write=True); t.delete(b't'); t.commit()",
        },
    ),
    Peer(
        "LMDB open",
        _lmdb_open,
        {
            "read": "get(b'x')",
            "array-read": "np.frombuffer(get_buffer(b'a'))",
            "snapshot": "[get(key) for key in keys]",
        },
    ),
    Peer("mp.Value", _value, {"read": "v.value", "write": "v.value = value"}),
    Peer(
        "UltraDict",
        _ultra,
        {
            **_MAPPING,
            "array-read": "big['a']",
            "array-write": "big['a'] = array",
            "session": "d['t'] = {}; del d['t']",
        },
    ),
    Peer(
        "shared-memory-dict",
        _shared_memory_dict,
        {
            **_MAPPING,
            "array-read": "big['a']",
            "array-write": "big['a'] = array",
            "snapshot": "dict(ten.items())",
            "batch": "ten.update(batch)",
            "session": "d['t'] = {}; del d['t']",
        },
    ),
    Peer(
        "SQLite",
        _sqlite,
        {
            "read": "execute(read, ('x',)).fetchone()[0]",
            "write": "execute(write, (value, 'x'))",
            "array-read": "np.frombuffer("
            "execute('SELECT value FROM arrays WHERE name = ?', ('a',)).fetchone()[0])",
            "array-write": "execute('UPDATE arrays SET value = ? WHERE name = ?', (raw, 'a'))",
            "snapshot": "dict(execute(ten, names).fetchall())",
            "batch": "execute('BEGIN'); executemany(write, changes); execute('COMMIT')",
            "session": "execute('INSERT INTO variables VALUES (?, NULL)', ('t',)); "
            "execute('DELETE FROM variables WHERE name = ?', ('t',))",
        },
    ),
    Peer(
        "Manager",
        _manager,
        {
            **_MAPPING,
            "array-read": "d['a']",
            "array-write": "d['a'] = array",
            "snapshot": "ten.copy()",
            "batch": "ten.update(batch)",
            "session": "d['t'] = {}; del d['t']",
        },
    ),
    Peer(
        "Redis",
        _redis,
        {
            "read": "r.get('x')",
            "write": "r.set('x', packed)",
            "array-read": "np.frombuffer(r.get('a'))",
            "array-write": "r.set('a', raw)",
            "snapshot": "r.mget(names)",
            "batch": "r.mset(ten)",
            "session": "r.set('t', b''); r.delete('t')",
        },
    ),
)
