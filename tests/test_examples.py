"""The examples run as a user runs them, and notice when something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fix_timeouts import scaled

pytest.importorskip("sklearn", reason="the example's extra, digits, is not installed")
pytest.importorskip("tqdm", reason="the example's extra, digits, is not installed")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def digits() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "digits.py"), "--batch", "16"],
        capture_output=True,
        text=True,
        timeout=scaled(100),
        check=False,
    )


def test_digits_survive_a_kill(digits: subprocess.CompletedProcess[str]) -> None:
    assert digits.returncode == 0, digits.stderr
    assert "was killed with SIGKILL" in digits.stdout
    assert "incarnation 2, took its place" in digits.stdout
    assert digits.stdout.endswith("image for image as in one process\n")


def test_digits_show_plain_progress_without_a_terminal(
    digits: subprocess.CompletedProcess[str],
) -> None:
    progress = [line for line in digits.stdout.splitlines() if line.startswith("reading: ")]
    assert progress == [f"reading: {count} of 113 batches" for count in (28, 56, 84, 112)]
    assert digits.stderr == ""


def test_digits_fail_where_the_pool_reads_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workers import the example afresh, so that only the application reads wrongly."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "digits", raising=False)
    monkeypatch.setattr(sys, "argv", ["digits.py", "--batch", "100"])
    import digits

    honest = digits.read_digits

    def misread(*args: object) -> object:
        labels = honest(*args)
        labels[7] += 1
        return labels

    monkeypatch.setattr(digits, "read_digits", misread)
    assert digits.main() == 1
    assert capsys.readouterr().err == "NOT as in one process: images [7]\n"
