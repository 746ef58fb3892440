"""The library's loggers: where a pool writes what it does."""

from __future__ import annotations

import logging

__all__ = ["logger"]

logger = logging.getLogger("snakepit_mp")
logger.addHandler(logging.NullHandler())
