"""What is a session, what is a variable? The dataclasses, and the records they come from.

A record is a block of words: a fixed part, then the bytes of its names. What never changes
after creation is written before the record is reachable; the rest changes through the log,
save two stamps that are single words (`ACCESSED`, `WORKER`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import table
from .segment import WORD, Segment

__all__ = [
    "RawSession",
    "RawVariable",
    "SessionInfo",
    "Variable",
    "inline_words",
    "is_session",
    "is_variable",
    "key",
    "number_in",
    "read_block",
    "read_value",
    "seconds",
    "session_name",
    "session_record",
    "text",
    "variable_name",
    "variable_record",
]

#: Words of a session's record, from its block on.
TTL, ACCESSED, CREATED, VARIABLES, WORKER = 3, 4, 5, 6, 9
_SESSION_LENGTHS, _SESSION_NAMES = 10, 11

#: Words of a variable's record, from its block on.
NUMBER, VERSION, CREATED_AT, UPDATED, FACTS, FACTS_VERSION = 3, 4, 5, 6, 7, 8
_VARIABLE_LENGTHS, VALUE, VALUE_LENGTH, INLINE = 9, 10, 11, 12
INLINE_WORDS = 6
#: Longest encoded value that lives in the record itself.
INLINE_BYTES = INLINE_WORDS * WORD
_VARIABLE_NAMES = INLINE + INLINE_WORDS

_SECOND = 10**9
_LOW = (1 << 32) - 1

_HEADER = 2  # a block's own words, which come before the payload


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What is known of a session at one moment. Times are seconds since the epoch.

    ``ttl``: seconds of life after the last use, ``None`` for ever. ``last_worker_id``: the
    worker that ran the session's last call, ``None`` before the first.
    """

    id: str
    metadata: Mapping[str, Any]
    ttl: float | None
    created_at: float
    last_accessed: float
    variable_count: int
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
    """A copy of a session's record, to be understood when the lock is no longer held."""

    name: str
    metadata: bytes
    ttl: int
    accessed: int
    created: int
    variables: int
    worker: int

    @classmethod
    def read(cls, segment: Segment, record: int) -> RawSession:
        words = segment.words
        lengths = words[record + _SESSION_LENGTHS]
        name = segment.read(record + _SESSION_NAMES, lengths & _LOW)
        start = record + _SESSION_NAMES + _words_of(lengths & _LOW)
        return cls(
            name=text(name),
            metadata=segment.read(start, lengths >> 32),
            ttl=words[record + TTL],
            accessed=words[record + ACCESSED],
            created=words[record + CREATED],
            variables=words[record + VARIABLES + table.LIVE],
            worker=words[record + WORKER],
        )


@dataclass(frozen=True, slots=True)
class RawVariable:
    """A copy of a variable's record and value."""

    name: str
    type: str
    number: int
    version: int
    created: int
    updated: int
    facts: bytes
    facts_version: int
    value: bytes

    @classmethod
    def read(cls, segment: Segment, record: int) -> RawVariable:
        words = segment.words
        lengths = words[record + _VARIABLE_LENGTHS]
        name_start = record + _VARIABLE_NAMES
        type_start = name_start + _words_of(lengths & _LOW)
        facts = words[record + FACTS]
        return cls(
            name=text(segment.read(name_start, lengths & _LOW)),
            type=text(segment.read(type_start, lengths >> 32)),
            number=words[record + NUMBER],
            version=words[record + VERSION],
            created=words[record + CREATED_AT],
            updated=words[record + UPDATED],
            facts=read_block(segment, facts) if facts else b"",
            facts_version=words[record + FACTS_VERSION],
            value=read_value(segment, record),
        )

    @property
    def identity(self) -> tuple[int, int]:
        """Equal while it is the same variable under the same constraints."""
        return self.number, self.facts_version

    @property
    def id(self) -> str:
        return f"var_{self.name}_{self.number}"


def key(name: str) -> bytes:
    """A name as bytes; every ``str`` has them, lone surrogates included."""
    return name.encode("utf-8", "surrogatepass")


