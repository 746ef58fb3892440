"""How does ``s["x"]`` reach the store? The part of a session's mapping that has to be fast.

The compiled twin remembers where each variable lies, so that a read or a write of a short
value is one call; everything else it leaves to the methods that the mapping defines, as this
one does always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .. import _accel
from .facts import Facts
from .places import Key, Place

if TYPE_CHECKING:
    from .raw_store import PyRawStore

__all__ = ["PyVariableAccess", "VariableAccess"]


class PyVariableAccess:
    """Reads and writes of one session's variables by name.

    A subclass defines `_read`, `_read_many`, `_write` and `_facts`, which do the same for any
    value, and say what is wrong.
    """

    def _bind(self, raw: PyRawStore, place: Place, variable_key: Callable[[str], Key]) -> None:
        """Work on this session from now on; this twin has nothing to remember of it."""

    def __getitem__(self, name: str) -> Any:
        return self._read(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._write(name, value)

    def get_values(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of several variables by name, of one moment.

        Raises as `SessionStore.get_values`.
        """
        return self._read_many(list(names))

    def _update(self, values: dict[str, Any]) -> dict[str, int] | None:
        """New versions by name, in one step; ``None`` where that is not quick."""
        return None

    def _read(self, name: str) -> Any:
        """The value of a variable."""
        raise NotImplementedError

    def _read_many(self, names: list[str]) -> dict[str, Any]:
        """The values of several variables, of one moment."""
        raise NotImplementedError

    def _write(self, name: str, value: Any) -> None:
        """Give a variable a value, or register it."""
        raise NotImplementedError

    def _facts(self, name: str) -> Facts | None:
        """What a variable takes, ``None`` where there is none."""
        raise NotImplementedError


if TYPE_CHECKING:
    VariableAccess = PyVariableAccess
else:
    VariableAccess = getattr(_accel.speedups, "VariableAccess", PyVariableAccess)
