"""The variable RPCs, called by a client: results, statuses, and what stays after an error."""

from __future__ import annotations

import json
from typing import Any

import grpc
import numpy as np
import pytest
from fix_bridge import Bridge, status_of

from snakepit_mp.bridge import convert
from snakepit_mp.bridge import snakepit_bridge_pb2 as pb
from snakepit_mp.bridge.rpc import VALUES_KEY

INVALID = grpc.StatusCode.INVALID_ARGUMENT
HOST = "type.googleapis.com/snakepit."


@pytest.fixture
def client(bridge: Bridge) -> Client:
    bridge.store.create_session("s")
    return Client(bridge)


class Client:
    """Short forms of the calls, in session ``s``."""

    def __init__(self, bridge: Bridge) -> None:
        self.stub, self.store = bridge.stub, bridge.store

    def register(self, name: str, type_: str, value: Any, **fields: Any) -> Any:
        encoded = convert.encode(value)
        fields = {"session_id": "s", "initial_binary_value": encoded.binary, **fields}
        return self.stub.RegisterVariable(
            pb.RegisterVariableRequest(name=name, type=type_, initial_value=encoded.any, **fields)
        )

    def get(self, name: str, **call: Any) -> pb.Variable:
        request = pb.GetVariableRequest(session_id="s", variable_identifier=name, bypass_cache=True)
        answer = self.stub.GetVariable(request, **call)
        assert not answer.from_cache
        variable: pb.Variable = answer.variable
        return variable

    def set(self, name: str, value: Any, **fields: Any) -> Any:
        encoded = convert.encode(value)
        fields = {"session_id": "s", "binary_value": encoded.binary, **fields}
        return self.stub.SetVariable(
            pb.SetVariableRequest(variable_identifier=name, value=encoded.any, **fields)
        )

    def set_many(self, values: dict[str, Any], **fields: Any) -> pb.BatchSetVariablesResponse:
        encoded = {name: convert.encode(value) for name, value in values.items()}
        answer: pb.BatchSetVariablesResponse = self.stub.SetVariables(
            pb.BatchSetVariablesRequest(
                session_id="s",
                updates={name: value.any for name, value in encoded.items()},
                binary_updates={n: value.binary for n, value in encoded.items() if value.binary},
                **fields,
            )
        )
        return answer


def test_register_and_get(client: Client) -> None:
    answer = client.register(
        "t", "float", 0.5, constraints_json='{"min": 0, "max": 2}', metadata={"unit": "K"}
    )
    assert answer.success
    for identifier in ("t", answer.variable_id):
        variable = client.get(identifier)
        assert (variable.id, variable.name, variable.type) == (answer.variable_id, "t", "float")
        assert convert.decode(variable.value) == 0.5
        assert json.loads(variable.constraints_json) == {"min": 0, "max": 2}
        assert dict(variable.metadata) == {"unit": "K"}
        assert (variable.version, variable.version_64) == (1, 1)
    assert client.store.get_value("s", "t") == 0.5


def test_register_without_a_type_infers_it(client: Client) -> None:
    client.register("n", "", 3)
    assert client.get("n").type == "integer"


def test_large_tensor(client: Client) -> None:
    array = np.arange(5000, dtype=np.float32).reshape(50, 100)
    client.register("w", "tensor", array)
    variable = client.get("w")
    assert variable.value.type_url == HOST + "tensor.binary"
    np.testing.assert_array_equal(convert.decode(variable.value, variable.binary_value), array)
    client.set("w", array + 1)
    stored = client.store.get_value("s", "w")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, array + 1)


def test_lossless_on_request(client: Client) -> None:
    client.store.register_variable("s", "x", "any", {1: (b"b", None)})
    plain = client.get("x")
    assert convert.is_lossless(plain.value)  # JSON has no form for it
    client.store.register_variable("s", "y", "any", (1,))
    assert client.get("y").value.type_url == HOST + "list"
    exact = client.get("y", metadata=[(VALUES_KEY, "lossless")])
    assert convert.decode(exact.value) == (1,)
    encoded = convert.encode((2,), lossless=True).any
    client.stub.SetVariable(
        pb.SetVariableRequest(session_id="s", variable_identifier="y", value=encoded)
    )
    assert client.store.get_value("s", "y") == (2,)


