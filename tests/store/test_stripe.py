"""An operation is undone unless it was committed, and graves are emptied bit by bit."""

from __future__ import annotations

import threading

import pytest
from fix_store import FORKS, PureStore, in_child
from fix_timeouts import scaled

from snakepit_mp.errors import StoreBusy, StoreError, StoreFull
from snakepit_mp.store.layout import (
    ALLOCATOR_LOCK,
    S_BELL,
    S_COMMIT,
    S_EPOCH,
    S_GARBAGE,
    S_GRAVES,
    S_INDEX,
    S_NUMBERS,
    S_PENDING,
    STRIPE_COUNT,
    Kind,
)
from snakepit_mp.store.pages import Pages
from snakepit_mp.store.places import Key, NewVariable, Place, Update
from snakepit_mp.store.sessions import lookup

pytestmark = FORKS

STRIPE = 7


def word(pure: PureStore, stripe: int, at: int) -> int:
    return pure.segment.words[pure.segment.base_of(stripe) + at]


def session(pure: PureStore, name: str, variables: int = 0, history: int = 0) -> Place:
    place = pure.keys.place(name)
    pure.raw.create_session(place, 0, b"", True)
    for number in range(variables):
        new = NewVariable(b"any", b"a" * 100, b"facts", history)
        pure.raw.register(place, pure.keys.variable(f"v{number}"), new, False)
    return place


def rewrite(pure: PureStore, place: Place, key: Key, times: int) -> None:
    number = next(number for number, name in pure.raw.names(place) if name == key.key)
    for _ in range(times):
        assert pure.raw.write(place, [Update(key, b"b" * 50, number, 0)])


def bury(pure: PureStore, place: Place) -> None:
    """Delete a session, and leave the rest to others."""
    with pure.raw._stripes.writing(place.stripe) as operation:
        operation.bury(*lookup(pure.segment, operation, place))
        operation.commit()


def test_what_is_not_committed_has_not_happened(pure: PureStore) -> None:
    with pure.raw._stripes.writing(STRIPE) as operation:
        operation.store(Kind.VALUE, b"x" * 100)
        operation.store(Kind.VALUE, b"x" * 10_000)
        operation[operation.base + S_NUMBERS] = 5
    assert (word(pure, STRIPE, S_NUMBERS), word(pure, STRIPE, S_PENDING)) == (0, 0)


def test_an_exception_undoes_what_was_not_committed(pure: PureStore) -> None:
    def fail_half_way() -> None:
        with pure.raw._stripes.writing(STRIPE) as operation:
            operation[operation.base + S_NUMBERS] = 5
            operation.commit()
            operation.store(Kind.VALUE, b"x" * 100)
            operation[operation.base + S_NUMBERS] = 1 // 0

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert word(pure, STRIPE, S_NUMBERS) == 5


def test_discarding_no_block_is_fine(pure: PureStore) -> None:
    with pure.raw._stripes.writing(STRIPE) as operation:
        operation.discard(0)
        operation.commit()


def test_a_list_of_writes_longer_than_the_log_has_a_block_of_its_own(pure: PureStore) -> None:
    place = session(pure, "s", 200)
    keys = [pure.keys.variable(f"v{number}") for number in range(200)]
    numbers = {key: number for number, key in pure.raw.names(place)}
    updates = [Update(key, b"b" * 100, numbers[key.key], 0) for key in keys]
    assert pure.raw.write(place, updates) == [2] * 200
    found = pure.raw.variables(place, keys)
    assert {parts.value for parts in found if parts} == {b"b" * 100}


def test_graves_are_emptied_a_few_with_every_operation(pure: PureStore) -> None:
    place = session(pure, "big", 200)
    bury(pure, place)
    assert not pure.raw.session_exists(place)
    rounds = 0
    while word(pure, place.stripe, S_GRAVES):
        with pure.raw._stripes.writing(place.stripe):
            rounds += 1
        assert pure.problems() == []  # also of what is half freed
    assert 5 < rounds < 100
    assert word(pure, place.stripe, S_PENDING) == 0


def test_tidying_does_a_bounded_part_and_says_whether_more_is_left(pure: PureStore) -> None:
    place = session(pure, "big", 600)
    bury(pure, place)
    assert pure.raw.tidy(place.stripe)
    rounds = 1
    while pure.raw.tidy(place.stripe):
        rounds += 1
    assert 1 < rounds < 50
    assert not pure.raw.tidy(place.stripe)


