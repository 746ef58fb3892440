"""Sessions live as long as their TTL says, are counted truly, and go at once."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from fix_store import FORKS, PureStore, assert_intact, in_child, small_store

from snakepit_mp.errors import ConfigError, SessionLimitReached, SessionNotFound, StoreError
from snakepit_mp.store.layout import STRIPE_COUNT
from snakepit_mp.store.session_store import SessionStore
from snakepit_mp.store.stripe import Operation

pytestmark = FORKS


Use = Callable[[SessionStore], object]


class Clock:
    """The time of TTLs in a store, which passes when the test says so."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.now = 1_000 * 10**9
        self.advance(0)

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 10**9)
        self._store._freeze_clock(self.now)


@pytest.fixture
def clock(store: SessionStore) -> Clock:
    return Clock(store)


def test_create_is_one_step_that_may_be_repeated(store: SessionStore) -> None:
    first = store.create_session("s", ttl=5, metadata={"a": [1]})
    second = store.create_session("s", ttl=9, metadata={"b": 2})
    assert (second.id, second.metadata, second.ttl) == ("s", {"a": [1]}, 5.0)
    assert second.created_at == first.created_at
    with pytest.raises(StoreError, match="exists already"):
        store.create_session("s", exist_ok=False)


def test_sessions_without_a_name_get_different_ones(store: SessionStore) -> None:
    assert len({store.create_session().id for _ in range(10)}) == 10


def test_info_is_true(store: SessionStore, clock: Clock) -> None:
    before = time.time()
    store.create_session("s", ttl=60, metadata={"who": "me"})
    clock.advance(10)
    store.register_variable("s", "x", "integer", 1)
    store.note_worker("s", 0)
    clock.advance(7)
    [info] = store.list_sessions()
    assert (info.id, info.metadata, info.ttl) == ("s", {"who": "me"}, 60.0)
    assert before - 1 <= info.created_at <= time.time()
    assert before - 8 <= info.last_accessed <= time.time() - 7 + 1
    assert (info.variable_count, info.program_count, info.last_worker_id) == (1, 0, 0)


def test_no_worker_before_the_first_call(store: SessionStore) -> None:
    assert store.create_session("s").last_worker_id is None


def test_the_default_ttl_is_the_stores() -> None:
    with small_store(session_ttl=7.5) as store:
        assert store.create_session("a").ttl == 7.5
        assert store.create_session("b", ttl=math.inf).ttl is None
    with small_store(session_ttl=None) as store:
        assert store.create_session("a").ttl is None


@pytest.mark.parametrize("ttl", [0, -1, math.nan, "5", True])
def test_a_wrong_ttl_is_refused(store: SessionStore, ttl: object) -> None:
    with pytest.raises(ConfigError, match="ttl"):
        store.create_session("s", ttl=ttl)  # type: ignore[arg-type]
    assert not store.exists("s")


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.get_value("s", "x"),
        lambda store: store.get_variable("s", "x"),
        lambda store: store.get_variables("s", ["x"]),
        lambda store: store.update_variable("s", "x", 2),
        lambda store: store.list_variables("s"),
        lambda store: store.touch_session("s"),
        lambda store: store.get_session("s"),
        lambda store: store.create_session("s"),
        lambda store: store.note_worker("s", 1),
    ],
)
def test_every_use_begins_the_ttl_anew(store: SessionStore, clock: Clock, use: Use) -> None:
    store.create_session("s", ttl=10)
    store.register_variable("s", "x", "integer", 1)
    for _ in range(3):
        clock.advance(9)
        use(store)
    clock.advance(10)
    with pytest.raises(SessionNotFound, match="expired"):
        store.get_value("s", "x")


def test_looking_is_no_use(store: SessionStore, clock: Clock) -> None:
    store.create_session("s", ttl=10)
    clock.advance(9)
    assert store.exists("s")
    assert len(store.list_sessions()) == 1
    clock.advance(1)
    assert not store.exists("s")
    assert store.list_sessions() == []


def test_for_ever_is_long(store: SessionStore, clock: Clock) -> None:
    store.create_session("s", ttl=math.inf)
    clock.advance(1e9)
    assert store.exists("s")
    assert store.cleanup_expired_sessions() == 0


def test_a_new_session_takes_the_place_of_an_expired_one(store: SessionStore, clock: Clock) -> None:
    store.create_session("s", ttl=10, metadata={"old": True})
    old = store.register_variable("s", "x", "integer", 1)
    clock.advance(10)
    info = store.create_session("s", exist_ok=False)
    assert (info.metadata, info.variable_count) == ({}, 0)
    assert store.register_variable("s", "x", "integer", 1).id != old.id


def test_cleanup_removes_what_has_expired_and_counts_it(store: SessionStore, clock: Clock) -> None:
    for number in range(100):
        store.create_session(f"short{number}", ttl=5)
        store.create_session(f"long{number}", ttl=50)
    clock.advance(10)
    assert store.cleanup_expired_sessions() == 100
    assert store.cleanup_expired_sessions() == 0
    assert {info.id[:4] for info in store.list_sessions()} == {"long"}
    assert "100 sessions" in repr(store)