@pytest.mark.parametrize(
    ("fields", "code", "complaint"),
    [
        ({"session_id": "nobody"}, grpc.StatusCode.NOT_FOUND, "nobody"),
        ({"constraints_json": "{"}, INVALID, "constraints_json"),
        ({"constraints_json": "[]"}, INVALID, "object"),
        ({"constraints_json": '{"min": 2, "max": 1}'}, INVALID, "min"),
        ({"constraints_json": '{"colour": 2}'}, INVALID, "colour"),
        ({"constraints_json": '{"min": 1}'}, INVALID, "min"),
        ({"initial_binary_value": b"x"}, INVALID, "initial_value"),
    ],
)
def test_register_refused(
    client: Client, fields: dict[str, Any], code: grpc.StatusCode, complaint: str
) -> None:
    got, details = status_of(lambda: client.register("t", "float", 0.5, **fields))
    assert got is code
    assert complaint in details
    assert client.store.list_variables("s") == []


@pytest.mark.parametrize(
    ("name", "type_", "value"),
    [("t", "matrix", 1), ("t", "integer", "one"), ("t", "boolean", 1), ("", "float", 1.0)],
)
def test_register_nonsense(client: Client, name: str, type_: str, value: Any) -> None:
    assert status_of(lambda: client.register(name, type_, value))[0] is INVALID


def test_register_without_a_value(client: Client) -> None:
    request = pb.RegisterVariableRequest(session_id="s", name="t", type="float")
    code, details = status_of(lambda: client.stub.RegisterVariable(request))
    assert code is INVALID
    assert details == "initial_value is missing"


def test_register_twice(client: Client) -> None:
    client.register("t", "float", 0.5)
    code, _ = status_of(lambda: client.register("t", "float", 0.6))
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert client.store.get_value("s", "t") == 0.5


def test_set(client: Client) -> None:
    client.register("t", "float", 0.5)
    answer = client.set("t", 0.6)
    assert (answer.success, answer.new_version, answer.new_version_64) == (True, 2, 2)
    assert client.store.get_value("s", "t") == 0.6


@pytest.mark.parametrize("field", ["expected_version", "expected_version_64"])
def test_compare_and_set(client: Client, field: str) -> None:
    client.register("t", "float", 0.5)
    assert client.set("t", 0.6, **{field: 1}).new_version == 2
    code, details = status_of(lambda: client.set("t", 0.7, **{field: 1}))
    assert code is grpc.StatusCode.ABORTED
    assert "2" in details
    assert client.store.get_value("s", "t") == 0.6
    assert client.set("t", 0.7, **{field: 0}).new_version == 3
    code, _ = status_of(lambda: client.set("t", 0.8, **{field: -1}))
    assert code is INVALID


def test_the_exact_expectation_wins(client: Client) -> None:
    client.register("t", "float", 0.5)
    assert client.set("t", 0.6, expected_version=9, expected_version_64=1).success


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("t", "warm", INVALID),
        ("t", 3.5, INVALID),
        ("t", True, INVALID),
        ("u", 1.0, grpc.StatusCode.NOT_FOUND),
    ],
)
def test_set_refused(client: Client, name: str, value: Any, code: grpc.StatusCode) -> None:
    client.register("t", "float", 0.5, constraints_json='{"max": 2}')
    assert status_of(lambda: client.set(name, value))[0] is code
    assert client.get("t").version == 1


def test_value_nested_too_deeply(client: Client) -> None:
    client.register("x", "any", None)
    text = "[" * 200 + "]" * 200
    value = convert.encode(1).any
    value.type_url, value.value = HOST + "list", text.encode()
    request = pb.SetVariableRequest(session_id="s", variable_identifier="x", value=value)
    assert status_of(lambda: client.stub.SetVariable(request))[0] is INVALID


