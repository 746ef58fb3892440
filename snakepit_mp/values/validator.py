"""Does a value fit a variable? The one check of the application, of workers and of the bridge.

A `Validator` is made once for a variable, and then tells in a moment what most writes need to
know. The compiled twin decides bounds and lengths itself and leaves everything else, every
error among them, to the pure one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import _accel
from ..errors import ConstraintViolation, VariableTypeError
from .coercion import coerce
from .constraints import check, checks_of
from .shown import shorten

__all__ = ["PyValidator", "Validator"]


class PyValidator:
    """What a variable of one type and one set of constraints takes.

    ``kind``: a name in `types.TYPES`. ``constraints``: in the normal form of
    `constraints.validate_constraints`. ``variable``: its name, for the errors.
    """

    __slots__ = ("_checks", "_dtype", "_kind", "_nullable", "_variable")

    def __init__(
        self,
        kind: str,
        constraints: Mapping[str, Any] | None = None,
        variable: str | None = None,
    ) -> None:
        constraints = constraints or {}
        self._kind = kind
        self._variable = variable
        self._nullable = "nullable" in constraints
        self._dtype = constraints.get("dtype")
        self._checks = checks_of(kind, constraints)

    def prepare(self, value: Any) -> Any:
        """``value`` in normal form, if it fits.

        Raises `VariableTypeError`, or `ConstraintViolation` for the first constraint that it
        breaks, and `CodecError` for an item of a ``unique`` list that cannot be stored.
        """
        if value is None and self._nullable:
            return None
        try:
            normal = coerce(self._kind, value, dtype=self._dtype)
            check(self._checks, normal)
        except (VariableTypeError, ConstraintViolation) as error:
            if self._variable is not None:
                error.args = (f"variable {shorten(self._variable)}: {error}",)
                error.variable = self._variable
            raise
        return normal


Validator: type[PyValidator] = PyValidator if _accel.speedups is None else _accel.speedups.Validator
