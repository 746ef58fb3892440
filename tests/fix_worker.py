"""A worker without a process: executor, servicer and lane, joined as in a real one.

A thread stands in for the worker's main thread. Everything else is the real thing, and the
tests of whole pools hold the two to the same behaviour.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fix_timeouts import scaled

from snakepit_mp.adapter import Adapter, tool
from snakepit_mp.lanes.envelope import Call, Kind, Reply, decode_reply, encode_call, frame
from snakepit_mp.lanes.grpc import GrpcLane
from snakepit_mp.lanes.status import StatusPage
from snakepit_mp.worker.executor import Executor
from snakepit_mp.worker.servicer import WorkerServer, serve

__all__ = ["Context", "FakeMain", "Worker", "fake_main", "wait_for", "worker"]

TOKEN = "open sesame"


def wait_for(event: threading.Event) -> None:
    """Wait for what must happen, and fail where it does not."""
    assert event.wait(scaled(10)), "it did not happen"


class Context:
    """What stands in for a `SessionContext`: the facts it is made from, and variables."""

    def __init__(
        self,
        session_id: str | None,
        attempt: int,
        deadline: float | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self.session_id = session_id
        self.attempt = attempt
        self.deadline = deadline
        self.cancelled = cancelled

    def __contains__(self, name: str) -> bool:
        return name == "temperature"


class RecordingStatus:
    """The real page, which also remembers in what order it was written."""

    def __init__(self, page: StatusPage) -> None:
        self.page = page
        self.notes: list[tuple[str, int]] = []

    def __getattr__(self, phase: str) -> Any:
        note = getattr(self.page, phase)

        def record(request_id: int, attempt: int = 1) -> None:
            note(request_id, attempt)
            self.notes.append((phase, request_id))

        if phase not in ("taken", "entered", "done"):
            return note

        return record


class FakeMain:
    """An executor whose `run` has a thread of its own; ends with its ``with`` block."""

    def __init__(self, adapter: Adapter | None, **settings: Any) -> None:
        self.page = StatusPage.create()
        self.status = RecordingStatus(self.page)
        self.contexts: list[Context] = []
        self.sessions: list[str] = []
        self.abandoned: list[int] = []
        self.told = threading.Event()
        settings.setdefault("context", self._context)
        self.executor = Executor(
            adapter,
            self.status,  # type: ignore[arg-type]  # it has the page's methods
            on_session=self.sessions.append,
            on_abandoned=self._on_abandoned,
            **settings,
        )
        self.thread = threading.Thread(target=self.executor.run)

    def _context(self, *facts: Any) -> Context:
        self.contexts.append(Context(*facts))
        return self.contexts[-1]

    def _on_abandoned(self, request_id: int, attempt: int | None) -> None:
        self.abandoned.append(request_id)
        self.told.set()

    def __enter__(self) -> FakeMain:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.stop()
        self.thread.join(scaled(10))
        assert not self.thread.is_alive(), "the executor did not stop"
        self.page.close()

    def frame(self, command: str | None, request_id: int = 7, **call: Any) -> bytes:
        body = encode_call(Call(command, **call), allow_pickle=True)
        return frame(Kind.CALL, request_id, 1, body)

    def run(self, command: str | None, **call: Any) -> Reply:
        """One call, without any lane."""
        job = self.executor.submit(self.frame(command, **call))
        return decode_reply(job.result(), allow_pickle=True)

    def stream(self, command: str | None, **call: Any) -> list[Reply]:
        data = self.frame(command, streaming=True, **call)
        job = self.executor.submit(data, streaming=True)
        return [decode_reply(reply, allow_pickle=True) for reply in job.frames()]


@pytest.fixture
def fake_main() -> Iterator[Callable[..., FakeMain]]:
    """Makes executors that run until the test ends."""
    made: list[FakeMain] = []

    def make(adapter: Adapter | None = None, **settings: Any) -> FakeMain:
        made.append(FakeMain(adapter, **settings).__enter__())
        return made[-1]

    yield make
    for main in made:
        main.__exit__()


class Tools(Adapter):
    """Tools that show what a lane does; their events belong to one worker."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.produced = 0
        self.closed = threading.Event()

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def fail(self, text: str) -> None:
        raise ValueError(text)

    @tool
    def wait(self) -> str:
        """Blocks until the gate is opened."""
        self.entered.set()
        wait_for(self.gate)
        return "done"

    @tool
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @tool
    def fail_after(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise ValueError("no more")

    @tool
    def endless(self, size: int) -> Iterator[bytes]:
        """Items without end; tells how many, and when it was closed."""
        try:
            while True:
                self.produced += 1
                self.entered.set()
                yield bytes(size)
        finally:
            self.closed.set()


class Worker:
    """A served executor, and lanes to it."""

    def __init__(self, socket_path: Path, adapter: Adapter) -> None:
        self.adapter: Any = adapter
        self.main = FakeMain(adapter)
        self.server: WorkerServer = serve(
            self.main.executor, socket_path=str(socket_path), token=TOKEN
        )
        self.lanes: list[GrpcLane] = []
        self.lane = self.connect()

    def connect(self, token: str = TOKEN) -> GrpcLane:
        self.lanes.append(GrpcLane(self.server.target, token))
        return self.lanes[-1]

    def frame(self, command: str, streaming: bool = False, **kwargs: Any) -> bytes:
        return self.main.frame(command, kwargs=kwargs, streaming=streaming)

    def __enter__(self) -> Worker:
        self.main.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for lane in self.lanes:
            lane.close()
        if isinstance(self.adapter, Tools):
            self.adapter.gate.set()
        self.main.__exit__()
        self.server.stop(0)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """`Tools`, served over gRPC in this process."""
    with Worker(tmp_path / "w.sock", Tools()) as worker:
        yield worker
