"""Frozen settings, validated once, where they enter; errors name the setting."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigError

__all__ = [
    "BreakerPolicy",
    "PoolConfig",
    "RestartPolicy",
    "StoreConfig",
    "available_cpus",
    "available_memory",
    "check_affinity",
    "check_count",
    "check_grace",
    "check_retries",
    "check_timeout",
]

_LANES = ("auto", "mailbox", "socket", "grpc")
_AFFINITIES = ("hint", "strict_queue", "strict_fail_fast")
_CGROUP = Path("/sys/fs/cgroup")


def _number(owner: str, name: str, value: object, *, above: float | None = None) -> None:
    """Demand a finite number of at least 0, or strictly above ``above``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{owner}.{name} must be a number, not {value!r}")
    if not math.isfinite(value):
        raise ConfigError(f"{owner}.{name} must be finite, not {value!r}")
    if above is not None and value <= above:
        raise ConfigError(f"{owner}.{name} must be above {above:g}, not {value!r}")
    if above is None and value < 0:
        raise ConfigError(f"{owner}.{name} must not be negative, but is {value!r}")


def _integer(owner: str, name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{owner}.{name} must be an int, not {value!r}")
    if value < least:
        raise ConfigError(f"{owner}.{name} must be at least {least}, not {value!r}")


def _one_of(owner: str, name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ConfigError(f"{owner}.{name} must be one of {known}, not {value!r}")


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text().split()[0]
    except (OSError, IndexError):
        return None  # no cgroup v2 here: there is no limit to respect
    return int(text) if text.isdigit() else None


def check_timeout(timeout: float | None) -> float | None:
    """The time-out of a call, if it is ``None`` or a number of seconds above 0."""
    if timeout is not None:
        _number("call", "timeout", timeout, above=0)
    return timeout


def check_affinity(affinity: str) -> str:
    """The affinity of a call, if it is one of those there are."""
    _one_of("call", "affinity", affinity, _AFFINITIES)
    return affinity


def check_count(owner: str, name: str, value: int) -> None:
    """Demand a whole number of at least 1."""
    _integer(owner, name, value, least=1)


def check_retries(retries: int) -> int:
    """The retries of a call, if they are a whole number of at least 0."""
    _integer("call", "retries", retries, least=0)
    return retries


def check_grace(grace: float | None) -> None:
    """Demand ``None`` or a number of seconds of at least 0."""
    if grace is not None:
        _number("shutdown", "grace", grace)


def available_cpus() -> int:
    """CPUs this process may use: its affinity, cut by the cgroup's quota, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:  # macOS
        cpus = os.cpu_count() or 1
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cpus
    if quota != "max":
        cpus = min(cpus, math.ceil(int(quota) / int(period)))
    return max(cpus, 1)


def available_memory() -> int:
    """Bytes of memory this process may use: RAM, or the cgroup's limit if lower."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read_number(_CGROUP / "memory.max")
    return ram if limit is None else min(ram, limit)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a worker that died is started again (OTP's restart intensity).

    Only deaths *before* a worker served anything count and back off; a worker that has
    served is replaced at once. More than ``max_restarts`` such deaths within
    ``max_seconds`` and the pool stops trying; the time that starts and waits take does not
    count, so slow failures are as many as quick ones. The n-th waits ``backoff * 2**(n-1)``
    seconds, at most ``max_backoff``, give or take the fraction ``jitter``.
    """

    max_restarts: int = 3
    max_seconds: float = 5.0
    backoff: float = 0.1
    max_backoff: float = 30.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        _integer("RestartPolicy", "max_restarts", self.max_restarts, least=0)
        _number("RestartPolicy", "max_seconds", self.max_seconds, above=0)
        _number("RestartPolicy", "backoff", self.backoff)
        _number("RestartPolicy", "max_backoff", self.max_backoff)
        _number("RestartPolicy", "jitter", self.jitter)
        if self.jitter > 1:
            raise ConfigError(f"RestartPolicy.jitter must be at most 1, not {self.jitter!r}")


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When calls of a tool are refused, because it fails again and again.

    After ``failures`` in a row within ``window`` seconds; ``probe_after`` seconds later one call
    is let through, and decides. What fails is a call whose tool raised, whose worker died, or
    whose deadline passed while it ran.
    """

    failures: int = 5
    window: float = 30.0
    probe_after: float = 10.0

    def __post_init__(self) -> None:
        _integer("BreakerPolicy", "failures", self.failures, least=1)
        _number("BreakerPolicy", "window", self.window, above=0)
        _number("BreakerPolicy", "probe_after", self.probe_after)


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Limits of a session store.

    ``max_bytes``: memory of all values and records, default half of what the machine or
    the cgroup allows. ``session_ttl``: seconds a session lives after its last use,
    ``None`` for ever. ``sweep_interval``: seconds between sweeps for expired sessions.
    """

    max_bytes: int | None = None
    session_ttl: float | None = 3600.0
    max_sessions: int = 10_000_000
    max_variables_per_session: int = 100_000
    sweep_interval: float = 1.0

    def __post_init__(self) -> None:
        if self.max_bytes is None:
            object.__setattr__(self, "max_bytes", available_memory() // 2)
        _integer("StoreConfig", "max_bytes", self.max_bytes, least=1 << 20)
        if self.session_ttl is not None:
            _number("StoreConfig", "session_ttl", self.session_ttl, above=0)
        _integer("StoreConfig", "max_sessions", self.max_sessions, least=1)
        _integer(
            "StoreConfig", "max_variables_per_session", self.max_variables_per_session, least=1
        )
        _number("StoreConfig", "sweep_interval", self.sweep_interval, above=0)


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Every setting of a `Pool`; see the README for what each one means.

    Times are seconds; ``None`` means no limit. ``store`` is a `StoreConfig`, or a
    `SessionStore` that several pools share.
    """

    workers: int = field(default_factory=available_cpus)
    lane: str = "auto"
    timeout: float | None = None
    queue_size: int = 1000
    on_full: str = "wait"
    queue_timeout: float | None = None
    start_timeout: float = 60.0
    grace: float = 5.0
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    max_tasks_per_worker: int | None = None
    max_worker_age: float | None = None
    max_worker_rss: int | None = None
    affinity: str = "hint"
    poison_after: int = 3
    breaker: BreakerPolicy | None = None
    store: Any = field(default_factory=StoreConfig)
    bridge: str | None = "unix"
    grpc: bool = True
    preload: tuple[str, ...] = ()
    import_in: str = "server"
    env: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    spin: float | str = "auto"
    allow_pickle: bool = True
    context: tuple[str, ...] = ()
    name: str = "default"

    @classmethod
    def of(cls, settings: dict[str, Any]) -> PoolConfig:
        """The settings as a user gave them; `ConfigError` also for one that does not exist."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in settings:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigError(f"Pool has no setting {name!r}{hint}")
        return cls(**settings)

    def __post_init__(self) -> None:
        self._check_numbers()
        _one_of("PoolConfig", "lane", self.lane, _LANES)
        _one_of("PoolConfig", "affinity", self.affinity, _AFFINITIES)
        _one_of("PoolConfig", "on_full", self.on_full, ("wait", "raise"))
        _one_of("PoolConfig", "import_in", self.import_in, ("server", "worker"))
        if not isinstance(self.restart, RestartPolicy):
            raise ConfigError(f"PoolConfig.restart must be a RestartPolicy, not {self.restart!r}")
        if not isinstance(self.breaker, BreakerPolicy | None):
            raise ConfigError(
                f"PoolConfig.breaker must be a BreakerPolicy or None, not {self.breaker!r}"
            )
        for name in ("allow_pickle", "grpc"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"PoolConfig.{name} must be a bool, not {getattr(self, name)!r}")
        if self.lane == "grpc" and not self.grpc:
            raise ConfigError("PoolConfig: lane='grpc' needs the workers' gRPC, not grpc=False")
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"PoolConfig.name must be a non-empty str, not {self.name!r}")
        self._check_names()
        _check_bridge(self.bridge)

    def _check_numbers(self) -> None:
        for name, least in (("workers", 1), ("queue_size", 1), ("poison_after", 1), ("threads", 1)):
            _integer("PoolConfig", name, getattr(self, name), least=least)
        for name in ("max_tasks_per_worker", "max_worker_rss"):
            if getattr(self, name) is not None:
                _integer("PoolConfig", name, getattr(self, name), least=1)
        for name in ("timeout", "queue_timeout", "max_worker_age"):
            if getattr(self, name) is not None:
                _number("PoolConfig", name, getattr(self, name), above=0)
        _number("PoolConfig", "start_timeout", self.start_timeout, above=0)
        if self.spin != "auto":
            _number("PoolConfig", "spin", self.spin)
        _number("PoolConfig", "grace", self.grace)

    def _check_names(self) -> None:
        if isinstance(self.preload, str) or not all(isinstance(m, str) for m in self.preload):
            raise ConfigError(
                f"PoolConfig.preload must be a sequence of module names, not {self.preload!r}"
            )
        object.__setattr__(self, "preload", tuple(self.preload))
        if isinstance(self.context, str) or not all(map(_names_a_variable, self.context)):
            raise ConfigError(
                "PoolConfig.context must be a sequence of 'package.module:VARIABLE', "
                f"not {self.context!r}"
            )
        object.__setattr__(self, "context", tuple(self.context))
        if not isinstance(self.env, Mapping) or not all(
            isinstance(key, str) and isinstance(value, str) for key, value in self.env.items()
        ):
            raise ConfigError(f"PoolConfig.env must map str to str, not {self.env!r}")
        object.__setattr__(self, "env", dict(self.env))


def _names_a_variable(name: object) -> bool:
    if not isinstance(name, str):
        return False
    module, colon, variable = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), variable))


def _check_bridge(bridge: object) -> None:
    """``"unix"``, ``None``, or a loopback address; anything else needs TLS, not built yet."""
    if bridge is None or bridge == "unix":
        return
    if not isinstance(bridge, str):
        raise ConfigError(f"PoolConfig.bridge must be 'unix', 'host:port' or None, not {bridge!r}")
    host, colon, port = bridge.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"PoolConfig.bridge must be 'unix', 'host:port' or None, not {bridge!r}")
    if host not in ("127.0.0.1", "localhost", "[::1]"):
        raise ConfigError(
            f"PoolConfig.bridge: {bridge!r} is not a loopback address; others need TLS, which "
            "is not available yet. Use 'unix' or '127.0.0.1:0'."
        )
