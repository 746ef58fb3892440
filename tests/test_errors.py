"""The tree of exceptions: as it is drawn, and each of them can cross a process boundary."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit_mp import errors
from snakepit_mp.errors import SnakepitError, WorkerDied


def _tree(cls: type[SnakepitError]) -> Iterator[type[SnakepitError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


ALL = [cls for cls in _tree(SnakepitError) if cls.__module__ == errors.__name__]
#: A value for each fact that is not of the type its default shows.
FACTS: dict[str, Any] = {
    "deaths": (WorkerDied("first", pid=7), WorkerDied("second", pid=8)),
    "known": ("embed", "shout"),
    "limit": 2.0,
    "timeout": 2.5,
    "value": [1.5, "x"],
}


def _facts(cls: type[SnakepitError]) -> dict[str, Any]:
    """Keywords of the constructor, each with a value that is not its default."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    keywords = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return {
        p.name: FACTS.get(p.name, True if p.default is False else f"a {p.name}") for p in keywords
    }


def _drawn() -> Iterator[tuple[int, str, str | None]]:
    """Depth, name and second base of each class in the module's docstring."""
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?: \((\w+)\))?", line)
        if match:
            yield len(match[1]) // 4, match[2], match[3]


def test_drawn_tree_is_the_tree() -> None:
    path: list[str] = []
    drawn = {}
    for depth, name, second in _drawn():
        path = [*path[:depth], name]
        drawn[name] = [*path[-2:-1], *([second] if second else [])]
    bases = {cls.__name__: [base.__name__ for base in cls.__bases__] for cls in ALL}
    bases["SnakepitError"] = []
    assert drawn == bases


def test_all_lists_the_tree() -> None:
    assert sorted(cls.__name__ for cls in ALL) == errors.__all__


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_pickled_with_its_facts(cls: type[SnakepitError]) -> None:
    facts = _facts(cls)
    error = cls("what happened", **facts)
    error.add_note("a note")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert copy.args == error.args
    assert str(copy) == str(error)
    assert copy.__notes__ == ["a note"]
    for name, value in facts.items():
        assert repr(getattr(copy, name)) == repr(value), name


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_shown_as_its_message(cls: type[SnakepitError]) -> None:
    """`KeyError` would show the repr of the message."""
    assert str(cls("no session 'a'")) == "no session 'a'"


def test_remote_error_names_the_type() -> None:
    error = errors.RemoteError("boom", type_name="lib.Odd", traceback="Traceback …")
    assert str(error) == "lib.Odd: boom"
    assert error.message == "boom"
