"""What is a session, what is a variable? The dataclasses, and the records they come from.

A record is a block of words: a fixed part, then the bytes of its names. What never changes
after creation is written before the record is reachable; the rest changes through the log,
save what `layout` names. A copy of a record has its header, so its words are where `layout`
says.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import faults
from .blocks import words_for
from .layout import HIDDEN, INLINE_BYTES, R_NAME, SMALL_HEADER, V_NAME, WORD
from .places import VariableParts, text

__all__ = [
    "RawSession",
    "RawVariable",
    "SessionInfo",
    "Variable",
    "padded",
    "seconds",
    "session_record",
    "variable_record",
]

_SECOND = 10**9
_LOW = (1 << 32) - 1

#: Hash, TTL, accessed, created, table (3), worker, lengths, programs, watched, number.
_SESSION = struct.Struct(f"={V_NAME - SMALL_HEADER}Q")
#: Hash, number, version, created, updated, facts, their version, lengths, value, its length,
#: the value itself (4), history.
_VARIABLE = struct.Struct(f"={R_NAME - SMALL_HEADER}Q")
_HEADER = SMALL_HEADER * WORD


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What is known of a session at one moment. Times are seconds since the epoch.

    ``ttl``: seconds of life after the last use, ``None`` for ever. ``last_accessed``: to the
    second, or an eighth of the TTL where that is less. ``last_worker_id``: the worker that ran
    the session's last call, ``None`` before the first.
    """

    id: str
    metadata: Mapping[str, Any]
    ttl: float | None
    created_at: float
    last_accessed: float
    variable_count: int
    program_count: int
    last_worker_id: int | None


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable at one moment. Times are seconds since the epoch; versions start at 1."""

    id: str
    name: str
    type: str
    value: Any
    constraints: Mapping[str, Any]
    metadata: Mapping[str, Any]
    version: int
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class RawSession:
    """A session's record, understood."""

    key: bytes
    metadata: bytes
    ttl: int
    accessed: int
    created: int
    variables: int
    programs: int
    worker: int
    number: int

    @classmethod
    def parse(cls, record: bytes) -> RawSession:
        fixed = _fixed(_SESSION, record)
        _, ttl, accessed, created, _, _, live, worker, lengths, programs, _, number = fixed
        key, metadata = _names(record, V_NAME, lengths)
        return cls(key, metadata, ttl, accessed, created, live - programs, programs, worker, number)

    @property
    def name(self) -> str:
        return text(self.key)

    @property
    def hidden(self) -> bool:
        """Whether it holds the programs that belong to no session."""
        return self.key.startswith(HIDDEN)


@dataclass(frozen=True, slots=True)
class RawVariable:
    """A variable's record, understood, with its facts and its encoded value."""

    key: bytes
    type: str
    number: int
    version: int
    created: int
    updated: int
    facts: bytes
    facts_version: int
    value: bytes

    @classmethod
    def parse(cls, parts: VariableParts) -> RawVariable:
        fixed = _fixed(_VARIABLE, parts.record)
        _, number, version, created, updated, _, facts_version, lengths, *_ = fixed
        key, type_ = _names(parts.record, R_NAME, lengths)
        return cls(
            key=key,
            type=text(type_),
            number=number,
            version=version,
            created=created,
            updated=updated,
            facts=parts.facts,
            facts_version=facts_version,
            value=parts.value,
        )

    @property
    def name(self) -> str:
        return text(self.key.removeprefix(HIDDEN))

    @property
    def is_program(self) -> bool:
        return self.key.startswith(HIDDEN)

    @property
    def identity(self) -> tuple[int, int]:
        """Equal while it is the same variable under the same constraints."""
        return self.number, self.facts_version

    @property
    def id(self) -> str:
        return f"var_{self.name}_{self.number}"


def seconds(nanoseconds: int) -> float:
    return nanoseconds / _SECOND


def padded(data: bytes) -> bytes:
    """The same in whole words."""
    return data.ljust(words_for(len(data)) * WORD, b"\0")


def session_record(
    key: bytes, metadata: bytes, *, digest: int, number: int, ttl: int, now: int, wall: int
) -> bytes:
    """The payload of a new session's block; ``ttl`` 0 means for ever; nanoseconds."""
    lengths = len(key) | len(metadata) << 32
    fixed = _SESSION.pack(digest, ttl, now, wall, 0, 0, 0, 0, lengths, 0, 0, number)
    return fixed + padded(key) + metadata


def variable_record(
    key: bytes,
    type_: bytes,
    value: bytes,
    *,
    digest: int,
    number: int,
    wall: int,
    facts: int,
    block: int,
    history: int,
) -> bytes:
    """The payload of a new variable's block; ``value`` lies in it unless it has a ``block``."""
    inline = b"" if block else value
    words = memoryview(inline.ljust(INLINE_BYTES, b"\0")).cast("Q")
    lengths = len(key) | len(type_) << 32
    fixed = _VARIABLE.pack(
        digest, number, 1, wall, wall, facts, 0, lengths, block, len(value), *words, history
    )
    return fixed + padded(key) + type_


def _fixed(layout: struct.Struct, record: bytes) -> tuple[int, ...]:
    if len(record) < _HEADER + layout.size:
        raise faults.damaged("a record is too short")
    return layout.unpack_from(record, _HEADER)


def _names(record: bytes, word: int, lengths: int) -> tuple[bytes, bytes]:
    """The two texts from a word on; the second begins with a word of its own."""
    first, second = lengths & _LOW, lengths >> 32
    start = word * WORD
    middle = start + words_for(first) * WORD
    if middle + second > len(record):
        raise faults.damaged("a record is shorter than its names")
    return record[start : start + first], record[middle : middle + second]
