"""Storms for every run, one for each suite and a longer one once: the long one is `make soak`."""

from __future__ import annotations

import pytest
from fix_timeouts import scaled
from storm import storm


@pytest.mark.timeout(scaled(180))
@pytest.mark.parametrize(
    "seconds", [5.0, pytest.param(20.0, marks=pytest.mark.either_twin)], ids=["short", "longer"]
)
def test_nothing_is_lost_doubled_or_late_under_a_killer(seconds):
    report = storm(seconds, seed=11, patience=scaled(5))

    assert report.wrong == [], str(report)
    assert report.outcomes["value"] > 0
    assert report.kills > 0
    assert report.growth["threads"] <= 8
    assert report.growth["file descriptors"] <= 32
    assert report.growth["megabytes"] < 30 + seconds / 10
