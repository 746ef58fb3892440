"""Both twins know the same numbers."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import pytest

from snakepit_mp import _accel
from snakepit_mp.store import crashpoints, layout

compiled = getattr(_accel.speedups, "STORE_LAYOUT", None)


def plain(value: Any) -> Any:
    if isinstance(value, type) and issubclass(value, IntEnum):
        return {member.name: int(member) for member in value}
    return value


@pytest.mark.skipif(compiled is None, reason="needs the compiled part")
def test_the_compiled_part_has_the_same_numbers() -> None:
    assert compiled is not None
    for name, number in compiled.items():
        assert plain(getattr(layout, name)) == number, name


@pytest.mark.skipif(compiled is None, reason="needs the compiled part")
def test_the_compiled_part_passes_the_same_steps() -> None:
    assert _accel.speedups is not None
    assert _accel.speedups.STORE_STEPS == crashpoints.LABELS


def test_nothing_overlaps() -> None:
    assert layout.ALLOCATOR_LOG + 2 * layout.ALLOCATOR_LOG_CAPACITY < layout.STRIPES
    assert layout.S_PARTIAL + len(layout.CLASSES) <= layout.S_LOG
    assert layout.S_LOG + 1 + 2 * layout.S_LOG_CAPACITY <= layout.STRIPE_WORDS
    assert layout.BINS + layout.BIN_COUNT <= layout.ALLOCATOR_LOG
    assert layout.R_INLINE + layout.INLINE_WORDS <= layout.R_HISTORY


def test_every_small_block_fits_a_page() -> None:
    assert sorted(layout.CLASSES) == list(layout.CLASSES)
    assert layout.CLASSES[0] >= layout.SMALL_HEADER
    assert layout.CLASSES[-1] <= layout.PAGE_WORDS
    assert layout.RUN_HEADER * layout.WORD % 64 == 0