def test_graves_are_emptied_where_no_memory_is_left(
    pure: PureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = session(pure, "s", 60, history=100)
    for number in range(3):
        rewrite(pure, place, pure.keys.variable(f"v{number}"), 150)
    bury(pure, place)

    def refuse(*args: object) -> int:
        raise StoreFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(Pages, "allocate", refuse)
        while pure.raw.tidy(place.stripe):
            assert pure.problems() == []
    assert word(pure, place.stripe, S_GRAVES) == 0


def test_an_operation_reads_its_own_writes_in_tables(pure: PureStore) -> None:
    place = session(pure, "s")
    with pure.raw._stripes.writing(place.stripe) as operation:
        slot, record = lookup(pure.segment, operation, place)
        assert record
        operation.bury(slot, record)
        assert lookup(pure.segment, operation, place) == (0, 0)
    assert pure.raw.session_exists(place)


def test_whoever_remembers_a_record_is_told_that_one_goes(pure: PureStore) -> None:
    place = session(pure, "s", 2)
    epochs = [word(pure, place.stripe, S_EPOCH)]
    pure.raw.delete_variable(place, pure.keys.variable("v1"))
    epochs.append(word(pure, place.stripe, S_EPOCH))
    pure.raw.delete_session(place)
    epochs.append(word(pure, place.stripe, S_EPOCH))
    assert epochs == sorted(set(epochs))


def test_a_bell_rings_only_for_those_who_watch(pure: PureStore) -> None:
    place = session(pure, "s", 1)
    key = pure.keys.variable("v0")
    rewrite(pure, place, key, 1)
    assert word(pure, place.stripe, S_BELL) == 0
    assert pure.raw.watch(place) == 0
    rewrite(pure, place, key, 2)
    assert word(pure, place.stripe, S_BELL) == 2
    pure.raw.session(place)
    pure.raw.touch(place)
    assert word(pure, place.stripe, S_BELL) == 2
    pure.raw.delete_session(place)
    assert word(pure, place.stripe, S_BELL) == 3


def test_a_watcher_that_does_not_say_so_again_is_forgotten(pure: PureStore) -> None:
    pure.raw.freeze_clock(10**9)
    place = session(pure, "s", 1)
    pure.raw.watch(place)
    pure.raw.freeze_clock(10**9 + 2 * 10**9)
    rewrite(pure, place, pure.keys.variable("v0"), 1)
    assert word(pure, place.stripe, S_BELL) == 0


def test_whoever_repairs_a_commit_rings(pure: PureStore) -> None:
    place = session(pure, "s", 1)
    rewrite(pure, place, pure.keys.variable("v0"), 1)
    # As if its writer had died here: the log of that write lies there still.
    pure.segment.words[pure.segment.base_of(place.stripe) + S_COMMIT] |= 1
    pure.raw.session(place)
    assert word(pure, place.stripe, S_BELL) == 1


def test_all_is_held_by_one(pure: PureStore) -> None:
    place = session(pure, "s")
    pure.locks.timeout = 0.01

    def is_kept_out() -> None:
        for call in (pure.raw.session, pure.raw.touch, pure.raw.watch):
            with pytest.raises(StoreBusy):
                call(place)

    with pure.raw.hold():
        assert in_child(is_kept_out) == 0
        thread = threading.Thread(target=is_kept_out)
        thread.start()
        thread.join()
    pure.locks.timeout = scaled(5)
    pure.raw.session(place)


def test_holding_is_given_up_where_a_stripe_is_busy(pure: PureStore) -> None:
    pure.locks.timeout = 0.01
    with pure.locks.exclusive(STRIPE_COUNT - 1), pytest.raises(StoreBusy), pure.raw.hold():
        pass
    pure.locks.timeout = scaled(5)
    for stripe in range(STRIPE_COUNT):
        pure.raw.tidy(stripe)


def test_what_has_happened_is_not_told_as_busy(pure: PureStore) -> None:
    place = session(pure, "s")
    large = pure.keys.variable("large")
    pure.raw.register(place, large, NewVariable(b"any", b"a" * 50_000, b""), False)
    pure.locks.timeout = 0.01

    def meanwhile() -> None:
        pure.raw.delete_variable(place, large)  # its run cannot be freed now
        with pytest.raises(StoreBusy):  # nor anything be done before it is
            pure.raw.delete_session(place)

    with pure.locks.exclusive(ALLOCATOR_LOCK):
        assert in_child(meanwhile) == 0
    pure.locks.timeout = scaled(5)
    assert word(pure, place.stripe, S_GARBAGE)
    assert not pure.raw.contains(place, large)
    assert pure.raw.delete_session(place) == 0
    assert word(pure, place.stripe, S_GARBAGE) == 0


@pytest.mark.parametrize("wrong", [5, 1 << 40, 1 << 62])
def test_damage_is_told_as_such(pure: PureStore, wrong: int) -> None:
    place = session(pure, "s")
    index = pure.segment.base_of(place.stripe) + S_INDEX
    true, pure.segment.words[index] = pure.segment.words[index], wrong
    with pytest.raises(StoreError, match="damaged"):
        pure.raw.session(place)
    with pytest.raises(StoreError, match="damaged"):
        pure.raw.create_session(place, 0, b"", True)
    assert pure.problems() != []
    pure.segment.words[index] = true
