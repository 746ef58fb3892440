"""How does a NumPy dtype become text, and text that dtype again?

Plain dtypes are bool, ints, floats and complex numbers of a size that all machines share,
``datetime64``, ``timedelta64``, fixed strings and raw bytes, in both byte orders; they are
written as ``dtype.str`` gives them. A structured dtype is a JSON object: its size, whether it
is aligned, and for each field its name, dtype, offset and, if there is one, title. A field that
is an array is a list of its dtype and its shape. NumPy's own parser sees none of these texts
before they are found to be harmless.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["dtype_named", "is_plain", "name_of"]

_UNIT = r"(?:\[(?:[1-9][0-9]{0,8})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
_LENGTH = r"[1-9][0-9]{0,8}"
_PLAIN = re.compile(
    rf"\|(?:b1|[iu]1|[SV]{_LENGTH})|[<>](?:[iu][248]|f[248]|c8|c16|U{_LENGTH}|[Mm]8{_UNIT})",
    re.ASCII,
)
_LONGEST_NAME = 0xFFFF
_DEEPEST = 16


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether the raw elements of this dtype say everything about it."""
    return name_of(dtype) is not None


def name_of(dtype: np.dtype[Any]) -> bytes | None:
    """The text for this dtype, ``None`` if it is not plain, nor made of plain ones."""
    described = _describe(dtype, 0)
    if described is None:
        return None
    if isinstance(described, str):
        return described.encode("ascii")
    name = json.dumps(described, separators=(",", ":")).encode("ascii")
    # What is strange enough not to come back the same, e.g. a subclass of a dtype.
    return name if len(name) <= _LONGEST_NAME and dtype_named(name) == dtype else None


def _describe(dtype: np.dtype[Any], depth: int) -> str | list[Any] | dict[str, Any] | None:
    if dtype.metadata is not None or depth > _DEEPEST:
        return None
    if dtype.subdtype is not None:
        base = _describe(dtype.subdtype[0], depth + 1)
        return None if base is None else [base, *dtype.subdtype[1]]
    if dtype.fields is None:
        return dtype.str if _PLAIN.fullmatch(dtype.str) else None
    fields = []
    for name in dtype.names or ():
        field, offset, *title = dtype.fields[name]
        inner = _describe(field, depth + 1)
        if inner is None or not all(isinstance(text, str) for text in title):
            return None
        fields.append([name, inner, offset, *title])
    return {"size": dtype.itemsize, "aligned": dtype.isalignedstruct, "fields": fields}


@lru_cache(maxsize=256)
def dtype_named(name: bytes) -> np.dtype[Any] | None:
    """The dtype of that text, ``None`` if there is none."""
    text = name.decode("latin-1")
    try:
        return _made(json.loads(text) if text.startswith("{") else text, 0)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None  # no JSON, or what NumPy refuses: a string too long, offsets that overlap


def _made(described: Any, depth: int) -> np.dtype[Any]:
    import numpy as np

    if depth > _DEEPEST:
        raise ValueError("too deep")
    if isinstance(described, str):
        if _PLAIN.fullmatch(described) is None:
            raise ValueError("not plain")
        return np.dtype(described)
    if isinstance(described, list):
        base, *shape = described
        if not all(type(length) is int for length in shape):
            raise ValueError("no shape")
        return np.dtype((_made(base, depth + 1), tuple(shape)))
    size, aligned, fields = described["size"], described["aligned"], described["fields"]
    columns: dict[str, Any] = {"names": [], "formats": [], "offsets": [], "itemsize": size}
    titles = [field[3] if len(field) > 3 else None for field in fields]
    for field in fields:
        columns["names"].append(field[0])
        columns["formats"].append(_made(field[1], depth + 1))
        columns["offsets"].append(field[2])
    if any(title is not None for title in titles):
        columns["titles"] = titles
    made: np.dtype[Any] = np.dtype(columns, align=aligned is True)  # type: ignore[call-overload]
    return made
