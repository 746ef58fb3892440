"""What do the RPCs on variables do? One operation of the store each, and its result."""

# ruff: noqa: N802 - the protocol names the methods

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import (
    CodecError,
    InvalidArguments,
    SessionNotFound,
    SnakepitError,
    StoreError,
)
from ..store.records import Variable
from ..store.session_store import SessionStore
from ..values.validator import Validator
from . import convert, messages
from . import snakepit_bridge_pb2 as pb
from .rpc import RpcGate, rpc, wants_lossless
from .status import shown, text_of

__all__ = ["VariableRpcs"]


class VariableRpcs:
    """The variable RPCs of ``BridgeService``."""

    gate: RpcGate
    _store: SessionStore

    @rpc
    def RegisterVariable(
        self, request: pb.RegisterVariableRequest, context: Any
    ) -> pb.RegisterVariableResponse:
        record = self._store.register_variable(
            request.session_id,
            request.name,
            request.type or None,
            convert.decode(
                request.initial_value, request.initial_binary_value, what="initial_value"
            ),
            constraints=messages.constraints_in(request.constraints_json),
            metadata=dict(request.metadata),
        )
        return pb.RegisterVariableResponse(success=True, variable_id=record.id)

    @rpc
    def GetVariable(self, request: pb.GetVariableRequest, context: Any) -> pb.GetVariableResponse:
        lossless = wants_lossless(context)
        record = self._store.get_variable(request.session_id, request.variable_identifier)
        # Every read is fresh, so that bypass_cache asks for what happens anyway.
        return pb.GetVariableResponse(variable=messages.variable(record, lossless=lossless))

    @rpc
    def SetVariable(self, request: pb.SetVariableRequest, context: Any) -> pb.SetVariableResponse:
        expected = request.expected_version_64 or request.expected_version
        if expected < 0:
            raise InvalidArguments(f"expected_version must not be negative, but is {expected}")
        version = self._store.update_variable(
            request.session_id,
            request.variable_identifier,
            convert.decode(request.value, request.binary_value),
            expected_version=expected or None,
        )
        return pb.SetVariableResponse(
            success=True, new_version=messages.saturated(version), new_version_64=version
        )

    @rpc
    def GetVariables(
        self, request: pb.BatchGetVariablesRequest, context: Any
    ) -> pb.BatchGetVariablesResponse:
        lossless = wants_lossless(context)
        asked = request.variable_identifiers
        found = self._store.get_variables(request.session_id, asked, missing_ok=True)
        return pb.BatchGetVariablesResponse(
            variables={
                name: messages.variable(
                    record, lossless=lossless, with_metadata=request.include_metadata
                )
                for name, record in found.items()
            },
            missing_variables=[name for name in asked if name not in found],
        )

    @rpc
    def SetVariables(
        self, request: pb.BatchSetVariablesRequest, context: Any
    ) -> pb.BatchSetVariablesResponse:
        values, errors = _decoded(request)
        if not request.atomic:
            versions = {}
            for name, value in values.items():
                outcome = self._update(request.session_id, name, value)
                if isinstance(outcome, int):
                    versions[name] = outcome
                else:
                    errors[name] = outcome
            return _written(versions, errors)
        if errors:
            return _written({}, {**self._faults(request.session_id, values), **errors})
        try:
            return _written(self._store.update_variables(request.session_id, values), {})
        except StoreError:
            faults = self._faults(request.session_id, values)
            if not faults:
                raise  # no value is to blame: the store is full, or somebody was quicker
            return _written({}, faults)

    @rpc
    def ListVariables(
        self, request: pb.ListVariablesRequest, context: Any
    ) -> pb.ListVariablesResponse:
        lossless = wants_lossless(context)
        found = self._store.list_variables(request.session_id, request.pattern or "*")
        return pb.ListVariablesResponse(
            variables=[messages.variable(record, lossless=lossless) for record in found]
        )

    @rpc
    def DeleteVariable(
        self, request: pb.DeleteVariableRequest, context: Any
    ) -> pb.DeleteVariableResponse:
        self._store.delete_variable(request.session_id, request.variable_identifier)
        return pb.DeleteVariableResponse(success=True)

    # Faults are texts from here on: an exception that is kept would keep its frames, and with
    # them all that gRPC holds for the call.

    def _update(self, session_id: str, name: str, value: Any) -> int | str:
        """The new version, or what is wrong."""
        try:
            return self._store.update_variable(session_id, name, value)
        except SessionNotFound:
            raise
        except SnakepitError as error:
            return text_of(error)

    def _faults(self, session_id: str, values: Mapping[str, Any]) -> dict[str, str]:
        """What is wrong with each value of a batch of which nothing was written."""
        known = self._store.get_variables(session_id, values, missing_ok=True)
        faults = {name: _fault(name, known.get(name), value) for name, value in values.items()}
        return {name: fault for name, fault in faults.items() if fault}


def _decoded(request: pb.BatchSetVariablesRequest) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a batch, and for those that cannot be read what is wrong."""
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, message in request.updates.items():
        try:
            values[name] = convert.decode(message, request.binary_updates.get(name, b""))
        except CodecError as error:
            errors[name] = text_of(error)
    for name in request.binary_updates.keys() - request.updates.keys():
        errors[name] = "binary_updates has bytes for it, but updates no value"
    return values, errors


def _fault(name: str, record: Variable | None, value: Any) -> str | None:
    if record is None:
        return f"no variable {name!r} in this session"
    try:
        Validator(record.type, record.constraints, record.name).prepare(value)
    except SnakepitError as error:
        return text_of(error)
    return None


def _written(
    versions: Mapping[str, int], errors: Mapping[str, str]
) -> pb.BatchSetVariablesResponse:
    return pb.BatchSetVariablesResponse(
        success=not errors,
        errors={name: shown(text) for name, text in errors.items()},
        new_versions={name: messages.saturated(version) for name, version in versions.items()},
        new_versions_64=versions,
    )
