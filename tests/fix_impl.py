"""Fixtures that run a test once for each twin.

Where the extension is not built the compiled half is skipped, and says so; where
``SNAKEPIT_MP_IMPL=c`` orders it, it cannot be missing: the import fails. With
``SNAKEPIT_MP_IMPL=python`` there is only one twin.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from snakepit_mp import _accel
from snakepit_mp.values import codec, validator


@dataclass(frozen=True)
class Codec:
    """One twin of the codec."""

    name: str
    encode: Callable[..., bytes]
    decode: Callable[..., Any]
    encode_size: Callable[..., int]
    encode_into: Callable[..., int]


TWINS = ["python"] if os.environ.get("SNAKEPIT_MP_IMPL") == "python" else ["python", "c"]


@pytest.fixture(params=TWINS)
def impl(request: pytest.FixtureRequest) -> str:
    """``"python"``, then ``"c"``."""
    name: str = request.param
    if name == "c" and _accel.speedups is None:
        pytest.skip("the compiled part snakepit_mp._speedups is not built")
    return name


@pytest.fixture
def codec_impl(impl: str) -> Codec:
    """The codec of that twin."""
    if impl == "python":
        functions = ("py_decode", "py_encode_size", "py_encode_into")
        return Codec(impl, codec.py_encode, *(getattr(codec, name) for name in functions))
    assert _accel.speedups is not None
    functions = ("encode", "decode", "encode_size", "encode_into")
    return Codec(impl, *(getattr(_accel.speedups, name) for name in functions))


@pytest.fixture
def validator_impl(impl: str) -> type[validator.PyValidator]:
    """The validator of that twin."""
    return validator_of(impl)


def validator_of(impl: str) -> type[validator.PyValidator]:
    """The validator of the twin of that name, which must be there."""
    if impl == "python":
        return validator.PyValidator
    assert _accel.speedups is not None
    twin: type[validator.PyValidator] = _accel.speedups.Validator
    return twin