@pytest.mark.parametrize("name", ["t", "n"])
def test_an_integer_too_long_to_be_spelled(client: Client, name: str) -> None:
    client.register("t", "float", 0.5)
    client.register("n", "integer", 1, constraints_json='{"max": 9}')
    value = convert.encode(10**5000, lossless=True).any
    request = pb.SetVariableRequest(session_id="s", variable_identifier=name, value=value)
    assert status_of(lambda: client.stub.SetVariable(request))[0] is INVALID


def test_get_many(client: Client) -> None:
    client.register("a", "integer", 1, metadata={"k": "v"})
    b = client.register("b", "integer", 2, metadata={"k": "v"}).variable_id
    request = pb.BatchGetVariablesRequest(
        session_id="s", variable_identifiers=["nope", "a", b, "gone"]
    )
    answer = client.stub.GetVariables(request)
    assert {n: convert.decode(v.value) for n, v in answer.variables.items()} == {"a": 1, b: 2}
    assert list(answer.missing_variables) == ["nope", "gone"]
    assert not answer.variables["a"].metadata
    request.include_metadata = True
    answer = client.stub.GetVariables(request)
    assert dict(answer.variables["a"].metadata) == {"k": "v"}


@pytest.mark.parametrize("atomic", [True, False])
def test_set_many(client: Client, atomic: bool) -> None:
    client.register("a", "integer", 1)
    client.register("w", "tensor", np.zeros(2000))
    answer = client.set_many({"a": 5, "w": np.ones(2000)}, atomic=atomic)
    assert answer.success
    assert dict(answer.new_versions) == dict(answer.new_versions_64) == {"a": 2, "w": 2}
    assert client.store.get_value("s", "a") == 5
    assert client.store.get_value("s", "w").sum() == 2000


BAD = {"a": 5, "b": 50, "nope": 1, "c": "x"}


def _three(client: Client) -> None:
    for name in "abc":
        client.register(name, "integer", 1, constraints_json='{"max": 9}')


def test_atomic_batch_tells_every_fault_and_writes_nothing(client: Client) -> None:
    _three(client)
    answer = client.set_many(BAD, atomic=True)
    assert not answer.success
    assert set(answer.errors) == {"b", "nope", "c"}
    assert "max" in answer.errors["b"]
    assert "integer" in answer.errors["c"]
    assert not answer.new_versions
    assert {v.version for v in client.store.list_variables("s")} == {1}


def test_other_batch_writes_what_is_good(client: Client) -> None:
    _three(client)
    answer = client.set_many(BAD, atomic=False)
    assert not answer.success
    assert set(answer.errors) == {"b", "nope", "c"}
    assert dict(answer.new_versions) == {"a": 2}
    assert [v.value for v in client.store.list_variables("s")] == [5, 1, 1]


@pytest.mark.parametrize("atomic", [True, False])
def test_batch_with_values_that_cannot_be_read(client: Client, atomic: bool) -> None:
    _three(client)
    request = pb.BatchSetVariablesRequest(session_id="s", atomic=atomic)
    request.updates["a"].CopyFrom(convert.encode(2).any)
    request.updates["b"].type_url = HOST + "integer"
    request.binary_updates["c"] = b"x"
    answer = client.stub.SetVariables(request)
    assert set(answer.errors) == {"b", "c"}
    assert dict(answer.new_versions) == ({} if atomic else {"a": 2})


@pytest.mark.parametrize("atomic", [True, False])
def test_batch_in_no_session(client: Client, atomic: bool) -> None:
    request = pb.BatchSetVariablesRequest(session_id="nobody", atomic=atomic)
    request.updates["a"].CopyFrom(convert.encode(2).any)
    code, _ = status_of(lambda: client.stub.SetVariables(request))
    assert code is grpc.StatusCode.NOT_FOUND


def test_atomic_batch_for_which_there_is_no_room(client: Client) -> None:
    client.register("a", "string", "small")
    code, _ = status_of(lambda: client.set_many({"a": "x" * (20 << 20)}, atomic=True))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.store.get_value("s", "a") == "small"


