"""Settings: what is wrong with one is said at once, and the message names it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from snakepit_mp import config
from snakepit_mp.config import BreakerPolicy, PoolConfig, RestartPolicy, StoreConfig
from snakepit_mp.errors import ConfigError

BAD: list[tuple[type, str, list[Any]]] = [
    (RestartPolicy, "max_restarts", [-1, 1.5, "3", True, None]),
    (RestartPolicy, "max_seconds", [0, -1, math.inf, math.nan, "5", True]),
    (RestartPolicy, "backoff", [-0.1, math.nan, None]),
    (RestartPolicy, "max_backoff", [-0.1, math.inf, None]),
    (RestartPolicy, "jitter", [-0.1, 1.1, None]),
    (StoreConfig, "max_bytes", [0, 1000, 1e9, "1G"]),
    (StoreConfig, "session_ttl", [0, -1, math.inf, "1h"]),
    (StoreConfig, "max_sessions", [0, 1.0, None]),
    (StoreConfig, "max_variables_per_session", [0, 1.0, None]),
    (StoreConfig, "sweep_interval", [0, -1, None]),
    (PoolConfig, "workers", [0, -1, 2.0, "2", True, None]),
    (PoolConfig, "lane", ["tcp", "", None]),
    (PoolConfig, "spin", ["automatic", -1, None, True, float("inf")]),
    (PoolConfig, "timeout", [0, -1, math.inf, math.nan, "1"]),
    (PoolConfig, "queue_size", [0, 1.0, None]),
    (PoolConfig, "on_full", ["drop", None]),
    (PoolConfig, "queue_timeout", [0, -1, "1"]),
    (PoolConfig, "start_timeout", [0, -1, None]),
    (PoolConfig, "grace", [-1, math.inf, None]),
    (PoolConfig, "restart", [None, {"max_restarts": 3}]),
    (PoolConfig, "poison_after", [0, 1.5, None]),
    (PoolConfig, "max_tasks_per_worker", [0, 1.5, "1"]),
    (PoolConfig, "max_worker_age", [0, -1, math.inf, "1"]),
    (PoolConfig, "max_worker_rss", [0, 1e9, "1G"]),
    (PoolConfig, "affinity", ["strict", None]),
    (PoolConfig, "breaker", [5, {"failures": 3}]),
    (BreakerPolicy, "failures", [0, 1.5, None]),
    (BreakerPolicy, "window", [0, -1, None]),
    (BreakerPolicy, "probe_after", [-1, math.inf, None]),
    (PoolConfig, "bridge", ["tcp", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", 8080]),
    (PoolConfig, "bridge", ["0.0.0.0:50051", "[::]:0", "example.org:443"]),
    (PoolConfig, "preload", ["numpy", [1], (None,)]),
    (PoolConfig, "import_in", ["client", None]),
    (PoolConfig, "env", [["A=1"], {"A": 1}, {1: "A"}, None]),
    (PoolConfig, "threads", [0, 1.5, None]),
    (PoolConfig, "context", ["package:VARIABLE", ("VARIABLE",), ("a.b:",), (1,)]),
    (PoolConfig, "allow_pickle", [1, None, "yes"]),
    (PoolConfig, "grpc", [1, None, "yes"]),
    (PoolConfig, "name", ["", None, 5]),
]
CASES = [(cls, name, value) for cls, name, values in BAD for value in values]


@pytest.mark.parametrize(("cls", "name", "value"), CASES)
def test_bad_setting_is_named(cls: type, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{cls.__name__}\.{name}\b"):
        cls(**{name: value})


@pytest.mark.parametrize("cls", [RestartPolicy, BreakerPolicy, StoreConfig, PoolConfig])
def test_every_checked_setting_has_a_bad_example(cls: type) -> None:
    names = {field.name for field in dataclasses.fields(cls)}
    assert names - {name for owner, name, _ in BAD if owner is cls} <= {"store"}


def test_bad_address_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"loopback.*TLS.*127\.0\.0\.1:0"):
        PoolConfig(bridge="0.0.0.0:50051")


@pytest.mark.parametrize("bridge", ["unix", None, "127.0.0.1:0", "localhost:50051", "[::1]:0"])
def test_local_addresses_are_accepted(bridge: str | None) -> None:
    assert PoolConfig(bridge=bridge).bridge == bridge


def test_the_lane_over_grpc_needs_grpc() -> None:
    with pytest.raises(ConfigError, match="grpc=False"):
        PoolConfig(lane="grpc", grpc=False)


def test_unknown_setting() -> None:
    with pytest.raises(TypeError, match="wrokers"):
        PoolConfig(wrokers=4)  # type: ignore[call-arg]


def test_defaults() -> None:
    pool = PoolConfig()
    assert pool.workers == config.available_cpus()
    assert pool.restart == RestartPolicy(3, 5.0, 0.1, 30.0, 0.25)
    assert pool.store.max_bytes == config.available_memory() // 2
    assert (pool.store.session_ttl, pool.store.max_sessions) == (3600.0, 10_000_000)


def test_settings_are_frozen_and_own_their_containers() -> None:
    env = {"A": "1"}
    pool = PoolConfig(env=env, preload=["json"])  # type: ignore[arg-type]
    env["B"] = "2"
    assert pool.env == {"A": "1"}
    assert pool.preload == ("json",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        pool.workers = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000", 8), ("150000 100000", 2), ("1000 100000", 1), ("odd", 8)]
)
def test_cgroup_quota_limits_the_cpus(
    text: str, cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(config, "_CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert config.available_cpus() == cpus


@pytest.mark.parametrize(("text", "limited"), [("1048576", True), ("max", False), ("", False)])
def test_cgroup_limits_the_memory(
    text: str, limited: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(text)
    unlimited = config.available_memory()
    monkeypatch.setattr(config, "_CGROUP", tmp_path)
    assert (config.available_memory() == 1048576) is limited
    assert limited or config.available_memory() >= unlimited
