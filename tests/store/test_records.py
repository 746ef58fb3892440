"""Records give back what was put into them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_mp.errors import StoreError
from snakepit_mp.store import records
from snakepit_mp.store.layout import INLINE_BYTES, SMALL_HEADER, WORD
from snakepit_mp.store.places import VariableParts
from snakepit_mp.store.records import RawSession, RawVariable
from snakepit_mp.store.session_store import SessionStore

HEADER = bytes(SMALL_HEADER * WORD)

some_bytes = st.binary(max_size=60)
words = st.integers(0, (1 << 64) - 1)


@given(st.text(max_size=60).map(str.encode), some_bytes, words, words)
def test_a_sessions_record_says_what_was_put_in(
    key: bytes, metadata: bytes, number: int, ttl: int
) -> None:
    payload = records.session_record(key, metadata, digest=1, number=number, ttl=ttl, now=3, wall=4)
    assert RawSession.parse(HEADER + payload) == RawSession(
        key, metadata, ttl, 3, 4, variables=0, programs=0, worker=0, number=number
    )


@given(st.text(max_size=60).map(str.encode), st.binary(max_size=2 * INLINE_BYTES), words)
def test_a_variables_record_says_what_was_put_in(key: bytes, value: bytes, number: int) -> None:
    payload = records.variable_record(
        key,
        b"string",
        value,
        digest=1,
        number=number,
        wall=5,
        facts=7,
        block=9 if len(value) > INLINE_BYTES else 0,
        history=8,
    )
    found = RawVariable.parse(VariableParts(HEADER + payload, b"facts", value))
    assert found == RawVariable(key, "string", number, 1, 5, 5, b"facts", 0, value)


@given(st.binary(max_size=400))
def test_bytes_that_are_no_record_are_damage(data: bytes) -> None:
    for parse in (RawSession.parse, lambda data: RawVariable.parse(VariableParts(data, b"", b""))):
        with contextlib.suppress(StoreError):
            assert isinstance(parse(data).name, str)


def test_a_record_that_is_cut_off_is_damage() -> None:
    payload = records.session_record(b"s", b"m", digest=1, number=2, ttl=0, now=3, wall=4)
    for length in range(len(HEADER + payload)):
        with pytest.raises(StoreError, match="damaged"):
            RawSession.parse((HEADER + payload)[:length])


@pytest.mark.parametrize("name", ["a", "a" * 7, "a" * 8, "ä" * 300, "\ud800", "with\0null"])
def test_names_of_any_length_and_kind_are_kept(store: SessionStore, name: str) -> None:
    store.create_session(name, metadata={"k": name})
    store.register_variable(name, name, "string", name, metadata={"k": name})
    assert [(info.id, info.metadata) for info in store.list_sessions()] == [(name, {"k": name})]
    variable = store.get_variable(name, name)
    assert (variable.name, variable.value, variable.metadata) == (name, name, {"k": name})


@pytest.mark.parametrize("length", range(22, 46))
def test_values_around_the_inline_limit(store: SessionStore, length: int) -> None:
    store.create_session("s")
    store.register_variable("s", "grows", "string", "a" * length)
    store.register_variable("s", "swings", "string", "")
    for _ in range(2):
        store.update_variable("s", "swings", "b" * length)
        assert store.get_value("s", "swings") == "b" * length
        store.update_variable("s", "swings", "c")
        assert store.get_value("s", "swings") == "c"
    assert store.get_value("s", "grows") == "a" * length
