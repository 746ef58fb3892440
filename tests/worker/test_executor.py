"""Tools in the worker's main thread: phases, arguments, kinds of tools, and bad endings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from executor_tools import RaisesWhenUnpickled, Tools, Tracked
from fix_timeouts import scaled
from fix_worker import wait_for

from snakepit_mp.errors import (
    CodecError,
    InvalidArguments,
    RemoteError,
    ToolNotFound,
    VariableNotFound,
)
from snakepit_mp.lanes.envelope import (
    Call,
    Kind,
    decode_reply,
    encode_call,
    encode_function,
    frame,
)
from snakepit_mp.lanes.status import Phase
from snakepit_mp.worker.job import JobCancelled, JobRefused


@pytest.fixture
def tools() -> Tools:
    return Tools()


@pytest.fixture
def main(fake_main, tools):
    return fake_main(tools)


# -- phases -------------------------------------------------------------------------------


def test_a_call_goes_through_all_phases_in_order(main) -> None:
    assert main.run("add", args=(1,), kwargs={"b": 2}).value == 3
    assert main.status.notes == [("taken", 7), ("entered", 7), ("done", 7)]


def test_the_page_shows_the_tool_while_it_runs(main, tools) -> None:
    job = main.executor.submit(main.frame("wait", request_id=9))
    wait_for(tools.entered)
    assert main.page.read() == (9, Phase.ENTERED)
    tools.gate.set()
    assert decode_reply(job.result()).value == "done"
    assert main.page.read() == (9, Phase.DONE)


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("nothing", {}),
        ("add", {}),
        ("add", {"args": (1,), "kwargs": {"c": 1}}),
        ("add", {"args": (RaisesWhenUnpickled(ValueError),)}),
        ("squeezed", {}),
        ("count", {"args": (3,)}),
        (None, {"function": b"no pickle"}),
    ],
)
def test_what_is_wrong_with_a_call_shows_before_the_tool_is_entered(main, command, call) -> None:
    assert main.run(command, **call).kind is Kind.ERROR
    assert main.status.notes == [("taken", 7), ("done", 7)]


def test_a_body_that_is_noise_is_an_error_like_any(main) -> None:
    job = main.executor.submit(frame(Kind.CALL, 7, 1, b"noise"))
    assert isinstance(decode_reply(job.result()).error, CodecError)
    assert main.run("add", args=(1,)).value == 11


# -- calls --------------------------------------------------------------------------------


def test_tools_run_in_the_thread_that_runs_the_executor(main) -> None:
    assert main.run("thread").value == main.thread.name


def test_unknown_tool_names_those_that_exist(main) -> None:
    error = main.run("nothing").error
    assert isinstance(error, ToolNotFound)
    assert error.name == "nothing"
    assert "add" in error.known
    assert "there are: add, colour, coloured" in str(error)


def test_wrong_arguments_show_the_signature(main) -> None:
    error = main.run("add", args=("1",)).error
    assert isinstance(error, InvalidArguments)
    assert "'a' must be int, not str; the signature is add(a: int, b: int = 10)" in str(error)


def test_an_executor_without_adapter_runs_callables_only(fake_main) -> None:
    main = fake_main(None)
    assert isinstance(main.run("add").error, ToolNotFound)
    assert main.run(None, function=encode_function(max), args=(1, 5)).value == 5
    function = encode_function(lambda a, *, b: a - b)
    assert main.run(None, function=function, args=(1,), kwargs={"b": 5}).value == -4


def test_callables_where_pickle_is_not_allowed(fake_main) -> None:
    main = fake_main(None, allow_pickle=False)
    reply = main.run(None, function=encode_function(max), args=(1, 5))
    assert isinstance(reply.error, CodecError)


def test_ctx_is_made_from_the_call(main) -> None:
    body = encode_call(Call("context", session_id="user-1"))
    job = main.executor.submit(frame(Kind.CALL, 7, 3, body, deadline=99.5))
    assert decode_reply(job.result()).value == ("user-1", 3, 99.5)
    assert main.sessions == ["user-1"]


def test_ctx_is_made_only_for_tools_that_ask(main) -> None:
    main.run("add", args=(1,), session_id="user-1")
    assert main.contexts == []
    main.run("context")
    assert len(main.contexts) == 1
    assert main.sessions == ["user-1"]


def test_a_callable_with_ctx_gets_it_unless_it_is_passed(fake_main) -> None:
    main = fake_main(None)

    def function(a: int, ctx: Any = None) -> tuple[int, str]:
        return a, getattr(ctx, "session_id", ctx)

    data = encode_function(function)
    assert main.run(None, function=data, args=(1,), session_id="s").value == (1, "s")
    assert main.run(None, function=data, args=(1, "mine")).value == (1, "mine")
    assert main.run(None, function=data, args=(1,), kwargs={"ctx": "mine"}).value == (1, "mine")


def test_required_variables(main) -> None:
    assert main.run("warm", session_id="s").value == "warm"
    error = main.run("squeezed", session_id="s").error
    assert isinstance(error, VariableNotFound)
    assert (error.session_id, error.name) == ("s", "pressure")


def test_each_call_has_a_context_of_its_own(main) -> None:
    assert main.run("colour", args=("red",)).value == "grey"
    assert main.run("colour", args=("blue",)).value == "grey"


def test_the_context_of_a_stream_holds_from_item_to_item(main) -> None:
    assert [reply.value for reply in main.stream("coloured", args=(3,))] == ["0", "1", "2", None]
    assert main.run("colour", args=("red",)).value == "grey"


# -- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["fail", "fail_later"])
@pytest.mark.parametrize("kind", [ValueError, KeyError])
def test_a_tools_exception_arrives_with_its_traceback_and_no_frame_of_ours(
    main, command, kind
) -> None:
    error = main.run(command, args=(kind,)).error
    assert type(error) is kind
    text = str(error.__cause__)
    assert f"in {command}" in text
    assert text.count("  File ") == 1


@pytest.mark.parametrize("command", ["fail", "fail_later"])
@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
)
def test_no_exception_of_a_tool_ends_the_worker(main, command, kind) -> None:
    error = main.run(command, args=(kind,)).error
    assert type(error) is RemoteError
    assert error.type_name.endswith(kind.__name__)
    assert main.run("add", args=(1,)).value == 11
    assert main.run("later", args=(3,)).value == 3, "the loop still works"


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_arguments_that_raise_when_decoded_do_not_end_the_worker(main, kind) -> None:
    reply = main.run("add", args=(RaisesWhenUnpickled(kind),))
    assert reply.kind is Kind.ERROR
    assert main.run("add", args=(1,)).value == 11


def test_a_result_that_cannot_be_encoded(main) -> None:
    error = main.run("uncodable").error
    assert isinstance(error, CodecError)
    assert error.path == "result['rows'][1]"
    assert main.status.notes == [("taken", 7), ("entered", 7), ("done", 7)]


# -- async tools --------------------------------------------------------------------------


def test_async_tools_share_one_loop(main, tools) -> None:
    assert main.run("later", args=(1,)).value == 1
    assert main.run("later", args=(2,)).value == 2
    assert tools.loops[0] is tools.loops[1]


def test_a_callable_that_is_async(fake_main) -> None:
    async def function(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    assert fake_main(None).run(None, function=encode_function(function), args=(1,)).value == 2


# -- streams ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["count", "trickle"])
@pytest.mark.parametrize("n", [0, 1, 50])
def test_items_then_the_end(main, command, n) -> None:
    replies = main.stream(command, args=(n,))
    assert [reply.kind for reply in replies] == [Kind.ITEM] * n + [Kind.END]
    assert [reply.value for reply in replies[:-1]] == list(range(n))
    assert main.status.notes[-1] == ("done", 7)


@pytest.mark.parametrize(("command", "args"), [("fail_after", (1,)), ("trickle_then_fail", ())])
def test_items_then_an_error(main, command, args) -> None:
    item, last = main.stream(command, args=args)
    assert item.kind is Kind.ITEM
    assert type(last.error) is ValueError


def test_an_item_that_cannot_be_encoded_closes_the_tool(main, tools) -> None:
    item, last = main.stream("uncodable_item")
    assert item.value == 1
    assert isinstance(last.error, CodecError)
    assert last.error.path == "result[0]"
    assert tools.closed.is_set()


def test_streaming_tools_and_streaming_calls_belong_together(main) -> None:
    error = main.run("count", args=(3,)).error
    assert isinstance(error, InvalidArguments)
    assert "'count' streams its results: it must be called as a stream" in str(error)
    [reply] = main.stream("add", args=(3,))
    assert isinstance(reply.error, InvalidArguments)
    assert "'add' has a single result: it must not be called as a stream" in str(reply.error)


@pytest.mark.parametrize(
    "function", [lambda: iter([1, 2]), lambda: (n for n in (1, 2)), lambda: map(int, "12")]
)
def test_a_callable_that_returns_an_iterator_streams(fake_main, function) -> None:
    replies = fake_main(None).stream(None, function=encode_function(function))
    assert [reply.value for reply in replies] == [1, 2, None]


def test_a_callable_that_returns_no_iterator_does_not_stream(fake_main) -> None:
    [reply] = fake_main(None).stream(None, function=encode_function(lambda: [1, 2]))
    assert isinstance(reply.error, InvalidArguments)
    assert "returned a list" in str(reply.error)


def start_stream(main, command: str) -> Any:
    return main.executor.submit(main.frame(command, streaming=True), streaming=True)


@pytest.mark.parametrize("command", ["endless", "endless_async", "silent_async"])
@pytest.mark.parametrize("items", [0, 20])
def test_a_stream_that_nobody_wants_any_more_is_closed(main, tools, command, items) -> None:
    job = start_stream(main, command)
    wait_for(tools.entered)
    if command != "silent_async":
        frames = job.frames()
        assert [decode_reply(next(frames)).value for _ in range(items)] == [1] * items
    job.cancel()  # the tool is running, or blocked on the full buffer
    wait_for(tools.closed)
    wait_for(main.told)
    assert main.abandoned == [7]
    assert main.run("add", args=(1,)).value == 11, "the worker is free again"


def test_a_generator_is_closed_in_the_main_thread(main, tools) -> None:
    job = start_stream(main, "endless")
    wait_for(tools.entered)
    job.cancel()
    wait_for(tools.closed)
    assert tools.closed_in is main.thread


def test_a_generator_that_does_not_let_itself_be_closed(main, tools) -> None:
    job = start_stream(main, "stubborn")
    next(job.frames())
    job.cancel()
    wait_for(main.told)
    assert tools.closed.is_set()
    assert main.run("add", args=(1,)).value == 11


def test_a_stream_left_after_its_end_is_told_too(main) -> None:
    job = start_stream(main, "count")  # it fails at once: an argument is missing
    assert decode_reply(job.result()).kind is Kind.ERROR
    assert main.abandoned == []
    job.cancel()
    wait_for(main.told)
    assert main.abandoned == [7]


def test_a_stream_cancelled_before_its_turn_is_not_run_but_told(main, tools) -> None:
    busy = main.executor.submit(main.frame("wait", request_id=1))
    wait_for(tools.entered)
    behind = start_stream(main, "endless")
    behind.cancel()
    tools.gate.set()
    busy.result()
    wait_for(main.told)
    assert main.abandoned == [7]
    assert ("taken", 7) not in main.status.notes


# -- the end ------------------------------------------------------------------------------


def test_stop_finishes_the_job_in_hand_and_refuses_those_behind_it(main, tools) -> None:
    busy = main.executor.submit(main.frame("wait", request_id=1))
    wait_for(tools.entered)
    behind = main.executor.submit(main.frame("add", request_id=2, args=(1,)))
    main.executor.stop()
    with pytest.raises(JobRefused):
        main.executor.submit(main.frame("add", request_id=3, args=(1,)))
    tools.gate.set()
    assert decode_reply(busy.result()).value == "done"
    with pytest.raises(JobRefused):
        behind.result()
    main.thread.join(scaled(10))
    assert not main.thread.is_alive()
    assert ("taken", 2) not in main.status.notes


def test_a_job_cancelled_before_its_turn_is_not_run(main, tools) -> None:
    busy = main.executor.submit(main.frame("wait", request_id=1))
    wait_for(tools.entered)
    behind = main.executor.submit(main.frame("add", request_id=2, args=(1,)))
    behind.cancel()
    tools.gate.set()
    busy.result()
    assert main.run("add", args=(1,)).value == 11
    assert ("taken", 2) not in main.status.notes
    with pytest.raises(JobCancelled):
        behind.result()


def test_arguments_and_results_are_let_go(fake_main) -> None:
    """A worker waiting for its next call must not keep the last one's data alive."""
    main = fake_main(None)
    Tracked.let_go.clear()
    reply = main.run(None, function=encode_function(id), args=(Tracked(main.thread.name),))
    assert reply.kind is Kind.VALUE
    wait_for(Tracked.let_go)
