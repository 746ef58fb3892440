"""A short storm of random operations, kills and stops; `make storm` has a long one."""

from __future__ import annotations

import os

import pytest
from fix_store import FORKS
from fix_timeouts import scaled
from store.storm import Storm

pytestmark = FORKS

#: Seconds that it blows.
SECONDS = float(os.environ.get("SNAKEPIT_MP_STORM_SECONDS", "5"))
PROCESSES = int(os.environ.get("SNAKEPIT_MP_STORM_PROCESSES", "4"))


@pytest.mark.timeout(scaled(60) + 3 * SECONDS)
def test_a_storm_of_kills_leaves_nothing_torn_lost_or_locked() -> None:
    report = Storm(PROCESSES, SECONDS, patience=scaled(10)).run()
    print(report)
    assert report.violations == []
    assert report.operations > 100
    assert report.kills > 10
