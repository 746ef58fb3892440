"""Names become keys, ids are taken apart, and programs collide with no variable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_mp.store.layout import HIDDEN, STRIPE_COUNT
from snakepit_mp.store.places import Keys, digest_of, text

KEYS = Keys(b"k" * 16)

any_text = st.text(st.characters(exclude_categories=()), max_size=40)


@given(any_text)
def test_every_name_has_bytes(name: str) -> None:
    assert text(KEYS.variable(name).key) == text(KEYS.place(name).key) == name


@given(any_text, st.integers(0, 10**12))
def test_an_id_contains_name_and_number(name: str, number: int) -> None:
    key = KEYS.variable(f"var_{name}_{number}")
    assert key.other is not None
    assert (key.number, key.other.name, key.other.number) == (0, name, number)


@pytest.mark.parametrize(
    "other", ["", "x", "var_", "var_x", "x_1", "var_x_", "var_x_1a", "var_x_²"]
)
def test_other_names_are_no_ids(other: str) -> None:
    assert KEYS.variable(other).other is None


@given(any_text)
def test_a_program_has_a_key_of_its_own(name: str) -> None:
    key = KEYS.program(name)
    assert (key.name, key.key[:1]) == (name, HIDDEN)
    assert not KEYS.variable(name).key.startswith(HIDDEN)
    assert not KEYS.place(name).key.startswith(HIDDEN)


def test_the_seed_decides_where_a_session_is() -> None:
    place = KEYS.place("s")
    assert place.digest == digest_of(b"k" * 16, b"s") != digest_of(b"l" * 16, b"s")
    assert place.stripe == place.digest % STRIPE_COUNT
    assert KEYS.hidden_place().key == HIDDEN
