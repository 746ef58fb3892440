"""What does encoding cost? Both twins beside pickle, which is neither safe nor compact."""

from __future__ import annotations

import pickle

import pytest

from snakepit_mp import _accel
from snakepit_mp.values import codec

VALUES = {
    "float": 0.7,
    "int": 12345,
    "str": "a line of text",
    "dict_of_20": {f"key{number}": number for number in range(20)},
    "nested": {"rows": [{"id": 1, "tags": ("a", "b")}, {"id": 2, "tags": ()}], "ok": True},
}
CODECS = {
    "python": (codec.py_encode, codec.py_decode),
    "pickle": (lambda value: pickle.dumps(value, pickle.HIGHEST_PROTOCOL), pickle.loads),
}
if _accel.speedups is not None:
    CODECS["compiled"] = (_accel.speedups.encode, _accel.speedups.decode)


@pytest.mark.parametrize("by", CODECS)
@pytest.mark.parametrize("name", VALUES)
def bench_encode(benchmark, name, by):
    benchmark.group = f"encode-{name}"
    benchmark(CODECS[by][0], VALUES[name])


@pytest.mark.parametrize("by", CODECS)
@pytest.mark.parametrize("name", VALUES)
def bench_decode(benchmark, name, by):
    benchmark.group = f"decode-{name}"
    encode, decode = CODECS[by]
    assert benchmark(decode, encode(VALUES[name])) == VALUES[name]
