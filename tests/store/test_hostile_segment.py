"""Whatever stands in a segment: no crash, no hang, no read outside; at worst an error.

Valid segments are changed in places where something matters, and a child process does all there
is to do with each. The mutexes' own words are left alone: whoever shares a robust mutex trusts
its other users, as the C library follows the pointers in it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from fix_store import FORKS, seeded_store
from fix_timeouts import scaled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakepit_mp.config import StoreConfig
from snakepit_mp.errors import SnakepitError, StoreMismatch
from snakepit_mp.store.layout import (
    ALLOCATOR,
    ALLOCATOR_LOG,
    ALLOCATOR_MUTEX,
    BINS,
    DESCRIPTOR_WORDS,
    DESCRIPTORS,
    PAGE_WORDS,
    PAGES,
    PROCESS_WORDS,
    PROCESSES,
    PROCESSES_USED,
    S_COMMIT,
    S_GRAVES,
    S_LOG,
    STRIPE_COUNT,
    STRIPE_WORDS,
    STRIPES,
    WORD,
)
from snakepit_mp.store.locks import LOCK_FILE_BYTES
from snakepit_mp.store.segment import anonymous_file
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS

EXAMPLES = 100
#: Seconds that a child may take.
LONGEST = 20
MUTEX_WORDS = 8
SLOTS = 2
BIG = (1 << 64) - 1


@dataclass(frozen=True)
class Image:
    """The bytes of a valid segment, and its words in which something stands."""

    size: int
    heap: int
    parts: tuple[tuple[int, bytes], ...]
    used: tuple[int, ...]

    def file(self, changes: dict[int, int]) -> int:
        """The descriptor of a segment with these bytes, but other words."""
        descriptor = anonymous_file("snakepit_mp-hostile", self.size)
        for start, content in self.parts:
            os.pwrite(descriptor, content, start)
        for word, value in changes.items():
            os.pwrite(descriptor, value.to_bytes(WORD, "little"), word * WORD)
        return descriptor


def is_of_mutex(word: int) -> bool:
    if ALLOCATOR_MUTEX <= word < ALLOCATOR_MUTEX + MUTEX_WORDS:
        return True
    return STRIPES <= word < PROCESSES and (word - STRIPES) % STRIPE_WORDS < MUTEX_WORDS


def fill(store: SessionStore) -> None:
    for session in ("a", "b"):
        store.create_session(session, metadata={"who": session})
        store.register_variable(session, "small", "float", 1.0, constraints={"min": 0.0})
        store.register_variable(session, "block", "any", b"b" * 300)
        store.register_variable(session, "large", "any", b"l" * 20_000)
        store.register_variable(session, "kept", "any", b"k" * 50, history=3)
        for number in range(5):
            store.update_variable(session, "kept", b"%d" % number * 50)
            store.register_variable(session, f"v{number}", "integer", number)
        store.put_program(session, "p", "program")
    store.create_session("mortal", ttl=0.001)
    store.put_program(None, "global", "program")
    store.delete_variable("a", "v0")
    store.delete_session("b")


@functools.cache
def image() -> Image:
    with seeded_store() as store:
        fill(store)
        segment = store._segment
        pages = segment.words[PAGES]
        ranges = [
            (0, PROCESSES + SLOTS * PROCESS_WORDS),
            (DESCRIPTORS, DESCRIPTORS + pages * DESCRIPTOR_WORDS),
            (segment.heap, segment.heap + pages * PAGE_WORDS),
        ]
        parts = tuple((a * WORD, bytes(segment.data[a * WORD : b * WORD])) for a, b in ranges)
        used = tuple(
            word
            for first, last in ranges
            for word in range(first, last)
            if segment.words[word] and not is_of_mutex(word)
        )
        return Image(segment.size, segment.heap, parts, used)


# Changes.


def words() -> st.SearchStrategy[int]:
    """Words to change: those in which something stands, those next to them, and special ones."""
    stripes = st.integers(0, STRIPE_COUNT - 1).map(lambda n: STRIPES + n * STRIPE_WORDS)
    busy = [word for word in image().used if STRIPES <= word < PROCESSES]
    return st.one_of(
        st.sampled_from(image().used),
        st.sampled_from(busy),
        st.sampled_from(image().used).map(lambda word: word + 1),
        st.integers(ALLOCATOR, ALLOCATOR_LOG + 16),
        st.integers(BINS, BINS + 16),
        st.builds(int.__add__, stripes, st.integers(S_COMMIT, S_LOG + 8)),
        st.integers(PROCESSES, PROCESSES + 40),
        st.just(PROCESSES_USED),
    ).filter(lambda word: not is_of_mutex(word))


def values() -> st.SearchStrategy[int]:
    """Zeros and ones, lengths that are too great, offsets into the segment and out of it."""
    size = image().size // WORD
    return st.one_of(
        st.integers(0, 70),
        st.sampled_from(image().used),
        st.sampled_from(image().used).map(lambda word: word & ~1),
        st.integers(image().heap, image().heap + 40 * PAGE_WORDS),
        st.integers(0, 40).map(lambda page: image().heap + page * PAGE_WORDS),
        st.sampled_from([size - 1, size, size + 1, 1 << 31, 1 << 32, 1 << 48, 1 << 63, BIG]),
        st.integers(0, 63).map(lambda bit: 1 << bit),
        st.builds(
            lambda kind, length: kind << 56 | length, st.integers(0, 9), st.integers(0, 1 << 40)
        ),
        st.integers(0, BIG),
    )


def logs() -> st.SearchStrategy[dict[int, int]]:
    """A stripe or the allocator with a committed log that says anything."""

    def written(stripe: int, count: int, pairs: list[tuple[int, int]]) -> dict[int, int]:
        commit, log = ALLOCATOR + MUTEX_WORDS, ALLOCATOR_LOG
        if stripe >= 0:
            base = STRIPES + stripe * STRIPE_WORDS
            commit, log = base + S_COMMIT, base + S_LOG
        changes = {commit: 7, log: count}
        for number, (word, value) in enumerate(pairs):
            changes |= {log + 1 + 2 * number: word, log + 2 + 2 * number: value}
        return {word: value for word, value in changes.items() if not is_of_mutex(word)}

    target = words() | st.sampled_from([BIG, 1 << 40])
    pairs = st.lists(st.tuples(target, values()), max_size=4)
    return st.builds(written, st.integers(-1, 20), st.integers(0, 4) | values(), pairs)


def changes() -> st.SearchStrategy[dict[int, int]]:
    single = st.dictionaries(words(), values(), min_size=1, max_size=6)
    return single | st.builds(dict.__or__, logs(), single) | logs()


# What is done with them.


def steps(store: SessionStore) -> Iterator[Callable[[], object]]:
    """Everything that there is to do, one after the other."""
    yield store.list_sessions
    for session in ("a", "b", "mortal"):
        yield functools.partial(store.get_session, session)
        yield functools.partial(store.list_variables, session)
        yield functools.partial(store.variable_names, session)
        yield functools.partial(store.history, session, "kept")
        yield functools.partial(store.get_values, session, ["small", "block", "large", "kept"])
        for name in ("small", "block", "large", "kept", "v3"):
            yield functools.partial(store.get_variable, session, name)
            yield functools.partial(store.get_value, session, name)
    yield functools.partial(store.list_programs, "a")
    yield functools.partial(store.get_program, None, "global")
    for name, value in {"block": b"n" * 310, "large": b"n" * 30_000, "kept": b"n" * 60}.items():
        yield functools.partial(store.update_variable, "a", name, value)
    yield functools.partial(store.update_variables, "a", {"v1": 10, "v2": 20})
    yield functools.partial(store.register_variable, "a", "new", "any", b"x" * 100, history=2)
    yield functools.partial(store.register_variable, "a", "other", "any", b"x" * 40_000)
    yield functools.partial(store.create_session, "next", metadata={"a": 1})
    yield store.verify
    yield functools.partial(store.delete_variable, "a", "kept")
    yield functools.partial(store.delete_variable, "a", "large")
    yield functools.partial(store.delete_session, "a")
    yield store.cleanup_expired_sessions
    yield store._raw.collect
    yield store.stats
    yield store.verify


def use(descriptor: int, locks: int) -> None:
    """Do all of it; refusals and errors of the library are fine."""
    try:
        store = SessionStore.attach((descriptor, locks), StoreConfig(max_bytes=16 << 20))
    except StoreMismatch:
        return
    store._locks.timeout = 0.01
    for step in steps(store):
        with contextlib.suppress(SnakepitError, MemoryError):
            step()


def outcome(changed: dict[int, int]) -> tuple[int, str]:
    """How a child ends that uses such a segment, and what it says."""
    descriptor = image().file(changed)
    locks = anonymous_file("snakepit_mp-locks", LOCK_FILE_BYTES)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(scaled(LONGEST)))
            use(descriptor, locks)
            status = 0
        except BaseException:  # noqa: BLE001  the end of the process
            os.write(writer, traceback.format_exc()[-3_000:].encode())
        finally:
            os._exit(status)
    for number in (writer, descriptor, locks):
        os.close(number)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def stripe_of(session: str) -> int:
    with seeded_store() as store:
        return STRIPES + store._keys.place(session).stripe * STRIPE_WORDS


@pytest.mark.parametrize("what", ["graves that are none", "a log without end"])
def test_what_once_took_for_ever(what: str) -> None:
    base = stripe_of("a")
    changed = {
        "graves that are none": {base + S_GRAVES: 49},
        "a log without end": {base + S_COMMIT: 7, base + S_LOG: image().size // 16},
    }
    assert outcome(changed[what]) == (0, "")


def test_an_unchanged_segment_is_of_use() -> None:
    assert outcome({}) == (0, "")


@pytest.mark.timeout(scaled(300))
@settings(
    max_examples=int(os.environ.get("SNAKEPIT_MP_HOSTILE_EXAMPLES", EXAMPLES)),
    deadline=None,
    derandomize="SNAKEPIT_MP_HOSTILE_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(changes())
def test_a_changed_segment_does_no_harm(changed: dict[int, int]) -> None:
    status, said = outcome(changed)
    assert (status, said) == (0, ""), f"ended by {status} with {changed}:\n{said}"
