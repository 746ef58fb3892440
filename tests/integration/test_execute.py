"""`Pool.execute`: values, functions, exceptions, and everything that can be wrong with a call."""

from __future__ import annotations

import os
import threading
from functools import partial

import numpy as np
import pytest
from fix_timeouts import scaled
from pool_adapters import AwkwardError, PlainError, Tools, square

from snakepit_mp import Pool
from snakepit_mp.errors import (
    CodecError,
    ConfigError,
    InvalidArguments,
    RemoteError,
    SessionNotFound,
    TaskTimeout,
    ToolNotFound,
)


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 2**80, 1.5, "text", b"bytes", [1, [2]], (1, (2,)), {"a": {1: 2}}, ""],
)
def test_what_goes_in_comes_out(pool: Pool, value):
    result = pool.execute("echo", {"value": value})

    assert result == value
    assert type(result) is type(value)


def test_array_comes_back_as_it_was(pool: Pool):
    array = np.arange(12, dtype=">f4").reshape(3, 4)

    result = pool.execute("echo", {"value": array})

    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


def test_mapping_gives_keywords_and_sequence_gives_positionals(pool: Pool):
    assert pool.execute("add", {"a": 1, "b": 2}) == 3
    assert pool.execute("add", (1, 2)) == 3
    assert pool.execute("add", [1]) == 2


def test_tool_runs_in_the_main_thread_of_another_process(pool: Pool):
    pid, _, in_main_thread, started = pool.execute("where")

    assert pid != os.getpid()
    assert in_main_thread
    assert started == 1


def test_tool_function_means_that_tool(pool: Pool):
    assert pool.execute(Tools.add, (2, 3)) == 5


def test_functions_travel(pool: Pool):
    offset = 10

    assert pool.execute(square, (4,)) == 16
    assert pool.execute(lambda x: x + offset, (1,)) == 11
    assert pool.execute(partial(square, 5)) == 25
    assert pool.execute(pow, (2, 5)) == 32


def test_async_tool(pool: Pool):
    assert pool.execute("later", {"value": 3}) == 3


def test_many_callers_at_once(pool: Pool):
    results: dict[int, list[int]] = {}

    def caller(number: int) -> None:
        results[number] = [pool.execute("add", (number, i)) for i in range(20)]

    threads = [threading.Thread(target=caller, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == {n: [n + i for i in range(20)] for n in range(6)}


def test_tools_exception_arrives_as_itself(pool: Pool):
    with pytest.raises(PlainError, match="as itself") as caught:
        pool.execute("fail", {"kind": "plain"})

    assert "raise PlainError" in str(caught.value.__cause__)


def test_exception_whose_constructor_is_awkward_arrives_as_itself(pool: Pool):
    with pytest.raises(AwkwardError, match="1 and 2"):
        pool.execute("fail", {"kind": "awkward"})


def test_exception_that_is_unknown_here_arrives_as_remote_error(pool: Pool):
    with pytest.raises(RemoteError, match="known here only") as caught:
        pool.execute("fail", {"kind": "local"})

    assert caught.value.type_name.endswith("LocalError")
    assert "raise LocalError" in caught.value.traceback


def test_exit_in_a_tool_ends_neither_worker_nor_host(pool: Pool):
    before = {row.pid for row in pool.workers()}

    with pytest.raises(RemoteError, match="SystemExit"):
        pool.execute("fail", {"kind": "exit"})

    assert {row.pid for row in pool.workers()} == before


def test_unknown_tool_names_the_known_ones(pool: Pool):
    with pytest.raises(ToolNotFound, match="did you mean 'echo'") as caught:
        pool.execute("ecoh")

    assert "add" in caught.value.known


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"a": 1, "c": 2}, "c"),
        ({}, "a"),
        ({"a": "one"}, "a"),
        ((1, 2, 3), "add"),
        ({1: 2}, "str"),
        (5, "mapping"),
    ],
)
def test_wrong_arguments_fail_before_anything_runs(pool: Pool, args, words):
    before = pool.stats()

    with pytest.raises(InvalidArguments, match=words):
        pool.execute("add", args)

    assert pool.stats() == before


def test_wrong_arguments_of_a_function(pool: Pool):
    with pytest.raises(InvalidArguments, match="square"):
        pool.execute(square, (1, 2))


def test_command_that_is_nothing(pool: Pool):
    with pytest.raises(InvalidArguments, match="command"):
        pool.execute(42)  # type: ignore[arg-type]


