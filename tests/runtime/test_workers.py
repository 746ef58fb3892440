"""The table of worker processes, where two threads want to bury the same one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snakepit_mp.config import PoolConfig
from snakepit_mp.core import events
from snakepit_mp.lanes import envelope
from snakepit_mp.lanes.frames import send_frame
from snakepit_mp.runtime.incarnation import Incarnation
from snakepit_mp.runtime.workers import Workers
from snakepit_mp.values import codec


class FakeWatcher:
    """Does at once what it is asked for."""

    def call(self, action: Callable[[], None]) -> None:
        action()

    def release(self, fd: int, close: Callable[[], None]) -> None:
        close()


class FakeDirectory:
    def forget(self, path: str) -> None:
        pass


class FakeDeathbook:
    def died(self, key: tuple[int, int], words: object) -> None:
        pass


class Scene:
    """One worker; ``decide`` is what the brain does when its exit is told."""

    def __init__(self, folder: Path) -> None:
        self.told: list[events.Event] = []
        self.meanwhile: Callable[[], Any] = lambda: None
        self.workers = Workers(
            PoolConfig(),
            FakeDirectory(),  # type: ignore[arg-type]
            FakeWatcher(),  # type: ignore[arg-type]
            FakeDeathbook(),  # type: ignore[arg-type]
            lock=threading.Lock(),
            server=lambda generation: None,
            decide=self.decide,
            attempt_in_hand=lambda worker_id, incarnation: None,
            learn_tools=lambda generation, tools: None,
            bury_server=lambda generation: None,
            apart=lambda action: action(),
            untouched=lambda worker_id, incarnation: False,
        )
        self.incarnation, [theirs] = Incarnation.prepare(
            0, 1, str(folder / "w.sock"), reactor=FakeWatcher(), lane="grpc", spin=0
        )
        self.theirs = theirs
        self.incarnation.pidfd, other = os.pipe()
        os.close(other)
        self.workers._alive[0, 1] = self.incarnation

    def decide(self, event: Callable[[], events.Event]) -> None:
        self.told.append(event())
        self.meanwhile()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.theirs.close()


def test_exit_is_told_once_and_buries(scene: Scene):
    scene.workers.exited((0, 1))
    scene.workers.exited((0, 1))

    assert scene.told == [events.WorkerExited(0, 1, None)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(scene.incarnation.pidfd)


def test_pool_that_breaks_while_an_exit_is_told_closes_what_there_is_once(scene: Scene):
    """Closed twice, the descriptor would be an error in the middle of the breaking."""
    taken: list[Incarnation] = []
    scene.meanwhile = lambda: taken.extend(scene.workers.abort())

    scene.workers.exited((0, 1))

    assert taken == [scene.incarnation]
    os.fstat(scene.incarnation.pidfd)
    scene.workers.close(taken)


def test_why_it_could_not_start_is_heard_though_its_exit_is_noticed_first(scene: Scene):
    why = envelope.encode_error(0, ValueError("no model"), allow_pickle=False)
    send_frame(scene.theirs, codec.encode({"event": "failed", "error": why}))

    scene.workers.exited((0, 1))

    failed, exited = scene.told
    assert isinstance(failed, events.StartFailed)
    assert str(failed.cause) == "no model"
    assert exited == events.WorkerExited(0, 1, None)
