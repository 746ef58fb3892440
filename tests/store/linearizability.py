"""Is there an order in which these operations, one at a time, give these results?

A history holds what each process called, when, and what came back. It is linearizable if every
operation can be put at one moment between its call and its return, so that a plain dictionary
would have answered the same. The search is that of Wing and Gong with Lowe's memory of where it
has been. An operation that never returned, as of a killed process, may have happened at any time
after its call, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CONFLICT", "EXISTS", "MISSING", "Operation", "by_variable", "why_not"]

#: Results of what was refused.
MISSING, EXISTS, CONFLICT = "missing", "exists", "conflict"

#: By variable, in the order of their names: value and version; `_ABSENT` where there is none.
State = tuple[tuple[Any, int], ...]
_ABSENT = (None, 0)


@dataclass(frozen=True, slots=True)
class Operation:
    """One call. ``returned``: ``None`` for one that is pending for ever.

    ``kind`` and ``argument``: "read" names, "write" {name: value}, "compare" {name: (version,
    value)}, "add" {name: number}, "create" {name: value}, "delete" names. ``result``: of "read"
    the list of (value, version), `MISSING` in the place of one that is not there; of "delete"
    ``None``; of the others the list of new versions; or why it was refused as a whole. A version
    that was not told is ``None``.
    """

    process: int
    called: int
    returned: int | None
    kind: str
    argument: Any
    result: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The variables that it is about."""
        return tuple(self.argument)

    def __str__(self) -> str:
        until = "never" if self.returned is None else self.returned
        return (
            f"process {self.process} [{self.called}, {until}] {self.kind} {self.argument} "
            f"-> {self.result}"
        )


def by_variable(history: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations on each variable; every one must be about a single one."""
    found: dict[str, list[Operation]] = {}
    for operation in history:
        [name] = operation.names
        found.setdefault(name, []).append(operation)
    return found


def why_not(history: Sequence[Operation], initial: dict[str, tuple[Any, int]]) -> str | None:
    """``None`` if the history is linearizable; else where the longest order ended.

    ``initial``: value and version of the variables that were there.
    """
    return _Search(history, initial).run()


class _Search:
    def __init__(self, history: Sequence[Operation], initial: dict[str, tuple[Any, int]]) -> None:
        names = sorted({name for operation in history for name in operation.names} | set(initial))
        self._place = {name: number for number, name in enumerate(names)}
        self._start: State = tuple(initial.get(name, _ABSENT) for name in names)
        self._history = sorted(history, key=lambda operation: operation.called)
        self._must = sum(1 << n for n, op in enumerate(self._history) if op.returned is not None)
        self._been: set[tuple[int, State]] = set()
        self._furthest = 0, 0, self._start

    def run(self) -> str | None:
        """Depth first: what has been done (one bit each) and the state are all that matters."""
        ways: list[Iterator[tuple[int, State]]] = [iter([(0, self._start)])]
        while ways:
            step = next(ways[-1], None)
            if step is None:
                ways.pop()
                continue
            done, state = step
            if done & self._must == self._must:
                return None
            if step not in self._been:
                self._been.add(step)
                self._furthest = max(self._furthest, (done.bit_count(), *step), key=lambda x: x[0])
                ways.append(self._next(done, state))
        return self._story()

    def _candidates(self, done: int) -> list[int]:
        """What may come next: called before anything that is still to come has returned."""
        found: list[int] = []
        limit: int | None = None
        first = (~done & (done + 1)).bit_length() - 1
        for number in range(first, len(self._history)):
            operation = self._history[number]
            if limit is not None and operation.called > limit:
                break
            if not done >> number & 1:
                found.append(number)
                if operation.returned is not None:
                    limit = min(limit or operation.returned, operation.returned)
        return found

    def _next(self, done: int, state: State) -> Iterator[tuple[int, State]]:
        changes = []
        for number in self._candidates(done):
            operation = self._history[number]
            after = self._after(state, operation)
            if after is None:
                continue
            if after == state:  # nothing is ever lost by putting it here
                yield done | 1 << number, state
                return
            changes.append((done | 1 << number, after))
        yield from changes

    # The dictionary.

    def _after(self, state: State, operation: Operation) -> State | None:
        """The state after an operation, ``None`` where it would have had another result."""
        after, result = getattr(self, f"_{operation.kind}")(state, operation)
        if operation.returned is None or _same(result, operation.result):
            return tuple(after)
        return None

    def _read(self, state: State, operation: Operation) -> tuple[State, Any]:
        found = (state[self._place[name]] for name in operation.names)
        return state, [MISSING if entry == _ABSENT else entry for entry in found]

    def _write(self, state: State, operation: Operation) -> tuple[Sequence[Any], Any]:
        if _ABSENT in (state[self._place[name]] for name in operation.names):
            return state, MISSING
        after = list(state)
        for name, value in operation.argument.items():
            after[self._place[name]] = (value, state[self._place[name]][1] + 1)
        return after, [after[self._place[name]][1] for name in operation.names]

    def _compare(self, state: State, operation: Operation) -> tuple[Sequence[Any], Any]:
        [(name, (expected, value))] = operation.argument.items()
        _, version = state[self._place[name]]
        if version not in (0, expected):
            return state, [CONFLICT, version]
        return self._write(state, _about(operation, {name: value}))

    def _add(self, state: State, operation: Operation) -> tuple[Sequence[Any], Any]:
        [(name, number)] = operation.argument.items()
        value, version = state[self._place[name]]
        if version == 0:
            return state, MISSING
        return self._write(state, _about(operation, {name: value + number}))

    def _create(self, state: State, operation: Operation) -> tuple[Sequence[Any], Any]:
        [(name, value)] = operation.argument.items()
        if state[self._place[name]] != _ABSENT:
            return state, EXISTS
        after = list(state)
        after[self._place[name]] = (value, 1)
        return after, [1]

    def _delete(self, state: State, operation: Operation) -> tuple[Sequence[Any], Any]:
        [name] = operation.names
        if state[self._place[name]] == _ABSENT:
            return state, MISSING
        after = list(state)
        after[self._place[name]] = _ABSENT
        return after, None

    def _story(self) -> str:
        count, done, state = self._furthest
        left = [str(self._history[number]) for number in self._candidates(done)]
        values = {name: state[place] for name, place in self._place.items()}
        return f"after {count} operations it is {values}, and none of these fits:\n" + "\n".join(
            left
        )


def _about(operation: Operation, argument: Any) -> Operation:
    """The same operation with another argument."""
    return Operation(
        operation.process, operation.called, operation.returned, "write", argument, operation.result
    )


def _same(expected: Any, told: Any) -> bool:
    """Whether a result is the expected one; a version that was not told is any."""
    if not isinstance(expected, list) or not isinstance(told, list) or len(expected) != len(told):
        return bool(expected == told)
    for one, other in zip(expected, told, strict=True):
        if other is None:
            continue
        if isinstance(other, (tuple, list)) and other[1] is None:
            if one == MISSING or one[0] != other[0]:
                return False
        elif (tuple(other) if isinstance(other, list) else other) != one:
            return False
    return True
