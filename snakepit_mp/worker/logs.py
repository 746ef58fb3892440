"""Where do a worker's log records go? To the application's loggers of the same names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..telemetry.trace import current_trace

__all__ = ["ForwardingHandler"]

#: What of a record is told beside its message.
_FACTS = (
    "name",
    "levelno",
    "levelname",
    "pathname",
    "filename",
    "module",
    "lineno",
    "funcName",
    "created",
    "process",
    "threadName",
)

#: Characters of a message or a traceback; the channel is for facts.
_LONGEST = 16_384


class ForwardingHandler(logging.Handler):
    """Tells each record, as plain facts: what it was made from stays in the worker.

    ``tell`` sends them; ``current()`` is the request that runs, and its session.
    """

    def __init__(
        self,
        tell: Callable[[dict[str, Any]], None],
        current: Callable[[], tuple[int | None, str | None]],
    ) -> None:
        super().__init__()
        self._tell = tell
        self._current = current

    def emit(self, record: logging.LogRecord) -> None:
        try:
            request_id, session_id = self._current()
            facts = {name: getattr(record, name) for name in _FACTS}
            facts["msg"] = record.getMessage()[:_LONGEST]
            if record.exc_info:
                text = record.exc_text or logging.Formatter().formatException(record.exc_info)
                facts["exc_text"] = text[:_LONGEST]
            facts |= {"request_id": request_id, "session_id": session_id}
            if (trace := current_trace()) is not None:
                facts |= {"trace_id": trace.trace_id, "span_id": trace.span_id}
            self._tell({"event": "log", "record": facts})
        except ConnectionError:
            pass  # the application is gone, and so is this worker
        except Exception:  # noqa: BLE001 - as every handler does; a message may be anything
            self.handleError(record)
