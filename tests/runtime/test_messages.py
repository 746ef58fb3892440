"""Messages arrive as they were sent."""

from __future__ import annotations

import pytest

from snakepit_mp.adapter import Adapter, tool, tools_of
from snakepit_mp.errors import WorkerStartError
from snakepit_mp.runtime.messages import (
    Exited,
    Forked,
    ForkRefused,
    Imported,
    ImportFailed,
    Resumed,
    SpawnRequest,
    Stopped,
    decode_message,
    decode_request,
    encode_message,
    encode_request,
)


class Tools(Adapter):
    @tool(idempotent=True, timeout=3.0)
    def shout(self, text: str = "hi", *, times: int = 1) -> str:
        return text.upper() * times


@pytest.mark.parametrize(
    "message",
    [
        Imported(tools_of(Tools), 1, 2),
        Imported({}, 1, 2),
        Imported(None, 1),
        Forked(1, 2, 3, 4),
        Exited(1, 2, 3, 0, None),
        Exited(1, 2, 3, None, "SIGKILL"),
        Stopped(1, 2, 3, stopped=True),
        Resumed(),
    ],
    ids=repr,
)
def test_messages_arrive_as_they_were_sent(message):
    pidfd = getattr(message, "pidfd", None)
    data = encode_message(message, allow_pickle=False)
    assert decode_message(data, pidfd, allow_pickle=False) == message


@pytest.mark.parametrize("allow_pickle", [True, False])
def test_errors_arrive_as_themselves(allow_pickle):
    for message in (
        ImportFailed(WorkerStartError("why")),
        ForkRefused(1, 2, OSError(11, "Try again")),
    ):
        data = encode_message(message, allow_pickle=allow_pickle)
        again = decode_message(data, None, allow_pickle=allow_pickle)
        assert type(again) is type(message)
        assert type(again.error) is type(message.error)
        assert str(again.error) == str(message.error)


def test_requests_arrive_as_they_were_sent():
    request = SpawnRequest(1, 2, "/run/w1-2.sock", "token")
    assert decode_request(encode_request(request)) == request
