"""A short storm: the long one is `make soak`."""

from __future__ import annotations

from fix_timeouts import scaled
from storm import storm


def test_nothing_is_lost_doubled_or_late_under_a_killer():
    report = storm(5.0, seed=11, patience=scaled(5))

    assert report.wrong == [], str(report)
    assert report.outcomes["value"] > 0
    assert report.kills > 0
