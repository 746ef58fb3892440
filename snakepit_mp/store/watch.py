"""What has changed since I last looked? An iterator that sleeps until something has."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..values.codec import decode
from .arguments import wait_timeout
from .layout import HIDDEN
from .places import Key, Keys, Place, text
from .raw_store import PyRawStore
from .records import RawVariable

__all__ = ["Change", "Watch"]

#: Seconds between two looks without a bell, which a writer that was killed may not have rung.
_LOOK_EVERY = 0.5

_ABSENT = 0, 0


class Change(NamedTuple):
    """A variable that has another version now, or is gone: then ``value`` is ``None``."""

    name: str
    version: int
    value: Any
    deleted: bool = False


class Watch(Iterator[Change]):
    """Changes of a session's variables from now on; see `SessionStore.watch`.

    Several changes of one variable between two steps are one, with the last value.
    """

    def __init__(
        self,
        raw: PyRawStore,
        keys: Keys,
        place: Place,
        names: Iterable[str] | None,
        timeout: float | None,
    ) -> None:
        self._raw = raw
        self._keys = keys
        self._place = place
        self._wanted = None if names is None else [keys.variable(name) for name in names]
        self._timeout = wait_timeout(timeout)
        self._changes: deque[Change] = deque()
        self._ended = False
        raw.watch(place)
        raw.touch(place)
        #: Number and version of each variable when it was last seen.
        self._known = self._look()

    def __next__(self) -> Change:
        give_up = time.monotonic() + self._timeout
        while not self._changes:
            bell = self._raw.watch(self._place)  # before the look: what comes after it rings
            self._raw.touch(self._place)
            self._notice()
            left = give_up - time.monotonic()
            if self._ended or (not self._changes and left <= 0):
                self._ended = True
                raise StopIteration
            if not self._changes:
                self._raw.wait(self._place, bell, min(left, _LOOK_EVERY))
        return self._changes.popleft()

    def _look(self) -> dict[Key, tuple[int, int]]:
        keys = self._wanted
        if keys is None:
            names = (key for _, key in sorted(self._raw.names(self._place)))
            # By name only: what looks like the id of another one is not meant.
            keys = [
                self._keys.variable(text(name))._replace(other=None)
                for name in names
                if not name.startswith(HIDDEN)
            ]
        return dict(zip(keys, self._raw.versions(self._place, keys), strict=True))

    def _notice(self) -> None:
        """Put what has changed into the line."""
        found = self._look()
        keys = [
            key
            for key in {**self._known, **found}
            if found.get(key, _ABSENT) != self._known.get(key, _ABSENT)
        ]
        if not keys:
            return
        for key, parts in zip(keys, self._raw.variables(self._place, keys), strict=True):
            _, version = self._known.pop(key, _ABSENT)
            if parts is None:
                if version:
                    self._changes.append(Change(key.name, version, None, deleted=True))
                continue
            record = RawVariable.parse(parts)  # newer than what was found, perhaps
            self._known[key] = record.number, record.version
            self._changes.append(Change(key.name, record.version, decode(record.value)))
