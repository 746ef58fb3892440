"""What is a call before it is in line? Checked, encoded, numbered; its clocks run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from ..config import PoolConfig, check_affinity, check_retries, check_timeout
from ..errors import SessionNotFound
from ..lanes.choice import chosen_lane
from ..lanes.mailbox import MailboxLane
from ..store.session_store import SessionStore
from .commands import Command, Commands
from .waiter import Ticket

__all__ = ["Tickets"]


class Tickets:
    """Makes the tickets of one pool."""

    def __init__(self, commands: Commands, store: SessionStore, config: PoolConfig) -> None:
        self._commands = commands
        self._store = store
        self._config = config
        self._numbers = itertools.count(1)
        # Where requests are counted or looked at one by one, or there is no journal, each travels
        # alone.
        self._together = (
            config.breaker is None
            and config.max_tasks_per_worker is None
            and chosen_lane(config.lane) == MailboxLane.name
        )

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
        apart: bool = False,
    ) -> Ticket:
        """A ticket for the call; what is not given is the tool's, or else the pool's.

        ``apart``: it may be fetched ahead with others of its kin. ``timeout``: seconds, of each item if streaming. Raises whatever is wrong with the call.
        """
        self.check_session(session_id)
        ready = self._commands.prepare(
            command,
            args,
            session_id=session_id,
            streaming=streaming,
            timeout=timeout,
            apart=apart and self._together,
        )
        ticket = self.of(
            ready,
            session_id=session_id,
            timeout=timeout,
            retries=retries,
            affinity=affinity,
            streaming=streaming,
        )
        if ready.kin is None or ticket.retries or ticket.affinity != "hint":
            return ticket
        # A frame has but one deadline, which a tool may ask for.
        unseen = ready.spec is not None and not ready.spec.takes_context
        if ticket.deadline is not None and not unseen:
            return ticket
        return ticket._replace(kin=ready.kin, item=ready.item)

    def of(
        self,
        ready: Command,
        *,
        session_id: str | None,
        timeout: float | None,
        retries: int | None = None,
        affinity: str | None = None,
        streaming: bool = False,
        items: int = 0,
    ) -> Ticket:
        """The same, of what is encoded already; ``items`` as in `Ticket`."""
        config = self._config
        limit = self.limit(ready, timeout)
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
            items=items,
        )

    def anew(self, ticket: Ticket, body: bytes, items: int) -> Ticket:
        """A ticket for some of the items of another, whose clocks begin now."""
        now, in_line = time.monotonic(), self._config.queue_timeout
        return ticket._replace(
            request_id=next(self._numbers),
            body=body,
            items=items,
            deadline=None if ticket.timeout is None else now + ticket.timeout,
            queue_deadline=None if in_line is None else now + in_line,
        )

    def limit(self, ready: Command, timeout: float | None) -> float | None:
        """Seconds that the call may take: what is asked for, or the tool's, or the pool's."""
        limit = check_timeout(timeout)
        if limit is not None:
            return limit
        return self._config.timeout if ready.timeout is None else ready.timeout

    def check_session(self, session_id: str | None) -> None:
        """`SessionNotFound` if there is none."""
        if session_id is not None and not self._store.exists(session_id):
            raise SessionNotFound(
                f"no session {session_id!r}; open it with pool.session({session_id!r})",
                session_id=session_id,
            )
