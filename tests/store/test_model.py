"""The whole store against plain dicts, step by step, through two handles."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from fix_store import assert_intact, small_store
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from snakepit_mp.errors import (
    ConstraintViolation,
    SessionLimitReached,
    SessionNotFound,
    StoreError,
    StoreFull,
    VariableExists,
    VariableNotFound,
    VariableTypeError,
    VersionConflict,
)
from snakepit_mp.store.session_store import SessionStore

TTL = 10
MOST_SESSIONS, MOST_VARIABLES = 4, 6

ids = st.sampled_from(["a", "b", "c", "ä", "e", "f"])
names = st.sampled_from(["x", "y", "z", "var_x_1", "n5", "n6", "n7", "n8"])
some_values = st.one_of(
    st.integers(),
    st.text(max_size=5),
    st.builds(lambda n, c: c * n, st.integers(30, 60), st.sampled_from("ab")),
    st.builds(lambda n: b"z" * n, st.integers(0, 30_000)),
    st.lists(st.floats(allow_nan=False), max_size=3),
)
numbers = st.integers(-10, 10)


@dataclass
class Known:
    """A variable as the model knows it."""

    value: Any
    version: int = 1
    constraints: dict[str, Any] = field(default_factory=dict)
    bounded: bool = False
    keeps: int = 0
    old: list[tuple[int, Any]] = field(default_factory=list)

    def put(self, value: Any) -> int:
        """A new value; its version."""
        self.old = [(self.version, self.value), *self.old][: self.keeps]
        self.value, self.version = value, self.version + 1
        return self.version


@dataclass
class Session:
    used: int
    variables: dict[str, Known] = field(default_factory=dict)
    programs: dict[str, tuple[int, Any]] = field(default_factory=dict)


class StoreMachine(RuleBasedStateMachine):
    """Every rule does the same to the store and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10**9
        first = small_store(
            session_ttl=TTL,
            max_sessions=MOST_SESSIONS,
            max_variables_per_session=MOST_VARIABLES,
            max_bytes=4 << 20,
        )
        second = SessionStore.attach(map(os.dup, first.descriptors()), first.config)
        self.handles = [first, second]
        for handle in self.handles:
            handle._freeze_clock(self.now)
        self.model: dict[str, Session] = {}
        self.hidden = Session(self.now)
        self.turn = 0

    @property
    def store(self) -> SessionStore:
        """One handle after the other."""
        self.turn += 1
        return self.handles[self.turn % 2]

    def expire(self) -> None:
        self.model = {
            key: session
            for key, session in self.model.items()
            if self.now - session.used < TTL * 10**9
        }

    def use(self, session_id: str) -> Session:
        """The model's session, in use; or what the store must raise."""
        self.expire()
        if session_id not in self.model:
            raise SessionNotFound("")
        session = self.model[session_id]
        session.used = self.now
        return session

    def variable(self, session_id: str, name: str) -> Known:
        session = self.use(session_id)
        if name not in session.variables:
            raise VariableNotFound("")
        return session.variables[name]

    def agree(self, model: Any, real: Any) -> Any:
        """Both return the same, or raise the same."""
        try:
            expected = model()
        except StoreError as error:
            with pytest.raises(type(error)):
                real()
            return None
        found = real()
        assert found == expected
        return found

    @rule(session_id=ids)
    def create(self, session_id: str) -> None:
        def model() -> str:
            self.expire()
            if session_id not in self.model and len(self.model) >= MOST_SESSIONS:
                raise SessionLimitReached("")
            self.model.setdefault(session_id, Session(self.now)).used = self.now
            return session_id

        self.agree(model, lambda: self.store.create_session(session_id).id)

    @rule(session_id=ids)
    def delete(self, session_id: str) -> None:
        def model() -> int:
            self.use(session_id)
            return len(self.model.pop(session_id).variables)

        self.agree(model, lambda: self.store.delete_session(session_id))

    @rule(session_id=ids, name=names, value=some_values, keeps=st.integers(0, 3))
    def register(self, session_id: str, name: str, value: Any, keeps: int) -> None:
        self._register(session_id, name, value, None, keeps)

    @rule(session_id=ids, name=names, value=numbers, keeps=st.integers(0, 3))
    def register_bounded(self, session_id: str, name: str, value: int, keeps: int) -> None:
        self._register(session_id, name, value, {"min": -100, "max": 100}, keeps)

    def _register(
        self,
        session_id: str,
        name: str,
        value: Any,
        constraints: dict[str, Any] | None,
        keeps: int,
    ) -> None:
        def model() -> Any:
            session = self.use(session_id)
            if name in session.variables:
                raise VariableExists("")
            if len(session.variables) >= MOST_VARIABLES:
                raise SessionLimitReached("")
            bounded = constraints is not None
            session.variables[name] = Known(value, 1, constraints or {}, bounded, keeps)
            return value

        kind = "any" if constraints is None else "integer"
        self.agree(
            model,
            lambda: (
                self.store.register_variable(
                    session_id, name, kind, value, constraints=constraints, history=keeps
                ).value
            ),
        )

    @rule(session_id=ids, name=names, value=numbers, guess=st.none() | st.integers(1, 3))
    def update(self, session_id: str, name: str, value: int, guess: int | None) -> None:
        def model() -> int:
            known = self.variable(session_id, name)
            self.obey(known, value)
            if guess not in (None, known.version):
                raise VersionConflict("")
            return known.put(value)

        self.agree(
            model,
            lambda: self.store.update_variable(session_id, name, value, expected_version=guess),
        )

    @rule(session_id=ids, batch=st.dictionaries(names, numbers | some_values, max_size=4))
    def update_many(self, session_id: str, batch: dict[str, Any]) -> None:
        def model() -> dict[str, int]:
            session = self.use(session_id)
            for name, value in batch.items():
                known = self.variable(session_id, name)
                if known.bounded and type(value) is not int:
                    raise StoreError("")
                self.obey(known, value)
            for name, value in batch.items():
                session.variables[name].put(value)
            return {name: session.variables[name].version for name in batch}

        self.agree(model, lambda: self.store.update_variables(session_id, batch))

    @rule(session_id=ids, name=names, by=numbers)
    def increment(self, session_id: str, name: str, by: int) -> None:
        def model() -> Any:
            known = self.variable(session_id, name)
            if type(known.value) is not int:
                raise VariableTypeError("")
            self.obey(known, known.value + by)
            known.put(known.value + by)
            return known.value

        self.agree(model, lambda: self.store.increment(session_id, name, by))

    @rule(session_id=ids, name=names, expected=numbers | some_values, value=numbers)
    def compare_and_set(self, session_id: str, name: str, expected: Any, value: int) -> None:
        def model() -> bool:
            known = self.variable(session_id, name)
            self.obey(known, value)
            if known.value != expected:
                return False
            known.put(value)
            return True

        self.agree(model, lambda: self.store.compare_and_set(session_id, name, expected, value))

    @rule(session_id=ids, name=names, version=st.integers(1, 6))
    def roll_back(self, session_id: str, name: str, version: int) -> None:
        def model() -> int:
            known = self.variable(session_id, name)
            kept = dict([(known.version, known.value), *known.old])
            if version not in kept:
                raise VersionConflict("")
            self.obey(known, kept[version])
            return known.put(kept[version])

        self.agree(model, lambda: self.store.rollback(session_id, name, version))

    @rule(session_id=ids | st.none(), name=names, value=some_values)
    def put_program(self, session_id: str | None, name: str, value: Any) -> None:
        def model() -> int:
            programs = self.owner(session_id).programs
            version = programs.get(name, (0, None))[0] + 1
            programs[name] = version, value
            return version

        self.agree(model, lambda: self.store.put_program(session_id, name, value))

    @rule(session_id=ids | st.none(), name=names)
    def delete_program(self, session_id: str | None, name: str) -> None:
        def model() -> None:
            if self.owner(session_id).programs.pop(name, None) is None:
                raise VariableNotFound("")

        self.agree(model, lambda: self.store.delete_program(session_id, name))

    def owner(self, session_id: str | None) -> Session:
        """Whose programs these are, in use."""
        return self.hidden if session_id is None else self.use(session_id)

    @rule(session_id=ids, name=names, most=numbers)
    def constrain(self, session_id: str, name: str, most: int) -> None:
        def model() -> dict[str, Any]:
            known = self.variable(session_id, name)
            if not known.bounded:
                raise StoreError("")  # `any` takes no bounds
            if known.value > most:
                raise ConstraintViolation("")
            known.constraints = {"max": most}
            return known.constraints

        self.agree(
            model, lambda: self.store.set_constraints(session_id, name, {"max": most}).constraints
        )

    @rule(session_id=ids, name=names)
    def forget(self, session_id: str, name: str) -> None:
        def model() -> None:
            self.variable(session_id, name)
            del self.model[session_id].variables[name]

        self.agree(model, lambda: self.store.delete_variable(session_id, name))

    @rule(session_id=ids)
    def too_much(self, session_id: str) -> None:
        # Whether the session or the room is looked for first is nobody's business.
        with pytest.raises((StoreFull, SessionNotFound, SessionLimitReached)):
            self.store.register_variable(session_id, "huge", "any", b"x" * (5 << 20))
        self.expire()
        if session_id in self.model:
            self.store.touch_session(session_id)
            self.use(session_id)

    @rule(seconds=st.integers(1, TTL + 1))
    def wait(self, seconds: int) -> None:
        self.now += seconds * 10**9
        for handle in self.handles:
            handle._freeze_clock(self.now)

    @rule()
    def sweep(self) -> None:
        self.store.cleanup_expired_sessions()

    @staticmethod
    def obey(known: Known, value: Any) -> None:
        low, high = known.constraints.get("min"), known.constraints.get("max")
        if (low is not None and value < low) or (high is not None and value > high):
            raise ConstraintViolation("")

    @invariant()
    def same(self) -> None:
        self.expire()
        store = self.store
        assert sorted(info.id for info in store.list_sessions()) == sorted(self.model)
        self.same_programs(None, self.hidden)
        for key, session in self.model.items():
            found = {v.name: (v.value, v.version, v.constraints) for v in store.list_variables(key)}
            session.used = self.now
            assert found == {
                name: (known.value, known.version, known.constraints)
                for name, known in session.variables.items()
            }
            for name, known in session.variables.items():
                kept = [(old.version, old.value) for old in store.history(key, name)]
                assert kept == [(known.version, known.value), *known.old]
            self.same_programs(key, session)

    def same_programs(self, owner: str | None, session: Session) -> None:
        found = {
            name: self.store.get_program(owner, name) for name in self.store.list_programs(owner)
        }
        assert found == {name: value for name, (_, value) in session.programs.items()}

    def teardown(self) -> None:
        first, second = self.handles
        assert_intact(first)
        for key in list(self.model):
            first.delete_session(key)
        assert_intact(second)
        second.close()
        first.close()


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
