"""What is a call before it is in line? Checked, encoded, numbered; its clocks run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from ..config import PoolConfig, check_affinity, check_retries, check_timeout
from ..errors import SessionNotFound
from ..store.session_store import SessionStore
from .commands import Commands
from .waiter import Ticket

__all__ = ["Tickets"]


class Tickets:
    """Makes the tickets of one pool."""

    def __init__(self, commands: Commands, store: SessionStore, config: PoolConfig) -> None:
        self._commands = commands
        self._store = store
        self._config = config
        self._numbers = itertools.count(1)

    def write(
        self,
        command: str | Callable[..., Any],
        args: object,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
        streaming: bool = False,
    ) -> Ticket:
        """A ticket for the call; what is not given is the tool's, or else the pool's.

        ``timeout``: seconds, of each item if streaming. Raises whatever is wrong with the call.
        """
        if session_id is not None and not self._store.exists(session_id):
            raise SessionNotFound(
                f"no session {session_id!r}; open it with pool.session({session_id!r})",
                session_id=session_id,
            )
        ready = self._commands.prepare(
            command, args, session_id=session_id, streaming=streaming, timeout=timeout
        )
        config = self._config
        limit = check_timeout(timeout)
        if limit is None:
            limit = config.timeout if ready.timeout is None else ready.timeout
        now, in_line = time.monotonic(), config.queue_timeout
        return Ticket(
            request_id=next(self._numbers),
            command=ready.name,
            body=ready.body,
            session_id=session_id,
            streaming=streaming,
            idempotent=ready.idempotent,
            timeout=limit,
            deadline=None if limit is None or streaming else now + limit,
            queue_deadline=None if in_line is None else now + in_line,
            retries=ready.retries if retries is None else check_retries(retries),
            affinity=config.affinity if affinity is None else check_affinity(affinity),
            tool=None if ready.spec is None else ready.spec.name,
        )
