"""How is a value shown in a message? Shortly, whatever it is."""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = ["shorten"]

_LONGEST = 60
_LONGEST_INT = 160  # bits; Python refuses to write down very long ones


class _Short(reprlib.Repr):
    """Shows the first few items of a container, and never all digits of a huge int."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 8
        self.maxstring = self.maxother = 2 * _LONGEST

    def repr1(self, x: Any, level: int) -> str:
        # The methods below go by the name of a class, which may be anybody's.
        if type(x).__module__ not in ("builtins", "numpy"):
            return self.repr_instance(x, level)
        return super().repr1(x, level)

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()
        return repr(x) if bits <= _LONGEST_INT else f"an int of {bits} bits"

    def repr_ndarray(self, x: Any, level: int) -> str:
        return f"an array of shape {x.shape} and dtype {x.dtype}"

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x[:_LONGEST])  # what is left out shows by the cut of the whole

    def repr_bytearray(self, x: bytearray, level: int) -> str:
        return repr(x[:_LONGEST])

    def repr_str(self, x: str, level: int) -> str:
        return repr(x[:_LONGEST])


_SHORT = _Short()


def shorten(value: Any) -> str:
    """The repr of ``value`` for a message, cut where it is long.

    Neither a container of any size nor a class whose ``__repr__`` fails does harm.
    """
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
