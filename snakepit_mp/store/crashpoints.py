"""At which points of an operation can a process die? Labels that tests replace with a kill.

Each label is one row of the crash table in ``docs/memory-layout.md``; a test holds that
the two lists are equal and that every operation's labels are tried.
"""

from __future__ import annotations

__all__ = ["LABELS", "step"]

#: Every label, in the order in which an operation meets them.
LABELS: tuple[str, ...] = (
    "stripe.entered",
    "allocator.entered",
    "segment.grown",
    "allocator.logged",
    "allocator.committed",
    "allocator.applying",
    "allocator.applied",
    "allocator.cleared",
    "block.filling",
    "block.filled",
    "stripe.logged",
    "stripe.committed",
    "stripe.applying",
    "stripe.applied",
    "stripe.cleared",
    "stripe.left",
)


def step(label: str) -> None:
    """Do nothing; a test puts a function here that kills the process at a label."""
