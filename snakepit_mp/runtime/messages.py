"""What do the application and its fork server say to each other?

First the plan (`ForkPlan`), with descriptors of the application and of its store; then spawn
requests one way and notices the other, encoded without pickle. The end of the application's
stream is the order to end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..adapter import ToolSpec
from ..lanes import envelope
from ..values import codec

__all__ = [
    "Exited",
    "ForkRefused",
    "Forked",
    "ImportFailed",
    "Imported",
    "Resumed",
    "ServerMessage",
    "SpawnRequest",
    "Stopped",
    "decode_message",
    "decode_request",
    "encode_message",
    "encode_request",
]


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """Fork this worker; its channel, status page and, but for gRPC, lane come as descriptors."""

    worker_id: int
    incarnation: int
    socket_path: str
    token: str


@dataclass(frozen=True, slots=True)
class Imported:
    """The adapter is imported; ``tools`` is ``None`` if the workers will import it.

    ``pid`` is the fork server's own; ``pidfd``, the receiver's to close, becomes readable at
    its exit, before those of its workers.
    """

    tools: Mapping[str, ToolSpec] | None
    pid: int
    pidfd: int = -1


@dataclass(frozen=True, slots=True)
class ImportFailed:
    """The server cannot fork any worker, ever, and ends."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Forked:
    """The worker exists; ``pidfd``, the receiver's to close, becomes readable at its exit."""

    worker_id: int
    incarnation: int
    pid: int
    pidfd: int


@dataclass(frozen=True, slots=True)
class ForkRefused:
    """This one request failed; the server goes on."""

    worker_id: int
    incarnation: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker ended, by ``exit_code`` or by ``signal`` (its name), and was reaped.

    ``oom``: the kernel has killed for want of memory just then. ``peak_rss``: in bytes.
    """

    worker_id: int
    incarnation: int
    pid: int
    exit_code: int | None
    signal: str | None
    oom: bool = False
    peak_rss: int | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """The worker was stopped by a signal, or continued (``stopped`` false)."""

    worker_id: int
    incarnation: int
    pid: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """The server itself had been stopped by a signal, and was continued."""


ServerMessage = Imported | ImportFailed | Forked | ForkRefused | Exited | Stopped | Resumed

_MESSAGES: dict[str, type[ServerMessage]] = {
    cls.__name__: cls
    for cls in (Imported, ImportFailed, Forked, ForkRefused, Exited, Stopped, Resumed)
}


def encode_request(request: SpawnRequest) -> bytes:
    return codec.encode(_facts(request))


def decode_request(data: bytes) -> SpawnRequest:
    return SpawnRequest(**codec.decode(data))


def encode_message(message: ServerMessage, *, allow_pickle: bool) -> bytes:
    """Without the descriptor of `Imported` or `Forked`; ``allow_pickle`` is for errors."""
    facts = _facts(message)
    facts.pop("pidfd", None)
    if isinstance(message, (ImportFailed, ForkRefused)):
        facts["error"] = envelope.encode_error(0, message.error, allow_pickle=allow_pickle)
    elif isinstance(message, Imported) and message.tools is not None:
        facts["tools"] = {name: spec.to_dict() for name, spec in message.tools.items()}
    return codec.encode((type(message).__name__, facts))


def decode_message(data: bytes, pidfd: int | None, *, allow_pickle: bool) -> ServerMessage:
    """The message; ``pidfd`` came with it and belongs to it."""
    kind, facts = codec.decode(data)
    if "error" in facts:
        facts["error"] = envelope.decode_reply(facts["error"], allow_pickle=allow_pickle).error
    if pidfd is not None:
        facts["pidfd"] = pidfd
    if facts.get("tools") is not None:
        facts["tools"] = {name: ToolSpec.from_dict(spec) for name, spec in facts["tools"].items()}
    return _MESSAGES[kind](**facts)


def _facts(message: SpawnRequest | ServerMessage) -> dict[str, Any]:
    return {each.name: getattr(message, each.name) for each in fields(message)}
