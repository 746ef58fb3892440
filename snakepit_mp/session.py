"""How do an application and a tool use one session? As a mapping of its variables.

`Session` (application) and `SessionContext` (tool) are the same mapping over the store;
the first also runs tools in the session, the second knows about the call it serves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from .errors import SessionNotFound, StoreClosed, VariableExists, VariableNotFound
from .store.access import VariableAccess
from .store.batch import Batch
from .store.facts import Facts
from .store.history import OldValue
from .store.records import SessionInfo, Variable
from .store.session_store import SessionStore
from .store.watch import Change

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Executor", "Session", "SessionContext", "VariableMapping"]


class Executor(Protocol):
    """What runs a session's tools: a pool."""

    def execute(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> Any: ...

    def submit(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> Future[Any]: ...

    def stream(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> Iterator[Any]: ...

    def map(
        self,
        command: str | Callable[..., Any],
        iterable: Iterable[Any],
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        window: int | None = None,
        ordered: bool = True,
        on_error: str = "raise",
    ) -> Iterator[Any]: ...


class VariableMapping(VariableAccess, Mapping[str, Any]):
    """The variables of one session: always the stored value, never a cached one.

    ``s["x"] = v`` registers a variable that does not exist, with the type of its value,
    unless ``strict``. A list or dict is a fresh copy on every read; an array is read-only.
    """

    def __init__(
        self, store: SessionStore | None, session_id: str | None, *, strict: bool = False
    ) -> None:
        self._store = store
        self._session_id = session_id
        self.strict = strict
        if store is not None and session_id is not None:
            store.bind(self, session_id)

    @property
    def session_id(self) -> str | None:
        """The session's id, ``None`` in a call without a session."""
        return self._session_id

    # What ``s[name]`` and ``s[name] = value`` come to where that is not one short look.

    def _read(self, name: str) -> Any:
        store, session_id = self._target()
        return store.get_value(session_id, name)

    def _read_many(self, names: list[str]) -> dict[str, Any]:
        store, session_id = self._target()
        return store.get_values(session_id, names)

    def _facts(self, name: str) -> Facts | None:
        store, session_id = self._target()
        try:
            return store.facts(session_id, name)
        except VariableNotFound:
            return None

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or ``default`` if there is no such variable; a session there must be."""
        try:
            return self[name]
        except VariableNotFound:
            return default

    def _write(self, name: str, value: Any) -> None:
        store, session_id = self._target()
        while True:
            try:
                store.update_variable(session_id, name, value)
                return
            except VariableNotFound:
                if self.strict:
                    raise
            try:
                store.register_variable(session_id, name, None, value)
                return
            except VariableExists:
                pass  # somebody was faster: update theirs

    def __delitem__(self, name: str) -> None:
        self.delete_variable(name)

    def __contains__(self, name: object) -> bool:
        store, session_id = self._target()
        return isinstance(name, str) and name != "" and store.has_variable(session_id, name)

    def __iter__(self) -> Iterator[str]:
        store, session_id = self._target()
        return iter(store.variable_names(session_id))

    def __len__(self) -> int:
        return self.info().variable_count

    # Two sessions are not equal for having equal variables at some moment.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        return True  # also without variables

    def info(self) -> SessionInfo:
        """Dates, metadata and counts of the session."""
        store, session_id = self._target()
        return store.get_session(session_id)

    def touch(self) -> None:
        """Begin the session's TTL anew."""
        store, session_id = self._target()
        store.touch_session(session_id)

    def register_variable(
        self,
        name: str,
        type: str | type[Any] | None,  # noqa: A002  the protocol's word
        value: Any,
        *,
        constraints: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        history: int = 0,
        exist_ok: bool = False,
    ) -> Variable:
        """As `SessionStore.register_variable`."""
        store, session_id = self._target()
        return store.register_variable(
            session_id,
            name,
            type,
            value,
            constraints=constraints,
            metadata=metadata,
            history=history,
            exist_ok=exist_ok,
        )

    def get_variable(self, name: str) -> Variable:
        """As `SessionStore.get_variable`."""
        store, session_id = self._target()
        return store.get_variable(session_id, name)

    def get_value(self, name: str) -> Any:
        """The same as ``s[name]``."""
        return self[name]

    def get_variables(
        self, names: Iterable[str], *, missing_ok: bool = False
    ) -> dict[str, Variable]:
        """As `SessionStore.get_variables`: a snapshot of one moment."""
        store, session_id = self._target()
        return store.get_variables(session_id, names, missing_ok=missing_ok)

    def update_variable(self, name: str, value: Any, *, expected_version: int | None = None) -> int:
        """As `SessionStore.update_variable`."""
        store, session_id = self._target()
        return store.update_variable(session_id, name, value, expected_version=expected_version)

    def update_variables(self, values: Mapping[str, Any], *, atomic: bool = True) -> dict[str, Any]:
        """As `SessionStore.update_variables`."""
        if atomic and type(values) is dict:
            quick = self._update(values)
            if quick is not None:
                return dict(quick)
        store, session_id = self._target()
        return store.update_variables(session_id, values, atomic=atomic)

    def allocate(self, shape: int | tuple[int, ...], dtype: Any = "f8") -> np.ndarray[Any, Any]:
        """As `SessionStore.allocate`."""
        return self._target()[0].allocate(shape, dtype)

    def increment(self, name: str, by: Any = 1) -> Any:
        """As `SessionStore.increment`."""
        store, session_id = self._target()
        return store.increment(session_id, name, by)

    def compare_and_set(self, name: str, expected_value: Any, value: Any) -> bool:
        """As `SessionStore.compare_and_set`."""
        store, session_id = self._target()
        return store.compare_and_set(session_id, name, expected_value, value)

    def update(self, name: str, fn: Callable[[Any], Any]) -> Any:
        """As `SessionStore.update`."""
        store, session_id = self._target()
        return store.update(session_id, name, fn)

    def batch(self) -> Batch:
        """As `SessionStore.batch`: ``with s.batch() as b: b["x"] = 1; b["y"] = 2``."""
        store, session_id = self._target()
        return store.batch(session_id)

    def history(self, name: str) -> list[OldValue]:
        """As `SessionStore.history`."""
        store, session_id = self._target()
        return store.history(session_id, name)

    def rollback(self, name: str, version: int) -> int:
        """As `SessionStore.rollback`."""
        store, session_id = self._target()
        return store.rollback(session_id, name, version)

    def watch(
        self, names: Iterable[str] | None = None, *, timeout: float | None = None
    ) -> Iterator[Change]:
        """As `SessionStore.watch`."""
        store, session_id = self._target()
        return store.watch(session_id, names, timeout=timeout)

    def put_program(self, name: str, value: Any) -> int:
        """As `SessionStore.put_program`, in this session."""
        store, session_id = self._target()
        return store.put_program(session_id, name, value)

    def get_program(self, name: str) -> Any:
        """As `SessionStore.get_program`, of this session."""
        store, session_id = self._target()
        return store.get_program(session_id, name)

    def list_programs(self, pattern: str = "*") -> list[str]:
        """As `SessionStore.list_programs`, of this session."""
        store, session_id = self._target()
        return store.list_programs(session_id, pattern)

    def delete_program(self, name: str) -> None:
        """As `SessionStore.delete_program`, of this session."""
        store, session_id = self._target()
        store.delete_program(session_id, name)

    def delete_variable(self, name: str) -> None:
        """As `SessionStore.delete_variable`."""
        store, session_id = self._target()
        store.delete_variable(session_id, name)

    def list_variables(self, pattern: str = "*") -> list[Variable]:
        """As `SessionStore.list_variables`."""
        store, session_id = self._target()
        return store.list_variables(session_id, pattern)

    def set_constraints(self, name: str, constraints: Mapping[str, Any] | None) -> Variable:
        """As `SessionStore.set_constraints`."""
        store, session_id = self._target()
        return store.set_constraints(session_id, name, constraints)

    def _target(self) -> tuple[SessionStore, str]:
        if self._store is None or self._session_id is None:
            raise SessionNotFound("this call has no session: give it one with session_id=")
        return self._store, self._session_id


class Session(VariableMapping):
    """A session in the application: its variables, and tools run with them.

    As a context manager it deletes the session at the end if ``delete_on_exit``, as it is
    where the pool made up the id. ``executor`` is what `execute` and the others hand on to.
    """

    def __init__(
        self,
        store: SessionStore,
        session_id: str,
        executor: Executor | None = None,
        *,
        delete_on_exit: bool = False,
        strict: bool = False,
    ) -> None:
        super().__init__(store, session_id, strict=strict)
        self._executor = executor
        self.delete_on_exit = delete_on_exit

    @property
    def id(self) -> str:
        """The session's id."""
        return self._target()[1]

    def execute(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> Any:
        """As `Pool.execute`, in this session."""
        return self._runner().execute(
            command, args, session_id=self.id, timeout=timeout, retries=retries, affinity=affinity
        )

    def submit(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> Future[Any]:
        """As `Pool.submit`, in this session."""
        return self._runner().submit(
            command, args, session_id=self.id, timeout=timeout, retries=retries, affinity=affinity
        )

    def stream(
        self,
        command: str | Callable[..., Any],
        args: object = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        affinity: str | None = None,
    ) -> Iterator[Any]:
        """As `Pool.stream`, in this session."""
        return self._runner().stream(
            command, args, session_id=self.id, timeout=timeout, retries=retries, affinity=affinity
        )

    def map(
        self,
        command: str | Callable[..., Any],
        iterable: Iterable[Any],
        *,
        timeout: float | None = None,
        retries: int | None = None,
        window: int | None = None,
        ordered: bool = True,
        on_error: str = "raise",
    ) -> Iterator[Any]:
        """As `Pool.map`, in this session."""
        return self._runner().map(
            command,
            iterable,
            session_id=self.id,
            timeout=timeout,
            retries=retries,
            window=window,
            ordered=ordered,
            on_error=on_error,
        )

    def delete(self) -> int:
        """Delete the session now; how many variables went with it."""
        store, session_id = self._target()
        return store.delete_session(session_id)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.delete_on_exit:
            # Gone already: expired, deleted by somebody, or the whole store closed.
            with contextlib.suppress(SessionNotFound, StoreClosed):
                self.delete()

    def __repr__(self) -> str:
        return f"<Session {self._session_id!r}>"

    def _runner(self) -> Executor:
        if self._executor is None:
            raise TypeError("this session was opened without a pool, so it cannot run tools")
        return self._executor


class SessionContext(VariableMapping):
    """What a tool's ``ctx`` is: the caller's session, and facts about this call.

    ``attempt``: 1 at first, more when the call is run again after a worker's death.
    ``deadline``: when the caller gives up, on the clock of ``time.monotonic()``, or
    ``None``. ``cancelled``: whether it has given up. In a call without a session every variable raises `SessionNotFound`.
    """

    def __init__(
        self,
        store: SessionStore | None,
        session_id: str | None,
        *,
        attempt: int = 1,
        deadline: float | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        strict: bool = False,
    ) -> None:
        super().__init__(store, session_id, strict=strict)
        self.attempt = attempt
        self.deadline = deadline
        self._cancelled = cancelled

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this call any more: time to stop, and to tidy up."""
        return self._cancelled()

    def __repr__(self) -> str:
        return f"<SessionContext of session {self._session_id!r}, attempt {self.attempt}>"
