"""Records as messages: nothing of ours is too strange for Protobuf."""

from __future__ import annotations

import json

import pytest
from fix_bridge import LocalTools

from snakepit_mp import Adapter, ToolSpec, Variable, tool
from snakepit_mp.adapter import tools_of
from snakepit_mp.bridge import convert, messages
from snakepit_mp.errors import CodecError, ConstraintError

INT32 = 2**31 - 1


def record(**changes: object) -> Variable:
    facts = {
        "id": "var_x_1",
        "name": "x",
        "type": "float",
        "value": 0.5,
        "constraints": {"min": 0.0, "choices": [0.5, float("inf")]},
        "metadata": {"unit": "K", "rank": 3, "raw": b"\0"},
        "version": 7,
        "created_at": 1.0,
        "updated_at": 1_700_000_000.25,
    }
    return Variable(**{**facts, **changes})  # type: ignore[arg-type]


def test_variable() -> None:
    message = messages.variable(record())
    assert (message.id, message.name, message.type) == ("var_x_1", "x", "float")
    assert convert.decode(message.value) == 0.5
    assert json.loads(message.constraints_json) == {"min": 0.0, "choices": [0.5, "Infinity"]}
    assert dict(message.metadata) == {"unit": "K", "rank": "3", "raw": r"b'\x00'"}
    assert (message.version, message.version_64) == (7, 7)
    assert message.last_updated_at.ToNanoseconds() == 1_700_000_000_250_000_000


def test_values_go_by_the_type_of_the_variable() -> None:
    message = messages.variable(record(type="choice", value="a"))
    assert message.value.type_url == "type.googleapis.com/snakepit.choice"


def test_infinite_bounds_come_back() -> None:
    text = messages.variable(record(constraints={"min": float("-inf"), "max": 1.0}))
    assert messages.constraints_in(text.constraints_json) == {"min": float("-inf"), "max": 1.0}
    assert messages.constraints_in('{"max": "1", "pattern": "NaN"}') == {
        "max": "1",
        "pattern": "NaN",
    }


def test_variable_without_metadata() -> None:
    assert not messages.variable(record(), with_metadata=False).metadata


def test_lossless_variable() -> None:
    message = messages.variable(record(type="any", value=(1, 2)), lossless=True)
    assert convert.decode(message.value) == (1, 2)


@pytest.mark.parametrize(
    ("version", "told"), [(1, 1), (INT32, INT32), (INT32 + 1, INT32), (2**62, INT32)]
)
def test_versions_saturate(version: int, told: int) -> None:
    message = messages.variable(record(version=version))
    assert (message.version, message.version_64) == (told, version)


def test_names_that_are_no_unicode() -> None:
    assert messages.variable(record(name="a\ud800")).name == "a?"


@pytest.mark.parametrize(
    ("text", "constraints"), [("", None), ("{}", {}), ('{"min": 1}', {"min": 1})]
)
def test_constraints(text: str, constraints: object) -> None:
    assert messages.constraints_in(text) == constraints


def test_bad_constraints() -> None:
    with pytest.raises(ConstraintError, match="object"):
        messages.constraints_in("[1]")
    with pytest.raises(CodecError, match="constraints_json is not JSON"):
        messages.constraints_in("{")


class Described(Adapter):
    @tool(timeout=2.5, idempotent=True, required_variables=("t",))
    def sample(self, prompt: str, n: int = 3, raw: bytes = b"\0", **options: float) -> str:
        """Draw samples."""
        return prompt


def test_tool() -> None:
    message = messages.tool(tools_of(Described)["sample"])
    assert (message.name, message.description) == ("sample", "Draw samples.")
    assert not message.supports_streaming
    assert list(message.required_variables) == ["t"]
    assert message.metadata["timeout"] == "2.5"
    assert message.metadata["idempotent"] == "true"
    prompt, n, raw, options = message.parameters
    assert (prompt.name, prompt.type, prompt.required) == ("prompt", "str", True)
    assert not prompt.HasField("default_value")
    assert (n.required, convert.decode(n.default_value)) == (False, 3)
    assert convert.decode(raw.default_value) == b"\0"
    assert json.loads(options.validation_json) == {"variadic": True}
    assert messages.tool(tools_of(LocalTools)["count"]).supports_streaming


def test_tool_without_facts() -> None:
    assert messages.tool(ToolSpec("bare")).name == "bare"
