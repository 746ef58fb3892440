"""How does a value travel as ``google.protobuf.Any``, and what is it when it arrives?

The type URL is ``type.googleapis.com/snakepit.<type>`` and the bytes are JSON; what is large,
or has no JSON form, has ``.binary`` at the end of its URL, a JSON header in the ``Any`` and
its bytes in a sibling field. Where neither is possible, and for whoever asked for it, the
URL is ``type.googleapis.com/snakepit_mp.value`` and the bytes are the lossless encoding.
``docs/protocol.md`` has the whole table.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from google.protobuf.any_pb2 import Any as AnyMessage

from ..errors import CodecError
from ..values import codec
from . import json_values, tensors

__all__ = ["LOSSLESS", "Encoded", "decode", "encode", "is_lossless"]

_HOST = "type.googleapis.com"
_FAMILY = "snakepit."
_BINARY = ".binary"
#: The type URL of the lossless encoding.
LOSSLESS = f"{_HOST}/snakepit_mp.value"
#: JSON, though the label says otherwise: how clients of Snakepit 0.13 label all they send.
_MISLABELLED = "google.protobuf.StringValue"
#: Arrays of more bytes than this do not travel as JSON where there is a sibling field.
_LARGEST_JSON_ARRAY = 10_240


class Encoded(NamedTuple):
    """A value on the wire: the message, and the bytes of the sibling field."""

    any: AnyMessage
    binary: bytes = b""


def is_lossless(message: AnyMessage) -> bool:
    """Whether this value came in the lossless encoding, so that answers may use it too."""
    return message.type_url.rpartition("/")[2] == "snakepit_mp.value"


def encode(
    value: Any, type_: str | None = None, *, lossless: bool = False, sibling: bool = True
) -> Encoded:
    """A value as a message. `CodecError` if it has no form on the wire at all.

    ``type_``: the type of the variable that it is the value of. ``lossless``: whoever gets
    it understands our own encoding. ``sibling``: the message in which it travels has a
    field for its bytes.
    """
    if not lossless:
        encoded = _encode_binary(value, type_) if sibling else None
        if encoded is not None:
            return encoded
        try:
            return Encoded(_message(*json_values.form(value, type_)))
        except json_values.NotJsonError:
            pass  # exact and unreadable is better than readable and wrong
    return Encoded(AnyMessage(type_url=LOSSLESS, value=codec.encode(value)))


def _encode_binary(value: Any, type_: str | None) -> Encoded | None:
    if isinstance(value, bytes):
        header = {"binary_format": "raw", "type": "bytes"}
        return Encoded(_message("bytes.binary", json.dumps(header).encode()), value)
    if not tensors.is_array(value) or not tensors.is_raw(value):
        return None
    if value.nbytes <= _LARGEST_JSON_ARRAY and value.dtype.kind != "c":
        return None
    header, data = tensors.raw(value)
    wire_type = "embedding" if type_ == "embedding" else "tensor"
    header = {**header, "binary_format": "numpy", "type": wire_type}
    return Encoded(_message(f"{wire_type}.binary", json.dumps(header).encode()), data)


def _message(type_: str, value: bytes) -> AnyMessage:
    return AnyMessage(type_url=f"{_HOST}/{_FAMILY}{type_}", value=value)


def decode(message: AnyMessage, binary: bytes = b"", *, what: str = "value") -> Any:
    """The value in a message, and in the sibling field that came with it.

    Whatever is wrong with it is a `CodecError` that names ``what``.
    """
    if not message.type_url:
        raise CodecError(f"{what} is missing", path=what)
    _, slash, name = message.type_url.rpartition("/")
    name = name.removeprefix(_FAMILY)
    if not slash or not name:
        raise _unknown(message, what)
    if name.endswith(_BINARY):
        return _decode_binary(name.removesuffix(_BINARY), message, binary, what)
    if binary:
        raise CodecError(
            f"{what} came with bytes beside it, but {message.type_url!r} takes none", path=what
        )
    if is_lossless(message):
        return _decode_lossless(message.value, what)
    if name == _MISLABELLED:
        return json_values.loads(message.value, what)
    if name not in json_values.TYPES:
        raise _unknown(message, what)
    return json_values.typed(name, json_values.loads(message.value, what), what)


def _unknown(message: AnyMessage, what: str) -> CodecError:
    known = ", ".join(sorted(json_values.TYPES))
    return CodecError(
        f"{what} has the type URL {message.type_url[:200]!r}; known are {LOSSLESS} and "
        f"{_HOST}/{_FAMILY}<type> with one of the types {known}",
        path=what,
    )


def _decode_lossless(data: bytes, what: str) -> Any:
    try:
        return codec.decode(data)
    except CodecError as error:
        raise CodecError(f"{what} cannot be decoded: {error}", path=what) from error


def _decode_binary(type_: str, message: AnyMessage, data: bytes, what: str) -> Any:
    header = json_values.typed("map", json_values.loads(message.value, what), what)
    form = header.get("binary_format")
    if type_ == "bytes" and form == "raw":
        return data
    if type_ not in ("tensor", "embedding"):
        raise _unknown(message, what)
    if form == "pickle":
        raise CodecError(
            f'{what} has the binary_format "pickle", which is refused: unpickling runs what '
            'the sender likes; send "numpy"',
            path=what,
        )
    if form != "numpy":
        raise CodecError(f'{what} must have the binary_format "numpy", not {form!r}', path=what)
    array = tensors.from_raw(header, data, what)
    if type_ == "tensor":
        return array
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise CodecError(f"{what} must have one axis of numbers to be an embedding", path=what)
    return array
