"""What of its caller's context does a call take along? The variables that the user has named."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from ..errors import ConfigError

__all__ = ["ContextVariables", "restore"]


class ContextVariables:
    """Those named ``"package.module:VARIABLE"``; `ConfigError` for one that is not there."""

    def __init__(self, names: Sequence[str]) -> None:
        self._variables = [(name, _named(name)) for name in names]

    def captured(self) -> dict[str, Any]:
        """Their values here and now; one that is not set is left out."""
        found = {}
        for name, variable in self._variables:
            value = variable.get(_UNSET)
            if value is not _UNSET:
                found[name] = value
        return found


def restore(values: Mapping[str, Any]) -> None:
    """Set them in the context that runs."""
    for name, value in values.items():
        _named(name).set(value)


class _Unset:
    pass


_UNSET = _Unset()


def _named(name: str) -> ContextVar[Any]:
    module, _, attribute = name.partition(":")
    try:
        # The main module of a worker is known by its name, and by that only.
        found = getattr(sys.modules.get(module) or importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"PoolConfig.context: {name!r} cannot be found: {error}") from error
    if not isinstance(found, ContextVar):
        raise ConfigError(f"PoolConfig.context: {name!r} is no ContextVar, but {found!r}")
    return found
