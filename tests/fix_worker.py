"""A worker without a process: executor, servicer and lane, joined as in a real one.

A thread stands in for the worker's main thread. Everything else is the real thing, and the
tests of whole pools hold the two to the same behaviour.
"""

from __future__ import annotations

import itertools
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from fix_timeouts import scaled

from snakepit_mp.adapter import Adapter, tool
from snakepit_mp.lanes.envelope import Call, Kind, Reply, decode_reply, encode_call, outbound
from snakepit_mp.lanes.grpc import GrpcLane
from snakepit_mp.lanes.lane import Lane
from snakepit_mp.lanes.mailbox import MailboxLane, mailbox_of, works_here
from snakepit_mp.lanes.socket import SocketLane
from snakepit_mp.lanes.status import StatusPage
from snakepit_mp.runtime.watcher import Watcher
from snakepit_mp.worker.executor import Executor
from snakepit_mp.worker.mailbox_inbox import MailboxInbox
from snakepit_mp.worker.servicer import WorkerServer, serve
from snakepit_mp.worker.socket_inbox import SocketInbox

if TYPE_CHECKING:
    from snakepit_mp._speedups import Mailbox

__all__ = [
    "Context",
    "FakeMain",
    "GrpcWorker",
    "MailboxWorker",
    "SocketWorker",
    "Worker",
    "fake_main",
    "lane_name",
    "make_worker",
    "wait_for",
    "worker",
]

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

        def record(request_id: int, attempt: int = 1, **facts: Any) -> None:
            note(request_id, attempt, **facts)
            self.notes.append((phase, request_id))

        if phase not in ("taken", "entered", "done"):
            return note

        return record


class FakeMain:
    """An executor whose `run` has a thread of its own; ends with its ``with`` block."""

    def __init__(
        self,
        adapter: Adapter | None,
        make_inbox: Callable[[StatusPage], Any] = lambda page: None,
        **settings: Any,
    ) -> None:
        self.page = StatusPage.create()
        self.inbox = make_inbox(self.page)
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
            inbox=self.inbox,
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

    def frame(self, command: str | None, request_id: int = 7, **call: Any) -> Any:
        body = encode_call(Call(command, **call), allow_pickle=True)
        return outbound(Kind.CALL, request_id, 1, body)

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
    def wait_and_hoard(self, size: int) -> bytes:
        wait_for(self.gate)
        return bytes(size)

    @tool
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @tool
    def fail_after(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise ValueError("no more")

    @tool
    def wait_in_stream(self) -> Iterator[int]:
        yield 0
        self.entered.set()
        wait_for(self.gate)
        yield 1

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
    """An executor that is reached over a lane."""

    main: FakeMain
    lane: Lane

    def __init__(self, folder: Path, adapter: Adapter) -> None:
        self.adapter: Any = adapter
        self._numbers = itertools.count(7)

    def frame(self, command: str, streaming: bool = False, **kwargs: Any) -> Any:
        return self.main.frame(command, next(self._numbers), kwargs=kwargs, streaming=streaming)

    def __enter__(self) -> Self:
        self.main.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.lane.close()
        if isinstance(self.adapter, Tools):
            self.adapter.gate.set()
        self.main.__exit__()


class GrpcWorker(Worker):
    """Served over gRPC in this process, to any number of lanes."""

    def __init__(self, folder: Path, adapter: Adapter) -> None:
        super().__init__(folder, adapter)
        self.main = FakeMain(adapter)
        self.server: WorkerServer = serve(
            self.main.executor, socket_path=str(folder / "w.sock"), token=TOKEN
        )
        self.lanes: list[GrpcLane] = []
        self.lane = self.connect()

    def connect(self, token: str = TOKEN) -> GrpcLane:
        self.lanes.append(GrpcLane(self.server.target, token))
        return self.lanes[-1]

    def __exit__(self, *_: object) -> None:
        for lane in self.lanes:
            lane.close()
        super().__exit__()
        self.server.stop(0)


class SocketWorker(Worker):
    """Reached over a socket pair, whose other end its main thread has."""

    def __init__(self, folder: Path, adapter: Adapter) -> None:
        super().__init__(folder, adapter)
        ours, self.theirs = socket.socketpair()
        self.main = FakeMain(adapter, make_inbox=self.make_inbox)
        self.reactor = Watcher("reactor", lambda error: None)
        self.reactor.start()
        self.lane = self.make_lane(ours)

    def make_lane(self, sock: socket.socket) -> SocketLane:
        return SocketLane(sock, self.reactor)

    def make_inbox(self, page: StatusPage) -> SocketInbox:
        return SocketInbox(self.theirs)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.reactor.stop()
        assert self.reactor.join(scaled(10))
        self.main.inbox.close()


class OwnedByItsMain:
    """The worker's side of a mailbox, which says whose its life is when its main thread asks."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._owned = False

    def own(self) -> None:
        """Not yet: in a test the inbox is made in another thread than the one that reads it."""

    def bell(self) -> int:
        if not self._owned:
            self._mailbox.own()
            self._owned = True
        return self._mailbox.bell()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mailbox, name)


class MailboxWorker(SocketWorker):
    """Reached through a mailbox, whose other side its main thread has."""

    def make_lane(self, sock: socket.socket) -> SocketLane:
        return MailboxLane(sock, self.reactor, mailbox_of(self.main.page.fd))

    def make_inbox(self, page: StatusPage) -> SocketInbox:
        return MailboxInbox(self.theirs, OwnedByItsMain(mailbox_of(page.fd)))  # type: ignore[arg-type]


LANES: dict[str, type[Worker]] = {
    **({"mailbox": MailboxWorker} if works_here() else {}),
    "socket": SocketWorker,
    "grpc": GrpcWorker,
}


@pytest.fixture(params=LANES)
def lane_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Makes workers with `Tools` on the lane that is asked for."""
    with ExitStack() as made:

        def make(name: str) -> Any:
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            return made.enter_context(LANES[name](folder, Tools()))

        yield make


@pytest.fixture
def worker(make_worker: Callable[[str], Any], lane_name: str) -> Any:
    """`Tools`, on each lane in turn."""
    return make_worker(lane_name)
