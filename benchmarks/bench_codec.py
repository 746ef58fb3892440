"""What does encoding cost, beside what others use for it?

    make bench                          each pair by itself, with pytest-benchmark
    python benchmarks/bench_codec.py    a table of ratios, for docs/benchmarks.md

The others cannot do the same: JSON has neither bytes nor arrays, msgpack gives lists for tuples,
pickle and marshal must not be fed by strangers. What one of them cannot take, it is not asked.
"""

from __future__ import annotations

import gc
import json
import marshal
import pickle
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

import numpy as np
import pytest

from snakepit_mp import _accel
from snakepit_mp.values import codec

_KEYS = [f"key{number}" for number in range(20)]


def tree(size: int) -> list[Any]:
    """That many objects, each with a list and an object of its own."""
    return [
        {
            "id": number,
            "name": f"object {number}",
            "score": number / 7,
            "tags": ["red", "round", "ripe"],
            "parent": {"id": number // 2, "name": None},
        }
        for number in range(size)
    ]


VALUES: dict[str, Any] = {
    "int": 12345,
    "float": 0.7,
    "short str": "a line of text",
    "long str": "a line of text, " * 64,
    "bytes of 1 kB": bytes(1024),
    "list of 100 ints": list(range(100)),
    "dict of 20 keys": dict(zip(_KEYS, range(20), strict=True)),
    "nested dict": {"rows": [{"id": 1, "tags": ["a", "b"]}, {"id": 2, "tags": []}], "ok": True},
    "tree of 1,000 objects": tree(1000),
}
ARRAYS = {"1 kB": 1 << 7, "1 MB": 1 << 17, "64 MB": 1 << 23}


@dataclass(frozen=True)
class Codec:
    """A pair of functions, and what they cannot take."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    without: tuple[str, ...] = ()


def _codecs() -> Iterator[tuple[str, Codec]]:
    if _accel.speedups is not None:
        yield "compiled", Codec(_accel.speedups.encode, _accel.speedups.decode)
    yield "python", Codec(codec.py_encode, codec.py_decode)
    for name in ("msgspec", "orjson"):
        try:
            module = import_module(f"{name}.msgpack" if name == "msgspec" else name)
        except ImportError:  # of the group `bench`, which nothing else needs
            continue
        if name == "msgspec":
            yield name, Codec(module.Encoder().encode, module.Decoder().decode)
        else:
            yield name, Codec(module.dumps, module.loads, ("bytes of 1 kB",))
    yield "pickle", Codec(lambda value: pickle.dumps(value, 5), pickle.loads)
    yield "marshal", Codec(marshal.dumps, marshal.loads)
    yield "json", Codec(json.dumps, json.loads, ("bytes of 1 kB",))


CODECS = dict(_codecs())
CASES = [(name, by) for by, codec in CODECS.items() for name in VALUES if name not in codec.without]


@pytest.mark.parametrize(("name", "by"), CASES)
def bench_encode(benchmark, name, by):
    benchmark.group = f"encode {name}"
    benchmark(CODECS[by].encode, VALUES[name])


@pytest.mark.parametrize(("name", "by"), CASES)
def bench_decode(benchmark, name, by):
    benchmark.group = f"decode {name}"
    one = CODECS[by]
    assert benchmark(one.decode, one.encode(VALUES[name])) == VALUES[name]


@pytest.mark.parametrize("by", ["ours", "bytes", "pickle"])
@pytest.mark.parametrize("size", ARRAYS)
def bench_encode_array(benchmark, size, by):
    benchmark.group = f"encode array of {size}"
    array = np.arange(float(ARRAYS[size]))
    benchmark({"ours": codec.encode, "bytes": bytes, "pickle": pickle.dumps}[by], array)


@pytest.mark.parametrize("by", ["ours", "pickle"])
@pytest.mark.parametrize("size", ARRAYS)
def bench_decode_array(benchmark, size, by):
    benchmark.group = f"decode array of {size}"
    array = np.arange(float(ARRAYS[size]))
    encode, decode = {"ours": (codec.encode, codec.decode)}.get(by, (pickle.dumps, pickle.loads))
    assert benchmark(decode, encode(array)).shape == array.shape


def interleaved(actions: dict[str, Callable[[], object]], rounds: int = 40) -> dict[str, float]:
    """Least seconds of each; they take turns, so that a busy minute hurts all alike."""
    least = dict.fromkeys(actions, float("inf"))
    for name, action in actions.items():
        action()
        began = time.perf_counter()
        action()
        least[name] = time.perf_counter() - began
    repeats = {name: max(1, int(2e-4 / seconds)) for name, seconds in least.items()}
    gc.disable()
    try:
        for _ in range(rounds):
            for name, action in actions.items():
                turns = range(repeats[name])
                began = time.perf_counter()
                for _ in turns:
                    action()
                least[name] = min(least[name], (time.perf_counter() - began) / len(turns))
    finally:
        gc.enable()
    return least


def _row(what: str, seconds: dict[str, float], columns: list[str]) -> str:
    ours = seconds["ours"]
    cells = [f"{ours / seconds[by]:.2f}" if by in seconds else "" for by in columns]
    return f"| {what} | {1e6 * ours:,.3g} µs | " + " | ".join(cells) + " |"


def _table(head: str, columns: list[str], rows: Iterator[str]) -> None:
    print(f"\n| {head} | ours | " + " | ".join(f"/ {name}" for name in columns) + " |")
    print("| --- " * (len(columns) + 2) + "|")
    for row in rows:
        print(row, flush=True)


def value_rows(direction: str, columns: list[str], twin: str) -> Iterator[str]:
    for name, value in VALUES.items():
        actions = {}
        for by, one in CODECS.items():
            if name not in one.without:
                function = getattr(one, direction)
                data = value if direction == "encode" else one.encode(value)
                actions["ours" if by == twin else by] = lambda f=function, d=data: f(d)
        yield _row(name, interleaved(actions), columns)


def array_actions(array: np.ndarray) -> Iterator[tuple[str, dict[str, Callable[[], object]]]]:
    raw = memoryview(array).cast("B")
    data = codec.encode(array)
    pickled = pickle.dumps(array, 5)
    buffer = bytearray(data)
    target = memoryview(buffer)[-len(raw) :]

    def copy() -> None:
        target[:] = raw

    yield (
        "encode",
        {
            "ours": lambda: codec.encode(array),
            "memcpy": lambda: bytes(raw),
            "pickle": lambda: pickle.dumps(array, 5),
        },
    )
    into = {"ours": lambda: codec.encode_into(array, buffer), "memcpy": copy}
    yield "encode into a buffer", into
    views = {"ours": lambda: codec.decode(data), "pickle": lambda: pickle.loads(pickled)}
    yield "decode as a view", views


def array_rows(columns: list[str]) -> Iterator[str]:
    for size, count in ARRAYS.items():
        for what, actions in array_actions(np.arange(float(count))):
            rounds = 40 if count < 1 << 20 else 8
            yield _row(f"{what}, {size}", interleaved(actions, rounds), columns)


def main() -> None:
    twin = "python" if _accel.speedups is None else "compiled"
    columns = [name for name in CODECS if name != twin]
    versions = [f"{by} {metadata.version(by)}" for by in ("msgspec", "orjson") if by in CODECS]
    print(f"Python {platform.python_version()}, {', '.join(versions)}; ours is the {twin} twin.")
    for direction in ("encode", "decode"):
        _table(direction, columns, value_rows(direction, columns, twin))
    columns = ["memcpy", "pickle"]
    _table("array of floats", columns, array_rows(columns))


if __name__ == "__main__":
    main()
