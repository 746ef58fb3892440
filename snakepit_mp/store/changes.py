"""How does a variable get a new value? Checked and encoded first, then written in one step.

A value is checked against what is known of its variable, outside of any lock; the write says
what it was checked against, and where that is no longer so, all of it is done again.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ..errors import SessionNotFound, SnakepitError
from ..values.codec import decode
from . import faults, shown
from .facts import Facts
from .janitor import Sweeper
from .places import Key, Keys, Place, Update
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
        data = None
        if facts is not None:
            try:
                data = facts.prepare(value)
            except SnakepitError:
                pass  # perhaps only by what was known: the true facts decide
        if facts is None or data is None:
            facts = Facts.of(self.read(place, key))
            self._remember(place, name, facts)
            data = facts.prepare(value)
        return Update(key, data, *facts.identity, self._wanted(place, key, expected))

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
