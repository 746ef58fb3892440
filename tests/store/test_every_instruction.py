"""A process is killed at some instructions of every kind of operation; the tool does it at all.

`make crash-exhaustive` kills at each one that changes what outlives the process.
"""

from __future__ import annotations

import pytest
from fix_store import COMPILED, FORKS
from fix_timeouts import scaled

from snakepit_mp.errors import StoreError
from snakepit_mp.store.session_store import SessionStore

if not COMPILED:
    pytest.skip("only compiled code has instructions to stop at", allow_module_level=True)
crash_exhaustive = pytest.importorskip("tools.crash_exhaustive", reason="not in a checkout")
single_step = pytest.importorskip("tools.single_step")
if reason := single_step.refusal():
    pytest.skip(reason, allow_module_level=True)

pytestmark = [FORKS, pytest.mark.timeout(scaled(60))]

#: Prime, and each about a fifth of what the operation has.
STRIDES = {
    "set inline": 7,
    "set block": 11,
    "set large": 41,
    "set history": 11,
    "batch": 97,
    "create variable": 13,
    "delete variable": 17,
    "create session": 11,
    "repair after stripe.applying": 19,
    "repair after allocator.committed": 19,
    "collect committed": 23,
}


@pytest.mark.parametrize("name", STRIDES)
def test_a_kill_at_any_instruction_leaves_the_old_or_the_new_state(name: str) -> None:
    result = crash_exhaustive.examine(name, STRIDES[name])
    assert result.violations == []
    assert result.kills > 3
    assert result.missed == 0


def test_what_is_torn_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(world: crash_exhaustive.World) -> crash_exhaustive.Call:
        """The child has written something before what is killed."""
        world.write("block", b"1" * 500)()
        return world.write("small", b"2" * 20)

    operation = crash_exhaustive.Operation(torn)
    monkeypatch.setitem(crash_exhaustive.OPERATIONS, "torn", operation)
    result = crash_exhaustive.examine("torn", 17)
    assert any("neither the old nor the new" in one for one in result.violations)


def test_a_store_that_cannot_be_locked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[str]:
        raise StoreError("locked for ever")

    monkeypatch.setattr(SessionStore, "verify", refuse)
    result = crash_exhaustive.examine("set inline", 17)
    assert all("locked for ever" in one for one in result.violations)
    assert len(result.violations) == result.kills