def test_streaming_tool_needs_stream(pool: Pool):
    with pytest.raises(InvalidArguments, match="must be called as a stream"):
        pool.execute("numbers", {"n": 1})


def test_unencodable_argument_names_its_path(pool: Pool):
    with pytest.raises(CodecError, match="value") as caught:
        pool.execute("echo", {"value": [threading.Lock()]})

    assert caught.value.path is not None
    assert caught.value.path.startswith("args['value']")


def test_unencodable_result(pool: Pool):
    with pytest.raises(CodecError, match="deep"):
        pool.execute("unpicklable")


def test_result_that_cannot_be_decoded(pool: Pool):
    with pytest.raises(CodecError) as caught:
        pool.execute("undecodable")

    assert isinstance(caught.value.__cause__, ValueError)
    assert pool.execute("add", (1, 1)) == 2


def test_result_cannot_end_the_host(pool: Pool):
    with pytest.raises(CodecError):
        pool.execute("host_exit")


def test_without_pickle_only_plain_values_travel(make_pool):
    pool = make_pool(allow_pickle=False, workers=1)

    assert pool.execute("echo", {"value": {"plain": [1, 2.5]}}) == {"plain": [1, 2.5]}
    with pytest.raises(CodecError, match="allow_pickle"):
        pool.execute(square, (2,))
    with pytest.raises(CodecError):
        pool.execute("echo", {"value": PlainError()})
    with pytest.raises(ZeroDivisionError):
        pool.execute("fail", {"kind": "zero"})


def test_deadline_ends_the_call_and_not_the_worker(fresh_pool: Pool):
    before = {row.pid for row in fresh_pool.workers()}

    with pytest.raises(TaskTimeout) as caught:
        fresh_pool.execute("sleep", {"seconds": 60.0}, timeout=0.05)

    assert caught.value.timeout == 0.05
    fresh_pool.drain(scaled(10))
    assert {row.pid for row in fresh_pool.workers()} == before


def test_deadline_of_the_tool_and_of_the_pool(make_pool):
    pool = make_pool(timeout=0.07, workers=1)

    with pytest.raises(TaskTimeout) as of_tool:
        pool.execute("sleep_too_long")
    with pytest.raises(TaskTimeout) as of_pool:
        pool.execute("sleep", {"seconds": 60.0})

    assert (of_tool.value.timeout, of_pool.value.timeout) == (0.05, 0.07)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), "1"])
def test_bad_timeout_is_named(pool: Pool, timeout):
    with pytest.raises(ConfigError, match="timeout"):
        pool.execute("add", (1,), timeout=timeout)


def test_session_id_reaches_the_tool(pool: Pool):
    with pool.session() as session:
        assert pool.execute("session_of", session_id=session.id) == (session.id, 1)
        assert session.execute("session_of") == (session.id, 1)
    assert pool.execute("session_of") == (None, 1)


def test_unknown_session(pool: Pool):
    with pytest.raises(SessionNotFound, match="nobody"):
        pool.execute("session_of", session_id="nobody")


def test_call_without_session_says_so(pool: Pool):
    with pytest.raises(SessionNotFound, match="session"):
        pool.execute("read", {"name": "x"})


def test_variables_are_shared_between_application_and_workers(pool: Pool):
    with pool.session() as session:
        session["x"] = 1
        pool.execute("write", {"name": "y", "value": [1, 2]}, session_id=session.id)

        assert pool.execute("read", {"name": "x"}, session_id=session.id) == 1
        assert session["y"] == [1, 2]


def test_no_update_is_lost_among_workers(pool: Pool):
    with pool.session() as session:
        session.register_variable("n", "integer", 0)
        futures = [session.submit("increment", {"name": "n"}) for _ in range(40)]

        assert sorted(future.result() for future in futures) == list(range(2, 42))
        assert session["n"] == 40


def test_session_remembers_its_last_worker(pool: Pool):
    with pool.session() as session:
        pid = session.execute("where")[0]
        worker = next(row.id for row in pool.workers() if row.pid == pid)

        assert pool.store.get_session(session.id).last_worker_id == worker


def test_session_comes_back_to_its_worker(pool: Pool):
    with pool.session() as session:
        pids = {session.execute("where")[0] for _ in range(10)}

    assert len(pids) == 1


def test_children_forked_by_a_tool_work(pool: Pool):
    assert pool.execute("fork_child", {"value": 21}) == 42
