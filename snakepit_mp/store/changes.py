"""How does a variable get a new value? Checked and encoded first, then written in one step.

A value is checked against what is known of its variable, outside of any lock; the write says
what it was checked against, and where that is no longer so, all of it is done again.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import (
    SessionNotFound,
    SnakepitError,
    StoreError,
    VariableTypeError,
    VersionConflict,
)
from ..values.codec import decode
from . import faults, shown
from .allocation import settle
from .facts import Facts
from .janitor import Sweeper
from .places import Allocation, Key, Keys, Place, Update
from .raw_store import PyRawStore
from .records import RawVariable, Variable

__all__ = ["Changes"]

_FACTS_KEPT = 4_096
#: A version that no variable ever reaches.
_NO_VERSION = 1 << 63


class Changes:
    """Writes to the variables of a store. ``room``: what makes some where there is none."""

    def __init__(self, raw: PyRawStore, keys: Keys, room: Sweeper) -> None:
        self._raw = raw
        self._keys = keys
        self._room = room
        self._facts: dict[tuple[str, str], Facts] = {}

    def update(
        self, place: Place, values: Mapping[str, Any], expected: Mapping[str, int | None]
    ) -> dict[str, int]:
        """Give variables new values in one step; their new versions."""
        while True:
            updates = [
                self._prepare(place, name, value, expected.get(name))
                for name, value in values.items()
            ]
            done = self._room.with_room(functools.partial(self._raw.write, place, updates))
            if done is not None:
                for value in values.values():
                    settle(value)
                return dict(zip(values, done, strict=True))
            for name in values:  # somebody replaced a variable or its constraints: check again
                self._facts.pop((place.name, name), None)

    def outcome(self, place: Place, name: str, value: Any) -> int | SnakepitError:
        """The new version of one variable, or why it has none."""
        try:
            return self.update(place, {name: value}, {})[name]
        except SessionNotFound:
            raise
        except SnakepitError as error:
            return error

    def _prepare(self, place: Place, name: str, value: Any, expected: int | None) -> Update:
        """Check and encode a value against what is known of its variable."""
        key = self._keys.variable(name)
        facts = self._facts.get((place.name, name))
        data: bytes | Allocation | None = None
        if facts is not None:
            try:
                data = facts.prepare_in(value, self.allocate)
            except SnakepitError:
                pass  # perhaps only by what was known: the true facts decide
        if facts is None or data is None:
            facts = Facts.of(self.read(place, key))
            self._remember(place, name, facts)
            data = facts.prepare_in(value, self.allocate)
        return Update(key, data, *facts.identity, self._wanted(place, key, expected))

    def allocate(self, size: int) -> Allocation | None:
        """A block of a value's own, or ``None``. Raises `StoreFull`."""
        return self._room.with_room(functools.partial(self._raw.allocate, size))

    def facts(self, place: Place, name: str) -> Facts:
        """What a variable takes now."""
        facts = Facts.of(self.read(place, self._keys.variable(name)))
        self._remember(place, name, facts)
        return facts

    def _remember(self, place: Place, name: str, facts: Facts) -> None:
        if len(self._facts) >= _FACTS_KEPT:
            self._facts.clear()
        self._facts[place.name, name] = facts

    def _wanted(self, place: Place, key: Key, expected: int | None) -> int:
        """The version that a variable must have, 0 for any."""
        if expected is None:
            return 0
        if not 0 < expected < _NO_VERSION:  # it never had that one
            raise faults.version_conflict(place, key, self._version(place, key), expected)
        return expected

    def _version(self, place: Place, key: Key) -> int:
        [(_, version)] = self._raw.versions(place, [key])
        if version == 0:
            raise faults.variable_not_found(place, key)
        return version

    def read(self, place: Place, key: Key) -> RawVariable:
        """The variable as it is now."""
        return RawVariable.parse(self._raw.variable(place, key))

    def constrain(self, place: Place, key: Key, constraints: Mapping[str, Any] | None) -> Variable:
        """Replace a variable's constraints, which its value must satisfy."""
        while True:
            seen = self.read(place, key)
            facts = Facts.of(seen).under(constraints)
            facts.prepare(decode(seen.value))
            attempt = functools.partial(
                self._raw.constrain, place, key, *seen.identity, seen.version, facts.encoded()
            )
            if self._room.with_room(attempt):
                return shown.variable(seen, facts)

    # By what was there before: done again where somebody else was faster.

    def apply(self, place: Place, key: Key, change: Callable[[Any], Any]) -> Any:
        """Put what ``change`` makes of the value in its place; the new value as it is stored."""
        while True:
            seen = self.read(place, key)
            facts = self._facts_of(place, key, seen)
            data = facts.prepare(change(decode(seen.value)))
            if self._replaced(place, key, seen, seen.version, data):
                return decode(data)

    def increment(self, place: Place, key: Key, by: Any) -> Any:
        """Add to a number; the new value."""

        def added(value: Any) -> Any:
            if not (_is_number(value) and _is_number(by)):
                raise VariableTypeError(
                    f"variable {key.name!r} is {type(value).__name__}, and cannot be "
                    f"incremented by {type(by).__name__}: both must be numbers",
                    variable=key.name,
                    value=by,
                )
            try:
                return value + by
            except TypeError as error:  # Decimal and float, for one
                raise VariableTypeError(
                    f"variable {key.name!r}: {error}", variable=key.name, value=by
                ) from error

        return self.apply(place, key, added)

    def compare_and_set(self, place: Place, key: Key, expected: Any, value: Any) -> bool:
        """Write ``value`` if the variable's is the expected one; whether it was."""
        while True:
            seen = self.read(place, key)
            facts = self._facts_of(place, key, seen)
            data = facts.prepare(value)
            if not _is_value(seen.value, expected, facts):
                return False
            if self._replaced(place, key, seen, seen.version, data):
                return True

    def roll_back(self, place: Place, key: Key, version: int) -> int:
        """Write an old value once more; its new version."""
        while True:
            seen = self.read(place, key)
            kept = self._raw.history(place, key)
            current = kept[0][0]
            data = next((data for known, _, data in kept if known == version), None)
            if data is None:
                known = [known for known, _, _ in kept]
                raise faults.version_not_kept(place, key, version, known, current)
            data = self._facts_of(place, key, seen).prepare(decode(data))
            if done := self._replaced(place, key, seen, current, data):
                return done

    def _facts_of(self, place: Place, key: Key, seen: RawVariable) -> Facts:
        known = self._facts.get((place.name, key.name))
        if known is None or known.identity != seen.identity:
            known = Facts.of(seen)
            self._remember(place, key.name, known)
        return known

    def _replaced(
        self, place: Place, key: Key, seen: RawVariable, version: int, data: bytes
    ) -> int | None:
        """The new version, or ``None`` where the variable is not as it was seen."""
        update = Update(key, data, *seen.identity, version)
        try:
            done = self._room.with_room(functools.partial(self._raw.write, place, [update]))
        except VersionConflict:
            return None
        return None if done is None else done[0]


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Number) and not isinstance(value, bool)


def _is_value(data: bytes, expected: Any, facts: Facts) -> bool:
    """Whether ``data`` is the encoded ``expected``, of the same type and all."""
    try:
        wanted = facts.prepare(expected)
    except StoreError:
        return False  # the variable can never have this value
    if wanted == data:
        return True
    value, known = decode(wanted), decode(data)
    # The order in which they were filled says nothing.
    return type(value) is type(known) in (dict, set, frozenset) and _are_equal(value, known)


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except ValueError:  # arrays inside, which have no truth
        return False