def test_list(client: Client) -> None:
    for name in ("zeta", "alpha", "beta"):
        client.register(name, "integer", 1)

    def names(pattern: str) -> list[str]:
        request = pb.ListVariablesRequest(session_id="s", pattern=pattern)
        return [variable.name for variable in client.stub.ListVariables(request).variables]

    assert names("") == names("*") == ["zeta", "alpha", "beta"]
    assert names("*et*") == ["zeta", "beta"]
    assert names("et") == []


def test_delete(client: Client) -> None:
    client.register("a", "integer", 1)
    request = pb.DeleteVariableRequest(session_id="s", variable_identifier="a")
    assert client.stub.DeleteVariable(request).success
    assert client.store.list_variables("s") == []
    assert status_of(lambda: client.stub.DeleteVariable(request))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("rpc", "request_of"),
    [
        ("GetVariable", pb.GetVariableRequest),
        ("SetVariable", pb.SetVariableRequest),
        ("GetVariables", pb.BatchGetVariablesRequest),
        ("ListVariables", pb.ListVariablesRequest),
        ("DeleteVariable", pb.DeleteVariableRequest),
    ],
)
def test_unknown_session(client: Client, rpc: str, request_of: type) -> None:
    request = request_of(session_id="nobody")
    if rpc == "SetVariable":
        request.value.CopyFrom(convert.encode(1).any)
    assert status_of(lambda: getattr(client.stub, rpc)(request))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("type_", "first", "second", "constraints", "wrong", "complaint"),
    [
        ("choice", "a", "b", {"choices": ["a", "b"]}, "c", "is not among"),
        ("module", "A", "B", {"allowed_modules": ["A", "B"]}, "C", "is not among"),
        ("embedding", [1, 2.5], [3.0, 4.0], {"dimensions": 2}, [1], "does not have 2 dimensions"),
        ("list", [1], ["a", None], {"max_length": 2}, [1, 2, 3], "has 3 items"),
        ("map", {"a": 1}, {}, {"max_length": 1}, {"a": 1, "b": 2}, "has 2 keys"),
        ("bytes", b"a", b"", {"max_length": 1}, b"ab", "has 2 bytes"),
        ("string", "ab", "", {"pattern": "[ab]*", "nullable": True}, "c", "does not match"),
    ],
)
def test_every_type_over_the_wire(
    client: Client,
    type_: str,
    first: Any,
    second: Any,
    constraints: dict[str, Any],
    wrong: Any,
    complaint: str,
) -> None:
    client.register("x", type_, first, constraints_json=json.dumps(constraints))
    assert client.set("x", second).new_version == 2
    variable = client.get("x")
    assert variable.value.type_url.startswith(HOST + type_)
    assert np.array_equal(convert.decode(variable.value, variable.binary_value), second)
    assert json.loads(variable.constraints_json) == constraints
    code, details = status_of(lambda: client.set("x", wrong))
    assert code is INVALID
    assert "variable 'x'" in details
    assert complaint in details
    assert complaint in client.set_many({"x": wrong}, atomic=True).errors["x"]
    assert client.get("x").version == 2


def test_a_large_embedding_keeps_its_dtype(client: Client) -> None:
    vector = np.arange(3000, dtype="f4")
    client.register("e", "embedding", vector, constraints_json='{"dtype": "float32"}')
    variable = client.get("e")
    assert variable.value.type_url == HOST + "embedding.binary"
    client.set("e", [0.5] * 3)  # a list of numbers takes the dtype that was asked for
    assert client.store.get_value("s", "e").dtype == np.float32


def test_nothing_only_where_it_is_allowed(client: Client) -> None:
    client.register("x", "choice", None, constraints_json='{"nullable": true}')
    assert client.get("x").value.value == b"null"
    client.store.set_constraints("s", "x", {"nullable": True, "choices": ["a"]})
    client.set("x", "a")
    client.store.set_constraints("s", "x", None)
    code, details = status_of(lambda: client.set("x", None))
    assert (code, details) == (INVALID, "variable 'x': None (type NoneType) is no choice")
