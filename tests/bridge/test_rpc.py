"""What all RPCs share: the gate that a stop closes, and the bound of tool calls."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from fix_timeouts import scaled

from snakepit_mp.bridge.rpc import RpcGate, ToolCalls
from snakepit_mp.errors import PoolClosed, PoolSaturated


class Context:
    """An RPC, as far as the gate looks at it."""

    def __init__(self, over: bool = False) -> None:
        self.over = over
        self.callbacks: list[Callable[[], None]] = []

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return not self.over

    def end(self) -> None:
        for callback in self.callbacks:
            callback()


def test_close_waits_for_those_inside() -> None:
    gate, context = RpcGate(), Context()
    gate.enter(context)
    closer = threading.Thread(target=gate.close, args=(None,))
    closer.start()
    while not _refuses(gate):
        assert closer.is_alive()
    context.end()
    closer.join(scaled(5))
    assert not closer.is_alive()


def _refuses(gate: RpcGate) -> bool:
    try:
        gate.enter(Context(over=True))
    except PoolClosed:
        return True
    return False


def test_close_waits_no_longer_than_told() -> None:
    gate = RpcGate()
    gate.enter(Context())
    gate.close(0)
    with pytest.raises(PoolClosed):
        gate.enter(Context())


def test_an_rpc_that_is_over_already_does_not_count() -> None:
    gate = RpcGate()
    gate.enter(Context(over=True))
    gate.close(None)


def test_tool_calls_are_bounded_and_counted() -> None:
    calls = ToolCalls(2)
    with calls.running("s"):
        with calls.running("s"):
            assert calls.count("s") == 2
            with pytest.raises(PoolSaturated, match="2 tool calls"), calls.running(None):
                pytest.fail("one too many")
        assert calls.count("s") == 1
        with calls.running(None):
            assert calls.count("s") == 1
    assert calls.count("s") == 0
