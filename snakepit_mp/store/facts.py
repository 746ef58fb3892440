"""Does this value fit that variable? Type, constraints and metadata, checked and encoded."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..values import constraints as constraint_sets
from ..values import types
from ..values.codec import decode, encode
from ..values.validator import PyValidator, Validator
from .allocation import Allocate, encoded
from .places import Allocation
from .records import RawVariable

__all__ = ["Facts"]


@dataclass(frozen=True)
class Facts:
    """What a value must fit, and what goes with it.

    ``identity`` changes when the variable is another one or its constraints were replaced.
    """

    name: str
    type: str
    constraints: Mapping[str, Any]
    metadata: Mapping[str, Any]
    identity: tuple[int, int] = (0, 0)

    @functools.cached_property
    def validator(self) -> PyValidator:
        """What values have to pass; made when the first one comes."""
        return Validator(self.type, self.constraints, self.name)

    @classmethod
    def given(
        cls,
        name: str,
        type_: Any,
        value: Any,
        constraints: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
    ) -> Facts:
        """The facts of a new variable; ``type_`` ``None`` is told from the value."""
        kind = types.infer_type(value) if type_ is None else types.type_name(type_)
        known = constraint_sets.validate_constraints(kind, constraints)
        return cls(name, kind, known, dict(metadata or {}))

    @classmethod
    def of(cls, raw: RawVariable) -> Facts:
        """The facts of a stored variable."""
        constraints, metadata = decode(raw.facts) if raw.facts else ({}, {})
        return cls(raw.name, raw.type, constraints, metadata, raw.identity)

    def under(self, constraints: Mapping[str, Any] | None) -> Facts:
        """The same with other constraints."""
        known = constraint_sets.validate_constraints(self.type, constraints)
        return Facts(self.name, self.type, known, self.metadata, self.identity)

    def prepare(self, value: Any, root: str = "value") -> bytes:
        """The encoded value, if it has the type and satisfies the constraints."""
        return encode(self.validator.prepare(value), root=root)

    def prepare_in(self, value: Any, allocate: Allocate, root: str = "value") -> bytes | Allocation:
        """The same, where it is long in a block of its own."""
        return encoded(self.validator.prepare(value), allocate, root)

    def encoded(self) -> bytes:
        """What is stored beside the type; nothing for a variable without either."""
        if not self.constraints and not self.metadata:
            return b""
        return encode((dict(self.constraints), dict(self.metadata)), root="metadata")
