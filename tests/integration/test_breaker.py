"""A breaker around tools that fail, in a whole pool."""

from __future__ import annotations

import pytest
from fix_pool import until
from fix_timeouts import scaled
from pool_adapters import PlainError

from snakepit_mp import BreakerPolicy
from snakepit_mp.errors import CircuitOpen, ConfigError, WorkerDied


def test_calls_of_a_broken_tool_are_refused_until_a_probe_succeeds(make_pool):
    pool = make_pool(breaker=BreakerPolicy(failures=2, probe_after=0.3))
    for _ in range(2):
        with pytest.raises(PlainError):
            pool.execute("fail", {"kind": "plain"})

    with pytest.raises(CircuitOpen, match="'fail' has failed") as caught:
        pool.execute("fail", {"kind": "plain"})
    assert isinstance(pool.submit("fail", {"kind": "x"}).exception(scaled(5)), CircuitOpen)
    assert pool.execute("add", (1, 2)) == 3
    assert 0 < caught.value.retry_after <= 0.3

    def probe() -> bool:
        try:
            pool.execute("fail", {"kind": "plain"})
        except PlainError:
            return True
        except CircuitOpen:
            return False
        return False

    until(probe)
    with pytest.raises(CircuitOpen):
        pool.execute("fail", {"kind": "plain"})


def test_deaths_count(make_pool):
    pool = make_pool(breaker=BreakerPolicy(failures=1))
    with pytest.raises(WorkerDied):
        pool.execute("die")
    with pytest.raises(CircuitOpen):
        pool.execute("die")


def test_streams_count_by_their_end(make_pool):
    pool = make_pool(breaker=BreakerPolicy(failures=1))
    assert list(pool.stream("numbers", (2,))) == [0, 1]
    assert list(pool.stream("numbers", (2,))) == [0, 1]
    with pytest.raises(PlainError):
        list(pool.stream("breaks_after", (1,)))
    with pytest.raises(CircuitOpen):
        list(pool.stream("breaks_after", (1,)))


@pytest.mark.parametrize("settings", [{"failures": 0}, {"window": 0}, {"probe_after": -1}])
def test_wrong_policy_is_refused(make_pool, settings):
    with pytest.raises(ConfigError, match="BreakerPolicy"):
        BreakerPolicy(**settings)
    with pytest.raises(ConfigError, match="breaker"):
        make_pool(breaker=5)
