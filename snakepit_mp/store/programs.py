"""Where do named values live that are not variables? Programs, in a session or in the store.

They are variables whose key no name can have: listed and counted by themselves, without
type, constraints and history. Those of the store belong to a session that is never shown.
"""

from __future__ import annotations

import functools
from typing import Any

from ..errors import VariableExists, VariableNotFound
from ..values.codec import encode
from . import faults, listing
from .arguments import name_of
from .janitor import Sweeper
from .places import Key, Keys, NewVariable, Place, Update
from .raw_store import PyRawStore

__all__ = ["Programs"]

_TYPE = b"any"


class Programs:
    """The programs of a store. ``session_id`` ``None`` means those that belong to no session."""

    def __init__(self, raw: PyRawStore, keys: Keys, room: Sweeper) -> None:
        self._raw = raw
        self._keys = keys
        self._room = room

    def put(self, session_id: str | None, name: str, value: Any) -> int:
        """Store a program, in the place of one of that name; its version, 1 for a new one."""
        place, key = self._place(session_id), self._key(name)
        data = encode(value)
        while True:
            version = self._room.with_room(functools.partial(self._put, place, key, data))
            if version is not None:
                return version

    def _put(self, place: Place, key: Key, data: bytes) -> int | None:
        """The new version; ``None`` where somebody else was faster."""
        [(number, _)] = self._raw.versions(place, [key])
        try:
            if number == 0:
                self._raw.register(place, key, NewVariable(_TYPE, data, b""), False)
                return 1
            done = self._raw.write(place, [Update(key, data, number, 0)])
        except (VariableExists, VariableNotFound):
            return None
        return None if done is None else done[0]

    def get(self, session_id: str | None, name: str) -> Any:
        """The program. Raises `VariableNotFound`."""
        try:
            return self._raw.value(self._place(session_id), self._key(name))
        except VariableNotFound:
            raise faults.program_not_found(session_id, name) from None

    def names(self, session_id: str | None, pattern: str) -> list[str]:
        """Those that match a glob, in the order of creation."""
        return listing.program_names(self._raw, self._place(session_id), pattern)

    def delete(self, session_id: str | None, name: str) -> None:
        """Remove it. Raises `VariableNotFound`."""
        try:
            self._raw.delete_variable(self._place(session_id), self._key(name))
        except VariableNotFound:
            raise faults.program_not_found(session_id, name) from None

    def _place(self, session_id: str | None) -> Place:
        if session_id is None:
            return self._keys.hidden_place()
        return self._keys.place(name_of("session id", session_id))

    def _key(self, name: str) -> Key:
        return self._keys.program(name_of("program name", name))
