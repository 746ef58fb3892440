"""The examples run as a user runs them, and notice when something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fix_timeouts import scaled

from snakepit_mp.lanes.mailbox import works_here

pytest.importorskip("sklearn", reason="the example's extra, digits, is not installed")
pytest.importorskip("tqdm", reason="the example's extra, digits, is not installed")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

#: Runs the example with an application that misreads an image; its workers do not.
MISREADING = """
import sys
sys.path.insert(0, {examples!r})
import digits

honest = digits.read_digits

def misread(*args):
    labels = honest(*args)
    labels[7] += 1
    return labels

if __name__ == "__main__":
    digits.read_digits = misread
    sys.exit(digits.main())
"""


def run(script: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *options],
        capture_output=True,
        text=True,
        timeout=scaled(100),
        check=False,
    )


def test_digits_survive_a_kill() -> None:
    digits = run(EXAMPLES / "digits.py", "--batch", "16")
    assert digits.returncode == 0, digits.stderr
    assert digits.stderr == ""
    progress = [line for line in digits.stdout.splitlines() if line.startswith("reading: ")]
    assert progress == [f"reading: {count} of 113 batches" for count in (28, 56, 84, 112)]
    lane = "mailbox" if works_here() else "socket"
    assert f"2 workers, each reached over its {lane} lane\n" in digits.stdout
    assert "was killed with SIGKILL" in digits.stdout
    assert "incarnation 2, took its place" in digits.stdout
    assert digits.stdout.endswith("image for image as in one process\n")


def test_digits_fail_where_the_pool_reads_otherwise(tmp_path: Path) -> None:
    script = tmp_path / "misreading.py"
    script.write_text(MISREADING.format(examples=str(EXAMPLES)))
    digits = run(script, "--batch", "100")
    assert digits.returncode == 1
    assert digits.stderr == "NOT as in one process: images [7]\n"
