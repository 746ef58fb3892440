"""The compiled module, or ``None``: the only place that imports it.

``SNAKEPIT_MP_IMPL`` is an order, not a hint: with ``c`` a missing extension is an
``ImportError``, with ``python`` the extension is not even tried. Unset: the compiled one
where it is there.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

__all__ = ["implementation", "speedups"]


def _load() -> ModuleType | None:
    order = os.environ.get("SNAKEPIT_MP_IMPL", "")
    if order not in ("", "c", "python"):
        raise ImportError(f"SNAKEPIT_MP_IMPL must be 'c' or 'python', not {order!r}")
    if order == "python":
        return None
    try:
        # By name: a linter that sees no source of it would take `from .` for the whole package.
        return importlib.import_module("._speedups", __package__)
    except ImportError as error:
        if order == "c":
            raise ImportError(
                "SNAKEPIT_MP_IMPL=c, but the compiled part snakepit_mp._speedups cannot be "
                f"imported ({error}). Install a wheel that has it, or build with "
                "SNAKEPIT_MP_BUILD_EXTENSION=yes."
            ) from error
        return None


#: The compiled module, or ``None``.
speedups: ModuleType | None = _load()

#: ``"c"`` or ``"python"``.
implementation: str = "python" if speedups is None else "c"
