"""Records give back what was put into them."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_mp.store import records
from snakepit_mp.store.session_store import SessionStore

any_text = st.text(st.characters(exclude_categories=()), max_size=40)


@given(any_text)
def test_every_name_has_bytes(name: str) -> None:
    assert records.text(records.key(name)) == name


@given(any_text, st.integers(0, 10**12))
def test_an_id_contains_name_and_number(name: str, number: int) -> None:
    assert records.number_in(f"var_{name}_{number}") == (name, number)


@pytest.mark.parametrize(
    "other", ["", "x", "var_", "var_x", "x_1", "var_x_", "var_x_1a", "var_x_²"]
)
def test_other_names_are_no_ids(other: str) -> None:
    assert records.number_in(other) is None


@given(st.binary(max_size=records.INLINE_BYTES))
def test_short_values_become_words(data: bytes) -> None:
    words = records.inline_words(data)
    assert len(words) == -(-len(data) // 8)
    assert data == b"".join(word.to_bytes(8, sys.byteorder) for word in words)[: len(data)]


@pytest.mark.parametrize("name", ["a", "a" * 7, "a" * 8, "ä" * 300, "\ud800", "with\0null"])
def test_names_of_any_length_and_kind_are_kept(store: SessionStore, name: str) -> None:
    store.create_session(name, metadata={"k": name})
    store.register_variable(name, name, "string", name, metadata={"k": name})
    assert [(info.id, info.metadata) for info in store.list_sessions()] == [(name, {"k": name})]
    variable = store.get_variable(name, name)
    assert (variable.name, variable.value, variable.metadata) == (name, name, {"k": name})


@pytest.mark.parametrize("length", range(38, 58))
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
