"""Standard error goes where it went, and is kept as well."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from snakepit_mp.lanes.blackbox import BlackBox
from snakepit_mp.lanes.status import StatusPage
from snakepit_mp.worker.stderr import Copied, copy_stderr, keep_stderr


@pytest.fixture
def box():
    page = StatusPage.create()
    yield BlackBox(page.fd)
    page.close()


def replaced(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What was standard error before; in the test itself, since pytest puts its own between."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    copy_stderr()
    return stream


def test_it_goes_both_ways(monkeypatch, box: BlackBox):
    stream = replaced(monkeypatch)
    print("before", file=sys.stderr)
    keep_stderr(box)
    print("after", file=sys.stderr)
    sys.stderr.writelines(["a", "b\n"])

    assert stream.getvalue() == "before\nafter\nab\n"
    assert box.stderr() == "after\nab\n"


def test_handlers_that_an_import_made_are_kept_too(monkeypatch, box: BlackBox):
    replaced(monkeypatch)
    logger = logging.getLogger("made by an import")
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler()])
    keep_stderr(box)

    logger.error("trouble")

    assert box.stderr() == "trouble\n"


def test_it_is_a_stream_like_the_other(monkeypatch):
    stream = replaced(monkeypatch)
    assert isinstance(sys.stderr, Copied)
    assert sys.stderr.isatty() is False
    assert sys.stderr.encoding is stream.encoding
    sys.stderr.flush()


def test_without_a_standard_error_there_is_nothing_to_keep(monkeypatch, box: BlackBox):
    monkeypatch.setattr(sys, "stderr", None)
    copy_stderr()
    keep_stderr(box)
    assert sys.stderr is None
