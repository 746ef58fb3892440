"""How do our records become the protocol's messages? Variables, tools, times, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from ..adapter import ParameterSpec, ToolSpec
from ..errors import ConstraintError
from ..store.records import Variable
from . import convert, json_values
from . import snakepit_bridge_pb2 as pb
from .status import shown

__all__ = ["constraints_in", "saturated", "strings", "timestamp", "tool", "variable"]

_LARGEST_INT32 = 2**31 - 1


def saturated(version: int) -> int:
    """A version as far as an ``int32`` field can tell it."""
    return min(version, _LARGEST_INT32)


def timestamp(seconds: float) -> Timestamp:
    """Seconds since the epoch, to the microsecond."""
    message = Timestamp()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def strings(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as the protocol has it: strings as they are, anything else as JSON."""
    return {shown(str(key)): shown(_string(value)) for key, value in metadata.items()}


def _string(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    try:
        return json_values.dumps(value).decode()
    except json_values.NotJsonError:
        return repr(value)


def variable(
    record: Variable, *, lossless: bool = False, with_metadata: bool = True
) -> pb.Variable:
    """A variable with its value. ``lossless``: in our own encoding."""
    encoded = convert.encode(record.value, record.type, lossless=lossless)
    return pb.Variable(
        id=shown(record.id),
        name=shown(record.name),
        type=record.type,
        value=encoded.any,
        binary_value=encoded.binary,
        constraints_json=shown(_json(record.constraints)),
        metadata=strings(record.metadata) if with_metadata else {},
        last_updated_at=timestamp(record.updated_at),
        version=saturated(record.version),
        version_64=record.version,
    )


def constraints_in(text: str) -> dict[str, Any] | None:
    """The constraint set that a client wrote as JSON; ``None`` for none."""
    if not text:
        return None
    constraints = json_values.loads(text.encode(), "constraints_json")
    if not isinstance(constraints, dict):
        raise ConstraintError("constraints_json must be a JSON object")
    return {name: _limit(name, limit) for name, limit in constraints.items()}


def _limit(name: str, limit: Any) -> Any:
    """Bounds may be infinite, which JSON says with a string."""
    if name in ("min", "max") and isinstance(limit, str):
        return json_values.SPECIAL.get(limit, limit)
    return limit


def tool(spec: ToolSpec) -> pb.ToolSpec:
    """What a client needs to know to call a tool."""
    metadata = {"idempotent": json.dumps(spec.idempotent), "signature": shown(spec.signature)}
    if spec.timeout is not None:
        metadata["timeout"] = json.dumps(spec.timeout)
    return pb.ToolSpec(
        name=shown(spec.name),
        description=shown(spec.description),
        parameters=[_parameter(parameter) for parameter in spec.parameters],
        metadata=metadata,
        supports_streaming=spec.streaming,
        required_variables=map(shown, spec.required_variables),
    )


def _parameter(spec: ParameterSpec) -> pb.ParameterSpec:
    # A default of None may also be one that is no plain data: then it is not told.
    known = None if spec.default is None else convert.encode(spec.default, sibling=False).any
    return pb.ParameterSpec(
        name=shown(spec.name),
        type=shown(spec.type),
        required=spec.required,
        default_value=known,
        validation_json='{"variadic": true}' if spec.variadic else "",
    )
