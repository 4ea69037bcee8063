"""Servers that look alike, and servers that have the time wrong."""

from __future__ import annotations

import os
import signal
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from tests.fault.trial import SERVER_DEATH, Trial
from tests.servers import Rows, running_server

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
LATER = 2.0  # seconds
LATENESS = 4 * 1.0  # seconds


async def test_two_servers_of_one_name_on_one_host(database: str, trial: Trial, rows: Rows) -> None:
    async with (
        running_server(database, name="same", concurrency=20) as one,
        running_server(database, name="same", concurrency=20) as other,
    ):
        await trial.add(300, 0.5)
        await trial.under_way(40)
        trial.strikes()
        one.signal(signal.SIGKILL)
        await trial.check()
        assert await other.state() == "running"
    assert trial.recovered_in() < SERVER_DEATH


@pytest.mark.skipif(not LIBRARIES and "CI" not in os.environ, reason="needs another clock: apt-get install libfaketime")
@pytest.mark.parametrize("offset", ["+3600s", "-3600s"])
async def test_a_server_whose_clock_is_an_hour_off(
    database: str, trial: Trial, rows: Rows, monkeypatch: pytest.MonkeyPatch, offset: str
) -> None:
    async with AsyncExitStack() as stack:
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("LD_PRELOAD", str(LIBRARIES[0]))
            elsewhere.setenv("FAKETIME", offset)
            elsewhere.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            wrong = running_server(database, name="wrong", concurrency=20)
            await stack.enter_async_context(wrong)
        await stack.enter_async_context(running_server(database, name="right", concurrency=20))
        added_at = time.monotonic()
        later = [trial.put(0.0, run_at=timedelta(seconds=LATER)) for _ in range(20)]
        await trial.add(200, 0.1, expires_at=timedelta(minutes=30))
        await trial.under_way(40)
        await trial.check(ends=frozenset())
        delays = [run.began - added_at for run in trial.runs() if run.task in {ref.id for ref in later}]
        assert LATER <= min(delays) <= max(delays) < LATER + LATENESS
        assert await rows.value("select max(abs(extract(epoch from ended_at - now()))) from queued_tasks.result") < 600
