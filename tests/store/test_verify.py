"""The check finds what is broken, one damage at a time, and survives whatever it finds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from fix_store import PureStore, small_store

from snakepit_mp.store import table, verify
from snakepit_mp.store.blocks import payload_of
from snakepit_mp.store.layout import (
    ALLOCATOR_COMMIT,
    B_KIND,
    B_LINK,
    BINS,
    D_KIND,
    D_NEXT,
    D_OWNER,
    D_PREVIOUS,
    D_STATE,
    DESCRIPTORS,
    FREE_PAGES,
    H_COUNT,
    H_ENTRIES,
    HASH,
    PAGE_WORDS,
    PAGES,
    R_FACTS,
    R_HISTORY,
    R_LENGTHS,
    R_NUMBER,
    R_VALUE,
    R_VALUE_LENGTH,
    R_VERSION,
    S_COMMIT,
    S_GARBAGE,
    S_GRAVES,
    S_INDEX,
    S_LIMBO,
    S_NUMBERS,
    S_PARTIAL,
    S_PENDING,
    STRIPES,
    T_BLOCK,
    T_LIVE,
    T_USED,
    V_NUMBER,
    V_PROGRAMS,
    V_VARIABLES,
    Kind,
)
from snakepit_mp.store.places import NewVariable, Place, Update
from snakepit_mp.store.session_store import SessionStore
from snakepit_mp.store.sessions import lookup

LARGE = b"\x01a" * 50_000


@pytest.fixture
def used() -> Iterator[PureStore]:
    """With sessions, small and large values, a history, a program and something deleted."""
    made = PureStore.make()
    place = made.keys.place("s")
    made.raw.create_session(place, 0, b"metadata", True)
    for number in range(20):
        new = NewVariable(b"any", b"a" * 100, b"facts", 3 if number == 7 else 0)
        made.raw.register(place, made.keys.variable(f"v{number}"), new, False)
    made.raw.register(place, made.keys.variable("large"), NewVariable(b"any", LARGE, b""), False)
    made.raw.register(place, made.keys.program("p"), NewVariable(b"any", b"p", b""), False)
    numbers = {key: number for number, key in made.raw.names(place)}
    for _ in range(5):
        made.raw.write(place, [Update(made.keys.variable("v7"), b"b" * 100, numbers[b"v7"], 0)])
    made.raw.delete_variable(place, made.keys.variable("v3"))
    made.raw.create_session(made.keys.place("gone"), 0, b"", True)
    made.raw.delete_session(made.keys.place("gone"))
    yield made
    made.close()


def problems(used: PureStore) -> list[str]:
    return verify.problems(used.segment)


def place_of(used: PureStore) -> Place:
    return used.keys.place("s")


def base(used: PureStore) -> int:
    return used.segment.base_of(place_of(used).stripe)


def session(used: PureStore) -> int:
    return lookup(used.segment, used.segment.words, place_of(used))[1]


def variable(used: PureStore, name: str) -> int:
    key = used.keys.variable(name)
    return used.raw._variables._find(used.segment.words, session(used), key)[1]


def descriptor(used: PureStore, block: int) -> int:
    return used.segment.descriptor_of((block - used.segment.heap) // PAGE_WORDS)


def run(used: PureStore) -> int:
    return used.segment.words[variable(used, "large") + R_VALUE]


def ring(used: PureStore) -> int:
    words = used.segment.words
    return payload_of(words, words[variable(used, "v7") + R_HISTORY])


def partial(used: PureStore) -> int:
    return next(
        word
        for word in range(base(used) + S_PARTIAL, base(used) + S_PARTIAL + 16)
        if used.segment.words[word]
    )


def test_a_store_in_use_is_in_order(used: PureStore) -> None:
    assert problems(used) == []


WORDS: dict[str, Callable[[PureStore], int]] = {
    "pages": lambda used: PAGES,
    "free pages": lambda used: FREE_PAGES,
    "a bin": lambda used: next(BINS + n for n in range(32) if used.segment.words[BINS + n]),
    "an empty bin": lambda used: next(
        BINS + n for n in range(32) if not used.segment.words[BINS + n]
    ),
    "a list of pages": partial,
    "another stripe's list of pages": lambda used: STRIPES + 256 * 3 + S_PARTIAL,
    "pending": lambda used: base(used) + S_PENDING,
    "garbage": lambda used: base(used) + S_GARBAGE,
    "limbo": lambda used: base(used) + S_LIMBO,
    "graves": lambda used: base(used) + S_GRAVES,
    "index": lambda used: base(used) + S_INDEX + T_BLOCK,
    "index's records": lambda used: base(used) + S_INDEX + T_LIVE,
    "index's slots": lambda used: base(used) + S_INDEX + T_USED,
    "session's hash": lambda used: session(used) + HASH,
    "session's table": lambda used: session(used) + V_VARIABLES + T_BLOCK,
    "session's records": lambda used: session(used) + V_VARIABLES + T_LIVE,
    "session's slots": lambda used: session(used) + V_VARIABLES + T_USED,
    "session's programs": lambda used: session(used) + V_PROGRAMS,
    "session's kind": lambda used: session(used) + B_KIND,
    "variable's hash": lambda used: variable(used, "v1") + HASH,
    "variable's number": lambda used: variable(used, "v1") + R_NUMBER,
    "variable's lengths": lambda used: variable(used, "v1") + R_LENGTHS,
    "variable's facts": lambda used: variable(used, "v1") + R_FACTS,
    "value": lambda used: variable(used, "v1") + R_VALUE,
    "value's length": lambda used: variable(used, "v1") + R_VALUE_LENGTH,
    "history": lambda used: variable(used, "v7") + R_HISTORY,
    "history's capacity": ring,
    "history's entry": lambda used: ring(used) + H_ENTRIES + 2,
    "history's length": lambda used: ring(used) + H_ENTRIES + 3,
    "page's kind": lambda used: descriptor(used, session(used)) + D_KIND,
    "page's state": lambda used: descriptor(used, session(used)) + D_STATE,
    "page's next": lambda used: DESCRIPTORS + 4 * (used.segment.words[partial(used)] - 1) + D_NEXT,
    "page's previous": lambda used: (
        DESCRIPTORS + 4 * (used.segment.words[partial(used)] - 1) + D_PREVIOUS
    ),
    "run's size": lambda used: descriptor(used, run(used)) + D_KIND,
    "run's owner": lambda used: descriptor(used, run(used)) + D_OWNER,
    "last page": lambda used: used.segment.descriptor_of(used.segment.words[PAGES] - 1),
}


@pytest.mark.parametrize("by", [1, 256, 1 << 20, (1 << 63) - 1])
@pytest.mark.parametrize("name", WORDS)
def test_one_wrong_word_is_found(used: PureStore, name: str, by: int) -> None:
    word = WORDS[name](used)
    used.segment.words[word] = used.segment.words[word] + by & (1 << 64) - 1
    assert problems(used)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (lambda used: ALLOCATOR_COMMIT, 7),
        (lambda used: base(used) + S_COMMIT, 7),
        (lambda used: base(used) + S_NUMBERS, 5),
        (lambda used: session(used) + V_NUMBER, 2),
        (lambda used: variable(used, "v1") + R_VERSION, 0),
        (lambda used: ring(used) + H_COUNT, 4),
    ],
)
def test_wrong_numbers_are_found(
    used: PureStore, word: Callable[[PureStore], int], value: int
) -> None:
    used.segment.words[word(used)] = value
    assert problems(used)


def test_a_lost_block_is_found(used: PureStore) -> None:
    used.segment.words[variable(used, "large") + R_VALUE] = 0
    used.segment.words[variable(used, "large") + R_VALUE_LENGTH] = 8
    [problem] = problems(used)
    assert "is lost" in problem


def test_a_block_with_two_owners_is_found(used: PureStore) -> None:
    words = used.segment.words
    one, two = (variable(used, name) + R_VALUE for name in ("v1", "v2"))
    words[one] = words[two]
    found = problems(used)
    assert any("2 owners" in problem for problem in found)
    assert any("is lost" in problem for problem in found)


def test_a_freed_block_in_use_is_found(used: PureStore) -> None:
    block = used.segment.words[variable(used, "v1") + R_VALUE]
    with used.raw._stripes.writing(place_of(used).stripe) as operation:
        operation.discard(block)
        operation.commit()
    assert any("is used, and free" in problem for problem in problems(used))


def test_what_a_process_fills_is_its_own(used: PureStore) -> None:
    words, taken = used.segment.words, run(used)
    record = variable(used, "large")
    words[record + R_VALUE], words[record + R_VALUE_LENGTH] = 0, 8
    words[descriptor(used, taken) + D_OWNER] = 3
    assert problems(used) == []


def test_runs_in_limbo_are_accounted_for(used: PureStore) -> None:
    words, viewed = used.segment.words, run(used)
    record = variable(used, "large")
    words[record + R_VALUE], words[record + R_VALUE_LENGTH] = 0, 8
    words[viewed + B_LINK], words[base(used) + S_LIMBO] = 0, viewed
    assert problems(used) == []
    words[viewed + B_LINK] = viewed
    assert any("astray" in problem for problem in problems(used))
    words[base(used) + S_LIMBO] = session(used)
    assert any("is no run" in problem for problem in problems(used))


def test_the_dead_and_all_that_is_theirs_are_accounted_for(used: PureStore) -> None:
    with used.raw._stripes.writing(place_of(used).stripe) as operation:
        operation.bury(*lookup(used.segment, operation, place_of(used)))
        operation.commit()
        assert used.segment.words[base(used) + S_GRAVES]
        assert problems(used) == []
        used.segment.words[operation.words[base(used) + S_GRAVES] + V_VARIABLES + T_LIVE] += 1
        assert problems(used)


def test_old_values_of_a_deleted_variable_may_be_freed_already(used: PureStore) -> None:
    words, record = used.segment.words, variable(used, "v7")
    entry = payload_of(words, words[record + R_HISTORY]) + H_ENTRIES + 2
    with used.raw._stripes.writing(place_of(used).stripe) as operation:
        session_of, key = session(used), used.keys.variable("v7")
        slot, _ = used.raw._variables._find(operation, session_of, key)
        table.remove(operation, session_of + V_VARIABLES, slot)
        operation.discard_variable(record)
        operation.commit()
        assert words[base(used) + S_GRAVES] == record
        assert problems(used) == []
        block, words[entry] = words[entry], 0
        assert [f"block {block} (kind {Kind.VALUE:d}) is lost"] == problems(used)
        words[entry] = block
        ring, words[record + R_HISTORY] = words[record + R_HISTORY], 0
        assert f"variable {record} was to be freed at once" in problems(used)
        words[record + R_HISTORY] = ring
        words[base(used) + S_GRAVES] = ring
        assert problems(used)
        words[base(used) + S_GRAVES] = record
    assert problems(used) == []


def test_old_values_of_the_living_are_all_there(used: PureStore) -> None:
    words, record = used.segment.words, variable(used, "v7")
    words[payload_of(words, words[record + R_HISTORY]) + H_ENTRIES + 2] = 0
    assert any("lacks a value" in problem for problem in problems(used))


def test_only_so_much_is_told(used: PureStore) -> None:
    for stripe in range(256):
        used.segment.words[used.segment.base_of(stripe) + S_COMMIT] = 1
    assert len(problems(used)) == 100


def test_it_survives_any_damage(used: PureStore) -> None:
    rng = random.Random(11)
    end = used.segment.heap + used.segment.words[PAGES] * PAGE_WORDS
    places = [
        *range(512, 640),
        *range(base(used), base(used) + 256),
        *range(DESCRIPTORS, DESCRIPTORS + 4 * used.segment.words[PAGES]),
    ]
    words = [word for word in places if used.segment.words[word]]
    words += [word for word in range(used.segment.heap, end) if used.segment.words[word]][:4000]
    for _ in range(300):
        word = rng.choice(words)
        true = used.segment.words[word]
        used.segment.words[word] = rng.choice(
            [
                0,
                1,
                rng.getrandbits(64),
                true ^ 1 << rng.randrange(64),
                used.segment.words[rng.choice(words)],
            ]
        )
        assert isinstance(problems(used), list)
        used.segment.words[word] = true
    assert problems(used) == []


def test_the_public_call_tells_of_damage_and_never_raises_it() -> None:
    with small_store() as store:
        store.create_session("s")
        store.register_variable("s", "x", "tensor", np.zeros(5000))
        assert store.verify() == []
        stripe = store._keys.place("s").stripe
        word = store._segment.base_of(stripe) + S_GARBAGE
        store._segment.words[word] = 12345  # no run: it cannot be freed
        [problem] = store.verify()
        assert "damaged" in problem
        store._segment.words[word] = 0
        assert store.verify() == []


def test_it_looks_at_a_store_in_use(store: SessionStore) -> None:
    for number in range(30):
        store.create_session(f"s{number}", metadata={"n": "x" * 300 * number})
        store.register_variable(f"s{number}", "v" * (1 + 300 * number), "any", b"v" * 500 * number)
    assert store.verify() == []
    assert int(Kind.SESSION) == 1