def test_a_session_used_between_look_and_removal_stays(
    pure: PureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pure.keys.place("s")
    pure.raw.freeze_clock(10**9)
    pure.raw.create_session(place, 10, b"", True)
    pure.raw.freeze_clock(10**9 + 10)
    writing = pure.raw._stripes.writing

    def used_first(stripe: int) -> AbstractContextManager[Operation]:
        pure.raw.freeze_clock(10**9 + 9)
        pure.raw.touch(place)
        pure.raw.freeze_clock(10**9 + 10)
        return writing(stripe)

    monkeypatch.setattr(pure.raw._stripes, "writing", used_first)
    assert pure.raw.sweep(place.stripe) == 0
    assert pure.raw.session_exists(place)


def test_a_use_is_noted_often_enough_and_not_too_often(store: SessionStore, clock: Clock) -> None:
    store.create_session("s", ttl=1000)
    store.register_variable("s", "x", "integer", 1)

    def noted_after(seconds: float, use: Use) -> bool:
        store.touch_session("s")
        clock.advance(seconds)
        use(store)
        [info] = store.list_sessions()
        return info.last_accessed > time.time() - seconds / 2

    def read(store: SessionStore) -> object:
        return store.get_value("s", "x")

    assert [noted_after(seconds, read) for seconds in (0.9, 1.1)] == [False, True]
    assert noted_after(0.9, lambda store: store.update_variable("s", "x", 2))
    store.create_session("short", ttl=0.8)
    clock.advance(0.11)
    store.get_session("short")
    clock.advance(0.7)
    assert store.exists("short")


def test_a_sweep_is_bounded_and_goes_on_where_it_stopped(store: SessionStore, clock: Clock) -> None:
    for number in range(300):
        store.create_session(f"s{number}", ttl=5)
    clock.advance(10)
    # No time at all means one stripe, so each of them comes once.
    removed = [store._sweeper.sweep(-1) for _ in range(STRIPE_COUNT)]
    assert (sum(removed), max(removed) < 100) == (300, True)
    assert store.cleanup_expired_sessions() == 0


#: Its steps are 4 ms; `time` does not name it.
CLOCK_REALTIME_COARSE = 5 if sys.platform == "linux" else time.CLOCK_REALTIME


def tick() -> None:
    """Return when the clock of creation times has moved on."""
    before = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) == before:
        pass


def test_list_is_sorted_by_age_and_filtered_by_glob(store: SessionStore) -> None:
    for name in ("b-1", "a-2", "b-3", "B-4"):
        store.create_session(name)
        tick()
    assert [info.id for info in store.list_sessions("b-*")] == ["b-1", "b-3"]
    assert [info.id for info in store.list_sessions("?-[24]")] == ["a-2", "B-4"]
    assert [info.id for info in store.list_sessions("b")] == []


def test_delete_takes_everything_with_it(store: SessionStore) -> None:
    store.create_session("s")
    for number in range(30):
        store.register_variable("s", f"v{number}", "string", "a" * 100)
    assert store.delete_session("s") == 30
    for gone in (store.delete_session, store.get_session, store.touch_session):
        with pytest.raises(SessionNotFound, match="'s'") as caught:
            gone("s")
        assert caught.value.session_id == "s"
    assert store.create_session("s").variable_count == 0


def test_max_sessions_is_exact_in_all_processes() -> None:
    with small_store(max_sessions=3) as store:
        assert in_child(lambda: store.create_session("child")) == 0
        for name in "ab":
            store.create_session(name)
        with pytest.raises(SessionLimitReached, match="max_sessions is 3") as caught:
            store.create_session("c")
        assert caught.value.limit == 3
        store.create_session("a")  # exists: no new one
        store.delete_session("child")
        store.create_session("c")
        assert_intact(store)


def test_what_has_expired_makes_room_for_new_sessions() -> None:
    with small_store(max_sessions=2) as store:
        clock = Clock(store)
        for name in "ab":
            store.create_session(name, ttl=5)
        clock.advance(10)
        store.create_session("a")
        store.create_session("c")
        assert_intact(store)


@pytest.fixture
def small_limit() -> Iterator[SessionStore]:
    with small_store(max_variables_per_session=2) as store:
        store.create_session("s")
        yield store
        assert_intact(store)


def test_max_variables_per_session(small_limit: SessionStore) -> None:
    for name in "ab":
        small_limit.register_variable("s", name, "integer", 1)
    with pytest.raises(SessionLimitReached, match="max_variables_per_session") as caught:
        small_limit.register_variable("s", "c", "integer", 1)
    assert caught.value.limit == 2
    small_limit.register_variable("s", "a", "integer", 1, exist_ok=True)
    small_limit.delete_variable("s", "a")
    small_limit.register_variable("s", "c", "integer", 1)
