"""What the caller gets where workers cannot start: the reason, within seconds, never a hang."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from fix_timeouts import scaled
from pool_adapters import BrokenStart, DiesAtStart, PlainError, SlowStart

from snakepit_mp import Pool, RestartPolicy
from snakepit_mp.errors import ConfigError, WorkerStartError

_QUICK = RestartPolicy(max_restarts=2, backoff=0.01)


def _module(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> str:
    (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return name


def test_import_error_in_the_adapter(make_pool, tmp_path, monkeypatch):
    name = _module(tmp_path, monkeypatch, "adapter_broken", "raise RuntimeError('no licence')")
    pool = make_pool(f"{name}:Tools", ready=False)
    before = time.monotonic()

    with pytest.raises(WorkerStartError) as caught:
        pool.execute("anything")

    assert "no licence" in str(caught.value.__cause__)
    assert time.monotonic() - before < scaled(10)
    with pytest.raises(WorkerStartError):
        pool.await_ready(scaled(10))


def test_module_that_does_not_exist(make_pool):
    pool = make_pool("no_such_module_anywhere:Tools", ready=False)

    with pytest.raises(WorkerStartError) as caught:
        pool.execute("anything")

    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_start_that_raises_surfaces_on_every_waiting_call(make_pool):
    pool = make_pool(BrokenStart, ready=False, workers=2, restart=_QUICK)
    futures = [pool.submit("echo", (1,)) for _ in range(3)]

    for future in futures:
        error = future.exception(scaled(20))
        assert isinstance(error, WorkerStartError)
        assert isinstance(error.__cause__, PlainError)
    with pytest.raises(WorkerStartError):
        pool.execute("echo", (1,))
    assert {row.state for row in pool.workers()} == {"FAILED"}


def test_worker_that_exits_at_start(make_pool):
    pool = make_pool(DiesAtStart, ready=False, workers=1, restart=_QUICK)

    with pytest.raises(WorkerStartError):
        pool.await_ready(scaled(20))


def test_start_that_takes_too_long(make_pool):
    pool = make_pool(SlowStart, ready=False, workers=1, start_timeout=0.3, restart=_QUICK)

    with pytest.raises(WorkerStartError):
        pool.await_ready(scaled(20))


def test_await_ready_has_a_limit(make_pool):
    pool = make_pool(SlowStart, ready=False, workers=1)

    with pytest.raises(TimeoutError, match="ready"):
        pool.await_ready(0.05)


_THREADED = """
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()

    from snakepit_mp import Adapter, tool

    class Tools(Adapter):
        @tool
        def echo(self, value: int) -> int:
            return value
"""


def test_threads_at_import_are_refused_by_name(make_pool, tmp_path, monkeypatch):
    name = _module(tmp_path, monkeypatch, "adapter_threaded", _THREADED)
    pool = make_pool(f"{name}:Tools", ready=False)

    with pytest.raises(WorkerStartError) as caught:
        pool.execute("echo", (1,))

    assert name in str(caught.value.__cause__)
    assert 'import_in="worker"' in str(caught.value.__cause__)


def test_threads_at_import_are_fine_in_the_worker(make_pool, tmp_path, monkeypatch):
    name = _module(tmp_path, monkeypatch, "adapter_threaded_late", _THREADED)
    pool = make_pool(f"{name}:Tools", ready=False, import_in="worker", workers=1)

    assert pool.execute("echo", (1,)) == 1


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"workers": 0}, "workers"),
        ({"lane": "pigeon"}, "lane"),
        ({"on_full": "drop"}, "on_full"),
        ({"timeout": -1}, "timeout"),
        ({"wrokers": 2}, "did you mean 'workers'"),
        ({"bridge": "0.0.0.0:0"}, "TLS"),
        ({"store": "big"}, "store"),
        ({"restart": 3}, "restart"),
    ],
)
def test_bad_settings_are_named(settings, name):
    with pytest.raises(ConfigError, match=name):
        Pool(**settings)


@pytest.mark.parametrize("adapter", [42, "no_colon", int, "a:b:c"])
def test_bad_adapter(adapter):
    with pytest.raises(ConfigError, match="adapter"):
        Pool(adapter)


def _run(path: Path, *, check: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=scaled(60), check=check
    )


def test_unguarded_main_gets_a_clear_error(tmp_path: Path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        textwrap.dedent("""
            from snakepit_mp import Adapter, Pool, tool

            class Tools(Adapter):
                @tool
                def echo(self, value: int) -> int:
                    return value

            with Pool(Tools, workers=1, bridge=None) as pool:
                print(pool.execute("echo", (1,)))
        """),
        encoding="utf-8",
    )

    done = _run(script)

    assert done.returncode == 1
    assert "WorkerStartError" in done.stderr
    assert "if __name__ == '__main__':" in done.stderr.replace('"', "'")


def test_guarded_main_works(tmp_path: Path):
    script = tmp_path / "guarded.py"
    script.write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            from snakepit_mp import Adapter, Pool, tool

            @dataclass
            class Point:
                x: int

            class PointError(Exception):
                pass

            class Tools(Adapter):
                @tool
                def move(self, point: Point) -> Point:
                    if point.x < 0:
                        raise PointError(point.x)
                    return Point(point.x + 1)

            if __name__ == "__main__":
                with Pool(Tools, workers=1, bridge=None) as pool:
                    print(pool.execute("move", (Point(1),)) == Point(2))
                    try:
                        pool.execute("move", (Point(-1),))
                    except PointError as error:
                        print(repr(error))
        """),
        encoding="utf-8",
    )

    done = _run(script)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["True", "PointError(-1)"]
