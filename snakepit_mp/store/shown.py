"""What does a user see of what is stored? Records, decoded, as the public classes."""

from __future__ import annotations

import time

from ..values.codec import decode
from .facts import Facts
from .records import RawSession, RawVariable, SessionInfo, Variable, seconds

__all__ = ["session_info", "variable"]


def session_info(record: RawSession, now: int) -> SessionInfo:
    """``now``: on the clock of TTLs."""
    age = seconds(max(now - record.accessed, 0))
    return SessionInfo(
        id=record.name,
        metadata=decode(record.metadata) if record.metadata else {},
        ttl=seconds(record.ttl) if record.ttl else None,
        created_at=seconds(record.created),
        last_accessed=seconds(time.time_ns()) - age,
        variable_count=record.variables,
        program_count=record.programs,
        last_worker_id=record.worker - 1 if record.worker else None,
    )


def variable(record: RawVariable, facts: Facts | None = None) -> Variable:
    """``facts``: where they are known already."""
    facts = Facts.of(record) if facts is None else facts
    return Variable(
        id=record.id,
        name=record.name,
        type=record.type,
        value=decode(record.value),
        constraints=facts.constraints,
        metadata=facts.metadata,
        version=record.version,
        created_at=seconds(record.created),
        updated_at=seconds(record.updated),
    )
