"""Which tools did clients announce, and in which session? Remembered as long as the session.

They are listed and counted. Calling them is their owner's business: the application has no
way to reach a client.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from ..errors import InvalidArguments, SessionLimitReached
from ..store.session_store import SessionStore
from . import snakepit_bridge_pb2 as pb

__all__ = ["AnnouncedTools"]

#: Tools that clients may announce in one session.
_MOST_PER_SESSION = 1_000
#: Sessions with tools from which on those that are gone are looked for.
_FIRST_SWEEP = 64

_Tools = dict[str, pb.ToolSpec]


class AnnouncedTools:
    """Tools of clients by session. Usable from any thread."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        #: With the moment of the session's creation: a later one of that id is another.
        self._sessions: dict[str, tuple[float, _Tools]] = {}
        self._sweep_at = _FIRST_SWEEP

    def add(
        self, session_id: str, tools: Iterable[pb.ToolRegistration], owner: str
    ) -> dict[str, str]:
        """Remember tools, in the place of those of the same names; their ids by name.

        All or none. Raises `SessionNotFound`, `InvalidArguments`, `SessionLimitReached`.
        """
        created = self._store.get_session(session_id).created_at
        new = {registration.name: _specification(registration, owner) for registration in tools}
        if "" in new:
            raise InvalidArguments("a tool must have a name")
        with self._lock:
            tools_now = {**self._known(session_id, created), **new}
            if len(tools_now) > _MOST_PER_SESSION:
                raise SessionLimitReached(
                    f"clients may announce {_MOST_PER_SESSION:,} tools in a session, and "
                    f"session {session_id!r} would have {len(tools_now):,}",
                    limit=_MOST_PER_SESSION,
                )
            self._sessions[session_id] = created, tools_now
            self._sweep()
        return {name: f"{session_id}:{name}" for name in new}

    def of(self, session_id: str, created_at: float) -> Mapping[str, pb.ToolSpec]:
        """The tools announced in that session, by name."""
        with self._lock:
            return self._known(session_id, created_at)

    def forget(self, session_id: str) -> None:
        """The session was deleted."""
        with self._lock:
            self._sessions.pop(session_id, None)

    def _known(self, session_id: str, created_at: float) -> _Tools:
        created, tools = self._sessions.get(session_id, (created_at, {}))
        return tools if created == created_at else {}

    def _sweep(self) -> None:
        # Sessions also end elsewhere, by their TTL for one. Looking whenever their number has
        # doubled costs little and bounds what is kept for sessions that are gone.
        if len(self._sessions) < self._sweep_at:
            return
        gone = [name for name in self._sessions if not self._store.exists(name)]
        for name in gone:
            del self._sessions[name]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._sessions))


def _specification(registration: pb.ToolRegistration, owner: str) -> pb.ToolSpec:
    return pb.ToolSpec(
        name=registration.name,
        description=registration.description,
        parameters=registration.parameters,
        metadata={**registration.metadata, "announced_by": owner},
        supports_streaming=registration.supports_streaming,
    )
