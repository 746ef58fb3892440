"""How long may a test wait? Seconds, stretched by a factor for slow machines."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

__all__ = ["scaled", "timeout"]

_FACTOR = float(os.environ.get("SNAKEPIT_MP_TEST_TIMEOUT_FACTOR", "1"))


def scaled(seconds: float) -> float:
    """``seconds`` times ``SNAKEPIT_MP_TEST_TIMEOUT_FACTOR``."""
    return seconds * _FACTOR


@pytest.fixture
def timeout() -> Callable[[float], float]:
    """The same as a fixture."""
    return scaled


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Stretch the limit at which pytest-timeout ends a test that hangs."""
    limit = pytest.mark.timeout(scaled(float(config.getini("timeout"))))
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(limit)
