"""Errors as statuses: every one of ours has one, and it says whose fault it is."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError

import grpc
import pytest

from snakepit_mp import errors
from snakepit_mp.bridge.status import code_of, details, shown, text_of
from snakepit_mp.errors import SnakepitError

CODES = {
    "INVALID_ARGUMENT": "CodecError ConfigError ConstraintError ConstraintViolation "
    "InvalidArguments VariableTypeError",
    "NOT_FOUND": "SessionNotFound ToolNotFound VariableNotFound",
    "ALREADY_EXISTS": "VariableExists",
    "ABORTED": "VersionConflict",
    "DEADLINE_EXCEEDED": "QueueTimeout TaskTimeout",
    "RESOURCE_EXHAUSTED": "PoolSaturated SessionLimitReached SessionWorkerUnavailable StoreFull",
    "UNAVAILABLE": "CircuitOpen PoolClosed StoreBusy StoreClosed WorkerStartError",
    "INTERNAL": "PoisonTaskError RemoteError StoreMismatch WorkerDied",
}


def _leaves(cls: type[SnakepitError]) -> Iterator[type[SnakepitError]]:
    below = [known for known in cls.__subclasses__() if known.__module__ == errors.__name__]
    for known in below:
        yield from _leaves(known)
    if not below:
        yield cls


def test_the_table_has_every_error() -> None:
    named = {name for names in CODES.values() for name in names.split()}
    assert named == {cls.__name__ for cls in _leaves(SnakepitError)}


@pytest.mark.parametrize(
    ("code", "name"), [(code, name) for code, names in CODES.items() for name in names.split()]
)
def test_codes(code: str, name: str) -> None:
    assert code_of(getattr(errors, name)("why")) is grpc.StatusCode[code]


def test_cancelled() -> None:
    assert code_of(CancelledError()) is grpc.StatusCode.CANCELLED


def test_details_fit_a_header() -> None:
    assert len(details("é" * 5000).encode()) <= 2000
    assert details("a\ud800") == "a?"


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.StoreFull("full"), "full"),
        (ValueError("bad"), "ValueError: bad"),
        (KeyError("k"), "KeyError: 'k'"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (Mute(), "Mute: <the message cannot be shown>"),
    ],
)
def test_text(error: Exception, text: str) -> None:
    assert text_of(error) == text


def test_shown() -> None:
    assert shown("é\ud800") == "é?"


@pytest.mark.parametrize("error", [errors.WorkerDied, errors.PoisonTaskError])
def test_how_a_worker_died_is_told_and_what_it_left_is_not(error):
    assert text_of(error("it died\nits stack:\n  secret")) == "it died"
