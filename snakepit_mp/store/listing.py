"""What is there? Sessions and variables, sorted as users see them, without what is hidden."""

from __future__ import annotations

from fnmatch import fnmatchcase

from .layout import HIDDEN, STRIPE_COUNT
from .places import Place, text
from .raw_store import PyRawStore
from .records import RawSession, RawVariable

__all__ = ["program_names", "sessions", "variable_names", "variables"]


def sessions(raw: PyRawStore, pattern: str) -> list[RawSession]:
    """Those whose id matches a glob, oldest first."""
    found = [
        record
        for stripe in range(STRIPE_COUNT)
        for record in map(RawSession.parse, raw.sessions(stripe))
        if not record.hidden and fnmatchcase(record.name, pattern)
    ]
    return sorted(found, key=lambda record: (record.created, record.name))


def variables(raw: PyRawStore, place: Place, pattern: str) -> list[RawVariable]:
    """Those whose name matches a glob, in the order of creation, of one moment."""
    found = [
        record
        for record in map(RawVariable.parse, raw.all_variables(place))
        if not record.is_program and fnmatchcase(record.name, pattern)
    ]
    return sorted(found, key=lambda record: record.number)


def variable_names(raw: PyRawStore, place: Place) -> list[str]:
    """All, in the order of creation."""
    return [text(key) for _, key in sorted(raw.names(place)) if not key.startswith(HIDDEN)]


def program_names(raw: PyRawStore, place: Place, pattern: str) -> list[str]:
    """Those that match a glob, in the order of creation."""
    keys = (key for _, key in sorted(raw.names(place)) if key.startswith(HIDDEN))
    names = (text(key.removeprefix(HIDDEN)) for key in keys)
    return [name for name in names if fnmatchcase(name, pattern)]
