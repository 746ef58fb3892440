"""Fills the compiled store with a million sessions of ten variables, reads, expires and deletes.

    python tools/store_scale.py [--sessions 1000000] [--variables 10] [--verify]

Sessions and variables are made through `RawStore`, one call each with encoded values, since what
checking and encoding cost does not depend on how many there are; all else through `SessionStore`.
Fails if a variable takes more than it should, or if something is left at the end.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snakepit_mp import _accel
from snakepit_mp.config import StoreConfig
from snakepit_mp.store.layout import STRIPE_COUNT
from snakepit_mp.store.places import NewVariable, Place
from snakepit_mp.store.session_store import SessionStore
from snakepit_mp.values.codec import encode

#: Bytes that a small variable may take, its share of everything included.
_MOST_BYTES = 300
_HOUR = 3_600 * 10**9
_SAMPLE = 100_000


def _shared_mib() -> int:
    """Memory of all shared mappings on this machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) >> 10
    return 0


@contextmanager
def _timed(what: str, count: int) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    took = time.perf_counter() - begin
    each = 1e6 * took / max(count, 1)
    print(f"{what:28} {count:12,} {took:9.1f} s {each:9.2f} µs each", flush=True)


class Scale:
    """One store, filled and emptied."""

    def __init__(self, sessions: int, variables: int) -> None:
        self._sessions = sessions
        self._variables = variables
        total = sessions * variables
        most = (_MOST_BYTES + 50) * total + 600 * sessions + (256 << 20)
        config = StoreConfig(max_bytes=most, max_sessions=sessions + 1)
        self._store = SessionStore(config)
        self._raw = self._store._raw
        self._now = time.monotonic_ns()
        self._store._freeze_clock(self._now)

    def run(self, verify: bool) -> int:
        shared = _shared_mib()
        with self._store as store:
            before = store.stats().bytes_used
            self._create()
            used = store.stats().bytes_used - before
            each = used / (self._sessions * self._variables)
            print(f"{used >> 20:,} MiB in use: {each:.0f} bytes for each variable, all included")
            print(f"memory of the machine's shared mappings: {_shared_mib() - shared:+,} MiB")
            self._read()
            problems = self._check(verify)
            self._expire()
            self._delete()
            problems += self._check(verify)
            left = store.stats().bytes_used - before
            print(f"{left >> 10:,} KiB are left in use")
        print(f"memory of shared mappings after closing: {_shared_mib() - shared:+,} MiB")
        # Every stripe keeps the table of its sessions, whatever it has grown to.
        if each > _MOST_BYTES or left > STRIPE_COUNT * (32 << 10) + 32 * self._sessions or problems:
            print("too much, or not in order:", problems)
            return 1
        return 0

    def _place(self, number: int) -> Place:
        # Not through the cache of places, which remembers only so many.
        return self._store._keys._place(f"session-{number}")

    def _create(self) -> None:
        raw, keys = self._raw, [self._store._keys.variable(f"v{n}") for n in range(self._variables)]
        new = NewVariable(b"float", encode(1.5), b"")
        with _timed("sessions and variables", self._sessions * (1 + self._variables)):
            for number in range(self._sessions):
                place = self._place(number)
                lifetime = _HOUR if number % 2 else 0
                raw.create_session(place, lifetime, b"", False)
                for key in keys:
                    raw.register(place, key, new, False)

    def _read(self) -> None:
        rng = random.Random(1)
        names = [f"v{number}" for number in range(self._variables)]
        count = min(_SAMPLE, self._sessions)
        chosen = [f"session-{rng.randrange(self._sessions)}" for _ in range(count)]
        with _timed("reads of one value", count):
            for session in chosen:
                assert self._store.get_value(session, rng.choice(names)) == 1.5
        with _timed("updates of one value", count):
            for session in chosen:
                self._store.update_variable(session, names[0], 1.5)
        with _timed("snapshots of all", count):
            for session in chosen:
                assert len(self._store.get_values(session, names)) == len(names)

    def _expire(self) -> None:
        self._store._freeze_clock(self._now + 2 * _HOUR)
        with _timed("sessions expired", self._sessions // 2):
            removed = self._store.cleanup_expired_sessions()
        assert removed == self._sessions // 2, removed

    def _delete(self) -> None:
        with _timed("sessions deleted", (self._sessions + 1) // 2):
            for number in range(0, self._sessions, 2):
                self._raw.delete_session(self._place(number))
            self._store.cleanup_expired_sessions()

    def _check(self, wanted: bool) -> list[str]:
        if not wanted:
            return []
        with _timed("check of everything", 1):
            return self._store.verify()


def main() -> int:
    parser = argparse.ArgumentParser(description="How the store does with a great many sessions.")
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--variables", type=int, default=10, help="of each session")
    parser.add_argument(
        "--verify", action="store_true", help="check the segment: a minute a million"
    )
    arguments = parser.parse_args()
    print(f"implementation: {_accel.implementation}")
    return Scale(arguments.sessions, arguments.variables).run(arguments.verify)


if __name__ == "__main__":
    sys.exit(main())
