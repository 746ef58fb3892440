"""How are encodings put together? Without decoding them; see `wire`."""

from __future__ import annotations

from collections.abc import Sequence

from . import wire

__all__ = ["item_of", "tuple_of"]

# A version byte, and the tag of a tuple with one item.
_BEFORE_ITEM = 2


def item_of(single: bytes) -> bytes:
    """The encoding of the one item, of that of a tuple that has no other."""
    return single[:1] + single[_BEFORE_ITEM:]


def tuple_of(singles: Sequence[bytes]) -> bytes:
    """The encoding of the tuple of all their items, each of a tuple with one: so none of them is
    nested too deeply. No item is a number, since these would be packed."""
    count = len(singles)
    if count <= wire.LONGEST_SHORT:
        head = bytes((wire.VERSION, wire.SHORT_TUPLE + count))
    else:
        head = bytes((wire.VERSION, wire.TAG_TUPLE)) + wire.count(count)
    return head + b"".join([single[_BEFORE_ITEM:] for single in singles])
