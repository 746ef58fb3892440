"""The generated protocol against the published one, which clients in other languages speak."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
)

from snakepit_mp.bridge import snakepit_bridge_pb2

#: Every RPC and field of Snakepit 0.4, and the two that 0.13 added.
PUBLISHED = (Path(__file__).parent / "snakepit_0_4.txt").read_text().splitlines()
#: Numbers from here up are our own.
OURS = 100


def _file() -> FileDescriptorProto:
    proto = FileDescriptorProto()
    snakepit_bridge_pb2.DESCRIPTOR.CopyToProto(proto)
    return proto


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    for entry in message.nested_type:
        if entry.options.map_entry and field.type_name.endswith(f".{message.name}.{entry.name}"):
            key, value = (_type(part, entry) for part in entry.field)
            return f"map<{key}, {value}>"
    repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    scalar = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    name = field.type_name.lstrip(".").removeprefix("snakepit.bridge.")
    return repeated + (name.removeprefix(f"{message.name}.") or scalar)


def _fields(message: DescriptorProto) -> list[tuple[int, str]]:
    return [(f.number, f"{_type(f, message)} {f.name} = {f.number}") for f in message.field]


def _rpc(method: MethodDescriptorProto) -> str:
    request, response = (
        name.removeprefix(".snakepit.bridge.") for name in (method.input_type, method.output_type)
    )
    stream = "stream " if method.server_streaming else ""
    return f"rpc {method.name}({request}) returns ({stream}{response})"


def test_package_and_service() -> None:
    assert _file().package == "snakepit.bridge"
    assert [service.name for service in _file().service] == ["BridgeService"]


def test_rpcs_are_the_published_ones() -> None:
    published = [line for line in PUBLISHED if line.startswith("rpc ")]
    assert sorted(map(_rpc, _file().service[0].method)) == sorted(published)


def test_fields_are_the_published_ones() -> None:
    ours = [
        f"{message.name}: {text}"
        for message in _file().message_type
        for number, text in _fields(message)
        if number < OURS
    ]
    ours += [
        f"{message.name}: enum {enum.name}: "
        + ", ".join(f"{value.name}={value.number}" for value in enum.value)
        for message in _file().message_type
        for enum in message.enum_type
    ]
    assert sorted(ours) == sorted(line for line in PUBLISHED if not line.startswith("rpc "))


def test_fields_of_our_own() -> None:
    ours = {
        f"{message.name}: {text}"
        for message in _file().message_type
        for number, text in _fields(message)
        if number >= OURS
    }
    assert ours == {
        "BatchSetVariablesResponse: map<string, int64> new_versions_64 = 100",
        "ExecuteToolRequest: bytes envelope = 100",
        "ExecuteToolResponse: bytes envelope = 100",
        "SetVariableRequest: int64 expected_version_64 = 100",
        "SetVariableResponse: int64 new_version_64 = 100",
        "Variable: int64 version_64 = 100",
    }
