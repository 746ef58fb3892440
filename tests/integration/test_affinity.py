"""Sessions and their workers, in whole pools."""

from __future__ import annotations

import os
import signal

import pytest
from fix_pool import Gate, until
from fix_timeouts import scaled

from snakepit_mp import Pool
from snakepit_mp.errors import ConfigError, SessionWorkerUnavailable


def test_strict_call_waits_for_the_worker_of_its_session(fresh_pool: Pool, gate: Gate):
    with fresh_pool.session() as session:
        pid = session.execute("where")[0]
        running = session.submit("note_and_wait", gate.args)
        assert gate.wait_entered() == pid
        waiting = session.submit("where", affinity="strict_queue")
        assert fresh_pool.execute("where")[0] != pid  # the other one is idle
        gate.open()

        assert running.result(scaled(10)) == "open"
        assert waiting.result(scaled(10))[0] == pid


def test_call_in_a_hurry_fails_while_its_worker_is_busy(fresh_pool: Pool, gate: Gate):
    with fresh_pool.session() as session:
        session.execute("where")
        running = session.submit("note_and_wait", gate.args)
        gate.wait_entered()

        with pytest.raises(SessionWorkerUnavailable, match="is busy") as caught:
            session.execute("where", affinity="strict_fail_fast")
        future = session.submit("where", affinity="strict_fail_fast")
        assert isinstance(future.exception(scaled(10)), SessionWorkerUnavailable)

        assert caught.value.session_id == session.id
        gate.open()
        running.result(scaled(10))
        assert session.execute("where", affinity="strict_fail_fast")


def test_affinity_of_the_pool(make_pool, gate: Gate):
    pool = make_pool(affinity="strict_fail_fast")
    with pool.session() as session:
        session.execute("where")
        running = session.submit("note_and_wait", gate.args)
        gate.wait_entered()
        with pytest.raises(SessionWorkerUnavailable):
            session.execute("where")
        assert session.execute("where", affinity="hint")
        gate.open()
        running.result(scaled(10))


def test_session_moves_after_a_death_and_loses_nothing(make_pool):
    pool = make_pool(affinity="strict_queue")
    with pool.session() as session:
        session["x"] = 1
        pid = session.execute("where")[0]
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid not in {row.pid for row in pool.workers()})

        assert session.execute("read", {"name": "x"}) == 1
        assert session.execute("where")[0] != pid


@pytest.mark.parametrize("affinity", ["strict", "", 3])
def test_wrong_affinity_is_refused(make_pool, fresh_pool: Pool, affinity: object):
    with pytest.raises(ConfigError, match="affinity"):
        make_pool(affinity=affinity)
    with pytest.raises(ConfigError, match="affinity"):
        fresh_pool.execute("where", affinity=affinity)  # type: ignore[arg-type]
