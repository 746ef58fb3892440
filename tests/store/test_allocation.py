"""Arrays are made where they will lie, and views stay what they were."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from fix_store import FORKS, assert_intact, in_child, small_store

from snakepit_mp import _accel
from snakepit_mp.errors import CodecError, StoreFull
from snakepit_mp.session import Session
from snakepit_mp.store.session_store import SessionStore

pytestmark = FORKS

compiled = pytest.mark.skipif(
    not hasattr(_accel.speedups, "Allocation"), reason="the pure twin copies"
)
LONG = 50_000


@pytest.fixture
def session(store: SessionStore) -> Session:
    store.create_session("s")
    return Session(store, "s")


def used(store: SessionStore) -> int:
    return store.stats().bytes_used


@pytest.mark.parametrize("dtype", ["f8", "i4", "?", "c16", "M8[ns]", "U5"])
@pytest.mark.parametrize("shape", [LONG, (100, 500), (3,), (), (0, 7)])
def test_an_allocated_array_becomes_a_value(
    store: SessionStore, session: Session, shape: tuple[int, ...] | int, dtype: str
) -> None:
    array = store.allocate(shape, dtype)
    assert array.dtype == np.dtype(dtype)
    array[...] = np.ones((), "i8").astype(dtype)
    session["x"] = array
    found = session["x"]
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert not found.flags.writeable


def test_it_is_read_only_once_it_is_stored(store: SessionStore, session: Session) -> None:
    array = store.allocate(LONG)
    array[:] = 1
    session["x"] = array
    if hasattr(_accel.speedups, "Allocation"):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2
    assert session["x"][0] == 1


def test_it_can_be_given_twice(store: SessionStore, session: Session) -> None:
    array = store.allocate(LONG)
    array[:] = 3
    session["x"] = array
    session["y"] = array
    session.update_variables({"x": array, "y": array})
    again = store.allocate(LONG)
    again[:] = 4
    session.update_variables({"x": again, "y": again})
    del session["x"]
    assert (session["y"] == 4).all()
    del session["y"]
    assert (again == 4).all()


def test_one_of_another_store_is_copied(store: SessionStore, session: Session) -> None:
    with small_store() as other:
        array = other.allocate(LONG)
        array[:] = 5
        session["x"] = array
        del array
        assert_intact(other)
    assert (session["x"] == 5).all()


def test_what_is_never_stored_is_given_back(store: SessionStore) -> None:
    before = used(store)
    arrays = [store.allocate(LONG) for _ in range(5)]
    del arrays
    gc.collect()
    assert used(store) == before


@compiled
def test_there_is_no_copy(store: SessionStore, session: Session) -> None:
    array = store.allocate(LONG)
    array[:] = 6
    before = used(store)
    session.register_variable("x", "tensor", array)
    assert used(store) - before < LONG  # the variable's record, not another block


@compiled
def test_it_is_refused_where_there_is_no_room(store: SessionStore) -> None:
    with pytest.raises(StoreFull):
        store.allocate(100 << 20)


def test_dtypes_that_cannot_be_stored(store: SessionStore) -> None:
    with pytest.raises(CodecError):
        store.allocate(LONG, "O")


@pytest.mark.parametrize("shape", ["3", 2.5, None, (2.5,), (3, "4")])
def test_what_is_no_shape(store: SessionStore, shape: object) -> None:
    with pytest.raises(TypeError, match="shape"):
        store.allocate(shape)


@pytest.mark.parametrize("shape", [-1, (-1, 2), (3000, -1)])
def test_negative_shapes(store: SessionStore, shape: object) -> None:
    with pytest.raises(ValueError, match="negative"):
        store.allocate(shape)


@pytest.mark.parametrize("shape", [1 << 62, 1 << 70, (1 << 40, 1 << 40)])
def test_shapes_beyond_everything(store: SessionStore, shape: object) -> None:
    with pytest.raises(StoreFull):
        store.allocate(shape)


def test_lengths_of_numpy(store: SessionStore) -> None:
    assert store.allocate(np.int64(5)).shape == (5,)
    assert store.allocate([2, np.int32(3)]).shape == (2, 3)


def test_views_stay_what_they_were(store: SessionStore, session: Session) -> None:
    session["x"] = np.full(LONG, 1.0)
    views = []
    for number in range(2, 10):
        views.append(session["x"])
        session["x"] = np.full(LONG, float(number))
    views.append(session["x"])
    del session["x"]
    session["y"] = np.full(LONG, 99.0)
    assert [view[0] for view in views] == [float(number) for number in range(1, 10)]
    assert all((view == view[0]).all() for view in views)
    store.delete_session("s")
    assert [view[-1] for view in views] == [float(number) for number in range(1, 10)]


def test_their_memory_returns_with_the_last_of_them(store: SessionStore, session: Session) -> None:
    session["x"] = np.zeros(LONG)
    before = used(store)
    view = session["x"]
    part = view[10:20]
    session["x"] = np.ones(LONG)
    del view
    gc.collect()
    store.cleanup_expired_sessions()
    assert (part == 0).all()
    del part
    gc.collect()
    store.cleanup_expired_sessions()
    assert used(store) == before


@compiled
def test_more_views_than_there_are_slots(store: SessionStore, session: Session) -> None:
    session["x"] = np.arange(2000.0)
    views = [session["x"] for _ in range(1200)]
    session["x"] = np.zeros(2000)
    assert all((view == np.arange(2000.0)).all() for view in views)


@compiled
def test_views_of_a_dead_process_keep_nothing(store: SessionStore, session: Session) -> None:
    session["x"] = np.zeros(LONG)
    before = used(store)
    kept: list[object] = []

    def look_and_die() -> None:
        store.after_fork()
        kept.append(Session(store, "s")["x"])
        kept.append(store.allocate(LONG))

    assert in_child(look_and_die) == 0
    session["x"] = np.ones(LONG)
    store.cleanup_expired_sessions()
    assert used(store) == before


def test_long_bytes_are_read_only_views(store: SessionStore, session: Session) -> None:
    session["x"] = b"ab" * LONG
    found = session["x"]
    assert isinstance(found, memoryview)
    assert found.readonly
    session["x"] = b"c"
    assert found == b"ab" * LONG
    assert session["x"] == b"c"


def test_a_view_outlives_the_store() -> None:
    with small_store() as made:
        made.create_session("s")
        made.register_variable("s", "x", "tensor", np.arange(float(LONG)))
        view = made.get_value("s", "x")
    assert (view == np.arange(float(LONG))).all()
