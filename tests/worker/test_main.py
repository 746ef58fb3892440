"""A worker from its fork to its end, in a process of its own, against a test's fork server."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager

import pytest
from fix_forkserver import wait_readable
from fix_pool import until

from snakepit_mp.errors import RemoteError
from snakepit_mp.lanes.envelope import Call, Kind, decode_reply, encode_call, frame
from snakepit_mp.lanes.frames import send_frame
from snakepit_mp.lanes.grpc import GrpcLane
from snakepit_mp.lanes.status import Phase

DIARY = """
    import os, signal, time
    from snakepit_mp.adapter import Adapter, tool

    def note(*words):
        with open(os.environ["DIARY"], "a") as diary:
            print(*words, file=diary)

    class Diary(Adapter):
        def __init__(self):
            note("made")

        def start(self):
            note("started")

        def stop(self):
            note("stopped")

        @tool
        def wait(self, fifo: str) -> str:
            note("waiting")
            with open(fifo) as gate:
                said = gate.read()
            note("heard")
            return said

        @tool
        def set(self, ctx) -> int:
            ctx["seen"] = ctx.attempt
            return ctx.attempt

        @tool
        def interrupted(self) -> str:
            os.kill(os.getpid(), signal.SIGINT)
            return "still here"
"""


@pytest.fixture
def diary(application, make_module, tmp_path):
    """A serving worker that keeps a diary, and a function that reads it."""
    path = tmp_path / "diary"
    application.start_imported(f"{make_module(DIARY)}:Diary", env={"DIARY": str(path)})
    worker = application.spawn(1, 0)
    worker.serve()
    return worker, lambda: path.read_text().split()


@contextmanager
def lane_to(worker):
    lane = GrpcLane(f"unix:{worker.socket_path}", worker.token)
    try:
        yield lane
    finally:
        lane.close()


def call(lane, tool, number=1, session_id=None, **kwargs):
    body = encode_call(Call(tool, kwargs=kwargs, session_id=session_id))
    return decode_reply(lane.call(frame(Kind.CALL, number, 1, body), None))


def test_the_adapter_is_made_and_started_once(diary):
    _, read = diary
    assert read() == ["made", "started"]


def test_it_stops_once_at_the_polite_end(diary, application):
    worker, read = diary
    worker.order_stop()
    assert worker.next_event() is None
    assert application.exited(worker) == (0, None)
    assert read() == ["made", "started", "stopped"]


def test_it_finishes_the_request_in_hand_before_it_stops(diary, application, tmp_path):
    worker, read = diary
    os.mkfifo(tmp_path / "gate")
    replies = []

    def ask():
        with lane_to(worker) as lane:
            replies.append(call(lane, "wait", 7, fifo=str(tmp_path / "gate")))

    caller = threading.Thread(target=ask)
    caller.start()
    with open(tmp_path / "gate", "w") as gate:  # opens when the tool does
        assert worker.status.read() == (7, Phase.ENTERED)
        worker.order_stop()
        gate.write("bye")
    caller.join()
    assert application.exited(worker) == (0, None)
    assert [reply.value for reply in replies] == ["bye"]
    assert read()[2:] == ["waiting", "heard", "stopped"]


def test_it_leaves_at_once_when_the_application_lets_go(diary, application, tmp_path):
    worker, read = diary
    os.mkfifo(tmp_path / "gate")
    with lane_to(worker) as lane:
        body = encode_call(Call("wait", kwargs={"fifo": str(tmp_path / "gate")}))
        lane.begin(frame(Kind.CALL, 1, 1, body), lambda reply: None)
        with open(tmp_path / "gate", "w"):
            worker.channel.close()
            assert wait_readable(worker.pidfd)
    assert application.exited(worker) == (0, None)
    assert read()[2:] == ["waiting"]


def test_it_ends_when_it_cannot_hear_any_more(diary, application):
    """Deaf, it would be idle for ever: neither stopped nor asked how it is."""
    worker, _ = diary
    send_frame(worker.channel, b"nonsense")
    assert wait_readable(worker.pidfd)
    assert application.exited(worker) == (1, None)


def test_ctrl_c_is_the_applications_business(diary):
    worker, _ = diary
    os.kill(worker.pid, signal.SIGINT)
    with lane_to(worker) as lane:
        assert call(lane, "interrupted").value == "still here"


def test_a_tool_has_its_callers_session(diary, application):
    application.store.create_session("mine")
    with lane_to(diary[0]) as lane:
        assert call(lane, "set", session_id="mine").value == 1
    assert application.store.get_value("mine", "seen") == 1
    until(lambda: application.store.get_session("mine").last_worker_id == 1)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("raise ValueError(42)", ValueError),
        ("raise SystemExit(42)", RemoteError),
        ("1 / 0", ZeroDivisionError),
    ],
)
def test_what_the_start_raises_is_told(application, make_module, step, kind):
    module = make_module(f"""
        from snakepit_mp.adapter import Adapter

        class Fails(Adapter):
            def start(self):
                {step}
    """)
    application.start_imported(f"{module}:Fails")
    worker = application.spawn()
    with pytest.raises(kind):
        worker.event("started")
    assert worker.next_event() is None
    assert application.exited(worker) == (1, None)


def test_a_socket_that_cannot_be_bound_is_told(application):
    application.start_imported()
    os.mkdir(application.directory.socket_path(0, 0))
    worker = application.spawn()
    worker.event("started")
    with pytest.raises(RuntimeError, match=r"bind|address"):
        worker.event("serving")
    assert application.exited(worker) == (1, None)
    os.rmdir(worker.socket_path)


def test_output_is_flushed_at_the_end(application, make_module, capfd):
    module = make_module("""
        from snakepit_mp.adapter import Adapter

        class Talks(Adapter):
            def start(self):
                print("no newline", end="")
    """)
    application.start_imported(f"{module}:Talks")
    worker = application.spawn()
    worker.serve()
    worker.order_stop()
    assert application.exited(worker) == (0, None)
    assert "no newline" in capfd.readouterr().out


def test_an_error_in_stop_is_shown_and_is_the_exit_code(application, make_module, capfd):
    module = make_module("""
        from snakepit_mp.adapter import Adapter

        class Stumbles(Adapter):
            def stop(self):
                raise ValueError("on the way out")
    """)
    application.start_imported(f"{module}:Stumbles")
    worker = application.spawn()
    worker.serve()
    worker.order_stop()
    assert application.exited(worker) == (1, None)
    assert "ValueError: on the way out" in capfd.readouterr().err
