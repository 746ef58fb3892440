"""Figures are true, and say so where there are none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from fix_store import small_store

from snakepit_mp.errors import ConfigError, StoreClosed
from snakepit_mp.store import arguments
from snakepit_mp.store.layout import PAGE_BYTES
from snakepit_mp.store.session_store import SessionStore


def test_what_is_stored_is_counted(store: SessionStore) -> None:
    empty = store.stats()
    assert (empty.sessions, empty.bytes_limit) == (0, 16 << 20)
    store.create_session("s")
    store.register_variable("s", "x", "tensor", np.zeros(10_000))
    full = store.stats()
    assert full.sessions == 1
    assert full.bytes_used - empty.bytes_used >= 80_000
    assert full.bytes_used + full.bytes_free == full.pages * PAGE_BYTES <= full.bytes_limit
    store.delete_session("s")
    after = store.stats()
    assert after.bytes_used <= empty.bytes_used + PAGE_BYTES  # its stripe's index
    assert (after.sessions, after.pages) == (0, full.pages)


def test_a_closed_store_has_none() -> None:
    store = small_store()
    store.close()
    for call in (store.stats, store.verify, lambda: store.dump("x"), lambda: store.load("x")):
        with pytest.raises((StoreClosed, FileNotFoundError)):
            call()
    with pytest.raises(StoreClosed):
        store.watch("s")


@pytest.mark.parametrize(
    ("seconds", "nanoseconds"),
    [(None, 0), (math.inf, 0), (1, 10**9), (0.5, 5 * 10**8), (1e-30, 1), (1e30, (1 << 63) - 1)],
)
def test_a_ttl_in_nanoseconds(seconds: float | None, nanoseconds: int) -> None:
    assert arguments.lifetime(seconds) == nanoseconds


@pytest.mark.parametrize("wrong", [0, -1, math.nan, "1", True, [1]])
def test_what_is_no_ttl(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="ttl"):
        arguments.lifetime(wrong)
