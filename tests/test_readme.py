"""README.md tells all there is: every setting with its default, every error, no other."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

from snakepit_mp import PoolConfig, RestartPolicy, StoreConfig, errors

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_setting_is_listed() -> None:
    first_cells = re.findall(r"^\| (`[^|]+) \|", section("Settings"), re.MULTILINE)
    listed = re.findall(r"`(\w+)`", " ".join(first_cells))
    assert listed == sorted(listed, key=[f.name for f in dataclasses.fields(PoolConfig)].index)
    assert set(listed) == {field.name for field in dataclasses.fields(PoolConfig)}


def test_defaults_of_nested_settings_are_true() -> None:
    assert f"`{RestartPolicy()!r}`" in README
    limits = [field for field in dataclasses.fields(StoreConfig) if field.name != "max_bytes"]
    shown = ", ".join(
        f"{field.name}={field.default:_}"
        if isinstance(field.default, int)
        else f"{field.name}={field.default}"
        for field in limits
    )
    assert f"`StoreConfig(max_bytes=half of the memory, {shown})`" in README


def test_every_error_is_listed() -> None:
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    ours = {name for name in classes if issubclass(getattr(errors, name), errors.SnakepitError)}
    rows = re.findall(r"^\| .* \|$", section("Errors"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == ours - {"SnakepitError"}
