r"""Does a text match a pattern, in bounded time where that can be had?

The whole text must match. Where ``google-re2`` is installed it does the matching, in time
linear in the text, and patterns that it does not know (look-around, back-references) are
refused. Otherwise Python's ``re`` does, with ``\d``, ``\w``, ``\s`` and ``\b`` for ASCII only,
as RE2 has them; some patterns then take very long, and the bounds below are all that helps.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

__all__ = ["MAX_PATTERN", "MAX_TEXT", "PatternError", "matcher"]

#: Longest pattern, and longest text that is matched with one, in code points.
MAX_PATTERN = 1_000
MAX_TEXT = 10_000


class PatternError(Exception):
    """The text is no pattern."""


def matcher(pattern: str) -> Callable[[str], bool]:
    """A function that tells whether a whole text, of up to `MAX_TEXT`, matches ``pattern``.

    A text with lone surrogates matches no pattern. Raises `PatternError`.
    """
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"it has {len(pattern)} characters, at most {MAX_PATTERN} allowed")
    if not _is_utf8(pattern):
        raise PatternError("it has lone surrogates")
    fullmatch = _by_re2(pattern) or _by_re(pattern)

    def matches(text: str) -> bool:
        return _is_utf8(text) and fullmatch(text) is not None

    return matches


def _is_utf8(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _by_re2(pattern: str) -> Callable[[str], Any] | None:
    try:
        re2: Any = importlib.import_module("re2")
    except ImportError:
        return None
    options = re2.Options()
    options.log_errors = False  # they are raised; the log would be the application's stderr
    try:
        fullmatch: Callable[[str], Any] = re2.compile(pattern, options).fullmatch
    except re2.error as error:
        (reason,) = error.args
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise PatternError(f"RE2 says {text}") from None
    return fullmatch


def _by_re(pattern: str) -> Callable[[str], Any]:
    try:
        return re.compile(pattern, re.ASCII).fullmatch
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise PatternError(str(error)) from None
