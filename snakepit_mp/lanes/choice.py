"""Which lane does a pool use? The fastest that works here, unless it was told."""

from __future__ import annotations

from ..errors import ConfigError
from . import mailbox

__all__ = ["chosen_lane", "chosen_spin"]


def chosen_lane(setting: str) -> str:
    """What `PoolConfig.lane` comes to: its name. `ConfigError` if that does not work here."""
    if setting == "auto":
        return "mailbox" if mailbox.works_here() else "socket"
    if setting == "mailbox" and not mailbox.works_here():
        raise ConfigError(
            "PoolConfig: lane='mailbox' needs the compiled part of snakepit_mp, on Linux; "
            "lane='auto' takes what there is"
        )
    return setting


def chosen_spin(setting: float | str) -> float:
    """What `PoolConfig.spin` comes to, in the caller's microseconds."""
    return mailbox.AUTOMATIC_SPIN if isinstance(setting, str) else float(setting)
