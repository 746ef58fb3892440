"""Does this value fit that variable? Type, constraints and metadata, checked and encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..values import constraints as constraint_sets
from ..values import types
from ..values.codec import decode, encode
from .records import RawVariable

__all__ = ["Facts"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a value must fit, and what goes with it.

    ``identity`` changes when the variable is another one or its constraints were replaced.
    """

    type: str
    constraints: Mapping[str, Any]
    metadata: Mapping[str, Any]
    identity: tuple[int, int] = (0, 0)

    @classmethod
    def given(
        cls,
        type_: Any,
        value: Any,
        constraints: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
    ) -> Facts:
        """The facts of a new variable; ``type_`` ``None`` is told from the value."""
        name = types.infer_type(value) if type_ is None else types.type_name(type_)
        known = constraint_sets.validate_constraints(name, constraints)
        return cls(name, known, dict(metadata or {}))

    @classmethod
    def of(cls, raw: RawVariable) -> Facts:
        """The facts of a stored variable."""
        constraints, metadata = decode(raw.facts) if raw.facts else ({}, {})
        return cls(raw.type, constraints, metadata, raw.identity)

    def under(self, constraints: Mapping[str, Any] | None) -> Facts:
        """The same with other constraints."""
        known = constraint_sets.validate_constraints(self.type, constraints)
        return Facts(self.type, known, self.metadata, self.identity)

    def prepare(self, value: Any, root: str = "value") -> bytes:
        """The encoded value, if it has the type and satisfies the constraints."""
        value = types.coerce(self.type, value)
        constraint_sets.check(self.type, self.constraints, value)
        return encode(value, root=root)

    def encoded(self) -> bytes:
        """What is stored beside the type; nothing for a variable without either."""
        if not self.constraints and not self.metadata:
            return b""
        return encode((dict(self.constraints), dict(self.metadata)), root="metadata")
