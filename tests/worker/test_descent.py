"""A process that a tool forks ends with the tool's code, however that ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from snakepit_mp.adapter import Adapter, tool
from snakepit_mp.lanes.envelope import Kind
from snakepit_mp.lanes.status import Phase
from snakepit_mp.worker.descent import OnlyThisProcess


def end_of(pid: int) -> int:
    """The exit code of a child, which leaves no zombie behind."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked(end: Callable[[], object]) -> int:
    """The exit code of a process that ends a block in some way."""
    block = OnlyThisProcess()
    with block:
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)  # where the block does not end it, something has to
            end()
    return end_of(pid)


def leave_with(code: Any) -> Callable[[], object]:
    return lambda: sys.exit(code)


@pytest.mark.parametrize(
    ("code", "expected"), [(None, 0), (0, 0), (3, 3), (True, 1), (-1, 255), (1 << 40, 0), ("x", 1)]
)
def test_exit_codes_are_those_of_a_script(code, expected) -> None:
    assert forked(leave_with(code)) == expected


def test_the_end_of_the_block_is_a_good_end() -> None:
    assert forked(lambda: None) == 0


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_exception_is_shown(kind, capfd) -> None:
    def fail() -> None:
        raise kind("of the child")

    assert forked(fail) == 1
    shown = capfd.readouterr().err
    assert "in fail" in shown
    assert f"{kind.__name__}: of the child" in shown


def test_a_message_for_an_exit_code_is_shown(capfd) -> None:
    assert forked(leave_with("no more")) == 1
    assert capfd.readouterr().err == "no more\n"


def test_output_is_written(capfd) -> None:
    assert forked(lambda: print("from the child")) == 0
    assert capfd.readouterr().out == "from the child\n"


def test_output_that_cannot_be_written_does_not_keep_the_process() -> None:
    assert forked(lambda: sys.stdout.close()) == 0


def test_the_process_itself_gets_out() -> None:
    block = OnlyThisProcess()
    block.check()
    with pytest.raises(SystemExit), block:
        sys.exit(3)


class Forking(Adapter):
    """Each tool forks; the child leaves it by ``how``, the parent tells its exit code."""

    @tool
    def plain(self, how: str) -> int:
        return _fork(how)

    @tool
    async def awaited(self, how: str) -> int:
        return _fork(how)

    @tool
    def items(self, how: str) -> Iterator[int]:
        yield _fork(how)

    @tool
    async def async_items(self, how: str) -> AsyncIterator[int]:
        yield _fork(how)


def _fork(how: str) -> int:
    pid = os.fork()
    if pid != 0:
        return end_of(pid)
    signal.alarm(60)
    if how == "exit":
        sys.exit(3)
    if how == "raise":
        raise ValueError("of the child")
    return -1


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("exit", 3), ("raise", 1)])
@pytest.mark.parametrize("command", ["plain", "awaited", "items", "async_items"])
def test_a_forked_child_of_a_tool_is_no_second_worker(fake_main, command, how, code) -> None:
    main = fake_main(Forking())
    if command.endswith("items"):
        item, end = main.stream(command, args=(how,))
        assert (item.value, end.kind) == (code, Kind.END)
    else:
        assert main.run(command, args=(how,)).value == code
    assert main.status.notes == [("taken", 7), ("entered", 7), ("done", 7)]
    assert main.page.read() == (7, Phase.DONE)


def test_a_forked_child_of_an_adapters_start_is_no_second_worker(application, make_module):
    module = make_module("""
        import os
        from snakepit_mp.adapter import Adapter

        class Forks(Adapter):
            def start(self):
                if os.fork() == 0:
                    return
                assert os.wait()[1] == 0
    """)
    application.start_imported(f"{module}:Forks")
    worker = application.spawn()
    worker.serve()
    worker.order_stop()
    assert application.exited(worker) == (0, None)
    assert worker.next_event() is None


def test_a_child_that_outlives_the_call_leaves_the_page_alone(fake_main) -> None:
    """Its tool returns when the worker has another request in hand."""

    class Slow(Adapter):
        @tool
        def fork(self) -> int:
            reader, self.release = os.pipe()
            self.pid = os.fork()
            if self.pid == 0:
                signal.alarm(60)
                os.close(self.release)
                os.read(reader, 1)
            else:
                os.close(reader)
            return self.pid

        @tool
        def page(self) -> tuple[int, Phase]:
            os.close(self.release)
            assert end_of(self.pid) == 0
            number, phase = main.page.read()
            return number, int(phase)

    main = fake_main(Slow())
    assert main.run("fork", request_id=1).value > 0
    assert main.run("page", request_id=2).value == (2, Phase.ENTERED)
