"""A worker may end at every point of a call, in every way: the caller gets what was promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fault_adapters import Ending, Fatal, Points
from fix_timeouts import scaled

from snakepit_mp import Pool
from snakepit_mp.errors import CodecError, PoisonTaskError, RemoteError, WorkerDied

#: How a worker ends, and what of it shows in the diagnosis.
DEADLY: dict[str, tuple[int | None, str | None]] = {
    "os._exit": (7, None),
    "SIGKILL": (None, "SIGKILL"),
    "SIGSEGV": (None, "SIGSEGV"),
}
#: What only looks like an end: the worker has to live on.
HARMLESS = ["sys.exit", "exception"]


@pytest.fixture
def pool(make_pool) -> Pool:
    return make_pool(Points, workers=1, poison_after=2)


def well(pool: Pool) -> None:
    assert pool.execute("echo", (1,), timeout=scaled(20)) == 1


def deaths_of(pool: Pool, call: Callable[[], Any]) -> tuple[WorkerDied, ...]:
    """The deaths for which the call failed."""
    with pytest.raises((WorkerDied, PoisonTaskError)) as caught:
        call()
    well(pool)
    error = caught.value
    return error.deaths if isinstance(error, PoisonTaskError) else (error,)


#: Calls that end the worker at a point, and whether their tool was entered by then.
CALLS: dict[str, tuple[Callable[[Pool, str], Any], bool]] = {
    "decoding arguments": (lambda pool, way: pool.execute("echo", (Fatal(way),)), False),
    "before the tool is entered": (lambda pool, way: pool.execute(Ending(way)), False),
    "in the tool": (lambda pool, way: pool.execute("in_the_tool", (way,)), True),
    "encoding the result": (lambda pool, way: pool.execute("in_the_result", (way,)), True),
    "in a stream": (lambda pool, way: list(pool.stream("in_the_stream", (3, way))), True),
}


@pytest.mark.parametrize("point", CALLS)
def test_end_at_a_point_of_the_call(pool: Pool, point: str):
    """Not entered: it goes round silently, and is quarantined. Entered: it is told, once."""
    call, entered = CALLS[point]
    for way, known in DEADLY.items():
        deaths = deaths_of(pool, lambda way=way: call(pool, way))

        assert [death.entered for death in deaths] == ([True] if entered else [False, False])
        for death in deaths:  # a busy machine may tell too late how it ended
            assert (death.exit_code, death.signal) in (known, (None, None))


@contextmanager
def perhaps_died() -> Iterator[None]:
    """A block that may fail with a death, but with nothing else."""
    try:
        yield
    except WorkerDied as error:
        if not error.entered:
            raise


def test_end_while_the_result_is_sent(pool: Pool):
    """Either the result is there, or the worker was entered and died; never neither."""
    for way in DEADLY:
        with perhaps_died():
            assert len(pool.execute("while_sending", (way, 1 << 24))) == 1 << 24
        well(pool)


def test_end_when_garbage_is_collected(pool: Pool):
    """In nobody's tool, or in the next one's: that call is moved, or told."""
    for way in DEADLY:
        with perhaps_died():
            pool.execute("leave_garbage", (way,))
        with perhaps_died():
            pool.execute("collect")
        well(pool)


def test_what_is_no_end(pool: Pool):
    pid = pool.execute("pid")
    for way in HARMLESS:
        for call, _ in CALLS.values():
            with pytest.raises((RemoteError, CodecError, ValueError)):
                call(pool, way)
        pool.execute("leave_garbage", (way,))
        pool.execute("collect")
        assert pool.execute("pid") == pid


def test_result_cannot_end_the_caller(pool: Pool):
    for way in HARMLESS:
        with pytest.raises((CodecError, ValueError)):
            pool.execute("for_the_caller", (way,))
    well(pool)
