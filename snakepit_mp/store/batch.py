"""How are several variables changed together? Collected first, then written in one step."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

__all__ = ["Batch"]


class _Store(Protocol):
    """What a batch needs of its store."""

    def get_value(self, session_id: str, name: str) -> Any: ...

    def update_variables(
        self, session_id: str, values: Mapping[str, Any], *, atomic: bool = True
    ) -> dict[str, Any]: ...


class Batch:
    """New values for variables of one session: ``with s.batch() as b: b["x"] = 1``.

    All are written at the end of the block, or none, if one does not fit or the block raises.
    The variables must exist. ``versions``: their new ones, after the block.
    """

    def __init__(self, store: _Store, session_id: str) -> None:
        self._store = store
        self._session_id = session_id
        self._values: dict[str, Any] = {}
        self.versions: dict[str, int] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value

    def __getitem__(self, name: str) -> Any:
        """What this batch will write, or the stored value."""
        if name in self._values:
            return self._values[name]
        return self._store.get_value(self._session_id, name)

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        values, self._values = self._values, {}
        if kind is None and values:
            self.versions = self._store.update_variables(self._session_id, values)
