"""How are sessions and variables addressed, and what goes in and out of the twins? Plain tuples."""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple, Protocol

from . import faults
from .layout import HIDDEN, STRIPE_COUNT

__all__ = [
    "Allocation",
    "Key",
    "Keys",
    "Limits",
    "NewVariable",
    "Place",
    "Update",
    "VariableParts",
    "digest_of",
    "text",
]

_KEPT = 16_384
#: Digits of a number that surely fits a word.
_LONGEST_NUMBER = 18


class Limits(NamedTuple):
    """What a store may hold; see `StoreConfig`."""

    max_bytes: int
    max_sessions: int
    max_variables: int


class Place(NamedTuple):
    """Where a session is looked for, whether it exists or not."""

    name: str
    key: bytes
    digest: int
    stripe: int


class Key(NamedTuple):
    """A variable's name in a session.

    ``number``: it must be the variable of that number; 0 is any. ``other``: what to look for
    where there is none of that name, since the name may be an id.
    """

    name: str
    key: bytes
    digest: int
    number: int = 0
    other: Key | None = None


class Allocation(Protocol):
    """A block that its maker fills before it becomes a value; the compiled twin has them."""

    @property
    def nbytes(self) -> int: ...

    @property
    def stored(self) -> bool: ...

    def __buffer__(self, flags: int, /) -> memoryview: ...


class NewVariable(NamedTuple):
    """What a variable is registered with, encoded; ``history``: old values to keep."""

    type: bytes
    data: bytes | Allocation
    facts: bytes
    history: int = 0


class Update(NamedTuple):
    """A new value for the variable that was checked: by its number and version of facts.

    ``expected``: the version it must have, 0 is any.
    """

    key: Key
    data: bytes | Allocation
    number: int
    facts_version: int
    expected: int = 0


class VariableParts(NamedTuple):
    """Copies of all that belongs to a variable: its record, facts and value."""

    record: bytes
    facts: bytes
    value: bytes


def digest_of(seed: bytes, key: bytes) -> int:
    """The 64-bit hash of a name; keyed, so that nobody can choose names that collide."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, key=seed).digest(), "little")


def _bytes_of(name: str) -> bytes:
    """A name as bytes; every ``str`` has them, lone surrogates included."""
    if not isinstance(name, str):
        raise TypeError(f"a name must be a str, not {type(name).__name__}")
    return name.encode("utf-8", "surrogatepass")


def _number_in(identifier: str) -> tuple[str, int] | None:
    """The name and number in a variable's id, ``None`` where it does not look like one."""
    name, underscore, number = identifier.removeprefix("var_").rpartition("_")
    if not underscore or not identifier.startswith("var_"):
        return None
    if len(number) > _LONGEST_NUMBER or not (number.isascii() and number.isdigit()):
        return None
    return (name, int(number)) if number == str(int(number)) else None


class Keys:
    """Makes places and keys for one segment, and remembers those that were made lately."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self.place = functools.lru_cache(_KEPT)(self._place)
        self.variable = functools.lru_cache(_KEPT)(self._variable)

    def _place(self, name: str) -> Place:
        return self._place_of(name, _bytes_of(name))

    def hidden_place(self) -> Place:
        """The session of the programs that belong to none."""
        return self._place_of("", HIDDEN)

    def _place_of(self, name: str, key: bytes) -> Place:
        digest = digest_of(self._seed, key)
        return Place(name, key, digest, digest % STRIPE_COUNT)

    def _variable(self, name: str) -> Key:
        found = self._key(name, _bytes_of(name))
        parts = _number_in(name)
        if parts is None:
            return found
        other = self._key(parts[0], _bytes_of(parts[0]))._replace(number=parts[1])
        return found._replace(other=other)

    def program(self, name: str) -> Key:
        """The key of a program."""
        return self._key(name, HIDDEN + _bytes_of(name))

    def _key(self, name: str, key: bytes) -> Key:
        return Key(name, key, digest_of(self._seed, key))


def text(name: bytes) -> str:
    """A key of a session or variable as a name."""
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise faults.damaged("a name is no text") from error