def text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def number_in(identifier: str) -> tuple[str, int] | None:
    """The name and number in a variable's id, ``None`` where it does not look like one."""
    name, underscore, number = identifier.removeprefix("var_").rpartition("_")
    if not underscore or not identifier.startswith("var_"):
        return None
    return (name, int(number)) if number.isascii() and number.isdigit() else None


def seconds(nanoseconds: int) -> float:
    return nanoseconds / _SECOND


def is_session(segment: Segment, record: int, name: bytes) -> bool:
    """Whether a session's record bears this name."""
    length = segment.words[record + _SESSION_LENGTHS] & _LOW
    return length == len(name) and segment.read(record + _SESSION_NAMES, length) == name


def is_variable(segment: Segment, record: int, name: bytes) -> bool:
    """Whether a variable's record bears this name."""
    length = segment.words[record + _VARIABLE_LENGTHS] & _LOW
    return length == len(name) and segment.read(record + _VARIABLE_NAMES, length) == name


def session_name(segment: Segment, record: int) -> bytes:
    length = segment.words[record + _SESSION_LENGTHS] & _LOW
    return segment.read(record + _SESSION_NAMES, length)


def variable_name(segment: Segment, record: int) -> bytes:
    length = segment.words[record + _VARIABLE_LENGTHS] & _LOW
    return segment.read(record + _VARIABLE_NAMES, length)


def read_block(segment: Segment, block: int) -> bytes:
    """A private copy of a block's payload."""
    return segment.read(block + _HEADER, segment.words[block + 1] & (1 << 56) - 1)


def read_value(segment: Segment, record: int) -> bytes:
    """A private copy of a variable's encoded value."""
    block = segment.words[record + VALUE]
    if block:
        return read_block(segment, block)
    return segment.read(record + INLINE, segment.words[record + VALUE_LENGTH])


def inline_words(data: bytes) -> list[int]:
    """A short encoded value as the words that hold it."""
    padded = data.ljust(_words_of(len(data)) * WORD, b"\0")
    return memoryview(padded).cast("Q").tolist() if padded else []


def session_record(
    name: bytes, metadata: bytes, *, digest: int, ttl: int, now: int, wall: int
) -> bytes:
    """The payload of a new session's block; ``ttl`` 0 means for ever; nanoseconds."""
    words = [0] * (_SESSION_NAMES - _HEADER)
    words[table.HASH - _HEADER] = digest
    words[TTL - _HEADER] = ttl
    words[ACCESSED - _HEADER] = now
    words[CREATED - _HEADER] = wall
    words[_SESSION_LENGTHS - _HEADER] = len(name) | len(metadata) << 32
    return _packed(words, name, metadata)


def variable_record(
    name: bytes,
    type_: bytes,
    value: bytes,
    *,
    block: int,
    digest: int,
    number: int,
    wall: int,
    facts: int,
) -> bytes:
    """The payload of a new variable's block; ``value`` lies in it unless it has a ``block``."""
    words = [0] * (_VARIABLE_NAMES - _HEADER)
    words[table.HASH - _HEADER] = digest
    words[NUMBER - _HEADER] = number
    words[VERSION - _HEADER] = 1
    words[CREATED_AT - _HEADER] = wall
    words[UPDATED - _HEADER] = wall
    words[FACTS - _HEADER] = facts
    words[_VARIABLE_LENGTHS - _HEADER] = len(name) | len(type_) << 32
    words[VALUE - _HEADER] = block
    words[VALUE_LENGTH - _HEADER] = len(value)
    if not block:
        inline = inline_words(value)
        words[INLINE - _HEADER : INLINE - _HEADER + len(inline)] = inline
    return _packed(words, name, type_)


def _words_of(length: int) -> int:
    return -(-length // WORD)


def _packed(words: list[int], first: bytes, second: bytes) -> bytes:
    fixed = bytearray(len(words) * WORD)
    view = memoryview(fixed).cast("Q")
    for index, word in enumerate(words):
        view[index] = word
    return bytes(fixed) + first.ljust(_words_of(len(first)) * WORD, b"\0") + second
