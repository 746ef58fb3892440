"""What workers log arrives in the application, and says whose it is."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fault_adapters import Chatty
from fix_pool import until
from fix_timeouts import scaled

NAME = "fault_adapters.chatty"


def records(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.name == NAME]


def test_record_has_its_text_and_its_origin(make_pool, caplog):
    pool = make_pool(Chatty, workers=1)
    with pool.session() as session:
        session.execute("talk", {"text": "hello", "level": logging.WARNING})
        until(lambda: records(caplog))

        (record,) = records(caplog)
        assert record.getMessage() == "talked: hello"
        assert (record.levelname, record.funcName) == ("WARNING", "talk")
        assert (record.worker_id, record.session_id) == (0, session.id)
        assert record.request_id >= 1
        assert record.process == pool.workers()[0].pid


def test_traceback_comes_along(make_pool, caplog):
    pool = make_pool(Chatty, workers=1)

    pool.execute("complain")
    until(lambda: records(caplog))

    assert "ZeroDivisionError" in caplog.text
    assert "in complain" in caplog.text


def test_level_is_that_of_the_application(make_pool, caplog):
    caplog.set_level(logging.INFO)
    pool = make_pool(Chatty, workers=1)
    for level in (logging.DEBUG, logging.INFO, logging.ERROR):
        pool.execute("talk", {"text": "x", "level": level})

    until(lambda: len(records(caplog)) >= 2)

    assert [record.levelno for record in records(caplog)] == [logging.INFO, logging.ERROR]


def test_start_of_an_adapter_is_heard(make_pool, caplog):
    make_pool(Chatty, workers=2)
    until(lambda: caplog.text.count("started up") == 2)
    assert {record.request_id for record in caplog.records if "started" in record.msg} == {None}


def test_handler_that_raises_or_blocks_hurts_nobody(make_pool, monkeypatch):
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ValueError("no")

    monkeypatch.setattr(logging.getLogger(NAME), "handlers", [Broken()])
    pool = make_pool(Chatty, workers=1)
    for _ in range(5):
        pool.execute("talk", {"text": "x", "level": logging.ERROR})

    assert pool.execute("echo", (1,), timeout=scaled(10)) == 1


def test_message_that_cannot_be_made_is_the_workers_own_affair(make_pool):
    pool = make_pool(Chatty, workers=1)
    pool.execute("stumble")
    assert pool.execute("echo", (1,), timeout=scaled(10)) == 1
