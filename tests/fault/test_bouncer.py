"""PgBouncer in transaction mode: nothing that belongs to a session is relied on."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.command import queued_tasks
from tests.fault.bouncer import PROGRAM, bouncer
from tests.fault.trial import Trial
from tests.servers import Rows, running_server
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(
    PROGRAM is None and "CI" not in os.environ, reason="needs PgBouncer: apt-get install pgbouncer"
)

TTL = 3  # seconds
STILL = 8  # seconds, longer than a lock that is free would be waited for


async def test_everything_but_the_listening_goes_through_it(database: str, trial: Trial, rows: Rows) -> None:
    async with bouncer(database) as dsn, trial.enqueuing_through(dsn, statement_cache=0):
        direct: dict[str, Any] = {"statement_cache": 0, "listen_database_url": database}
        async with (
            running_server(database, database_url=dsn, name="first", concurrency=20, **direct) as first,
            running_server(database, database_url=dsn, name="second", concurrency=20, **direct),
        ):
            await trial.add(300, 0.3)
            await trial.under_way(40)
            trial.strikes()
            first.signal(signal.SIGKILL)
            await trial.check()
            assert await rows.value("select count(lock_key) from queued_tasks.heartbeat") == 1


async def test_everything_goes_through_it_without_notifications(database: str, trial: Trial, rows: Rows) -> None:
    async with bouncer(database) as dsn, trial.enqueuing_through(dsn, statement_cache=0, use_postgresql_notify=False):
        quiet: dict[str, Any] = {"statement_cache": 0, "use_postgresql_notify": False, "lease_ttl": TTL}
        async with (
            running_server(database, database_url=dsn, name="first", concurrency=20, **quiet) as first,
            running_server(database, database_url=dsn, name="second", concurrency=20, **quiet),
        ):
            await wait_until(lambda: rows.value("select count(*) = 2 from queued_tasks.heartbeat"))
            await trial.add(300, 0.3)
            await trial.under_way(40)
            trial.strikes()
            first.signal(signal.SIGKILL)
            await trial.check()


async def test_a_server_behind_it_that_stood_still_for_less_than_its_lease_is_left_alone(
    database: str, trial: Trial, rows: Rows
) -> None:
    async with bouncer(database) as dsn:
        quiet: dict[str, Any] = {"statement_cache": 0, "use_postgresql_notify": False}
        async with (
            running_server(database, database_url=dsn, name="first", concurrency=20, **quiet) as first,
            running_server(database, database_url=dsn, name="second", concurrency=20, **quiet),
        ):
            await trial.add(200, 0.3)
            await trial.under_way(40)
            first.signal(signal.SIGSTOP)
            await asyncio.sleep(STILL)
            first.signal(signal.SIGCONT)
            await trial.check(ends=frozenset())


async def test_the_doctor_sees_it_and_says_what_to_set(database: str) -> None:
    async with bouncer(database) as dsn, running_server(database):
        seen = (await queued_tasks("doctor", "--json", database=dsn)).json["findings"]
        assert [(each["check"], each["level"]) for each in seen] == [("pooler", "error"), ("pooler", "warning")]
        assert "QUEUE_STATEMENT_CACHE=0" in seen[0]["cure"]
        assert "QUEUE_LISTEN_DATABASE_URL" in seen[1]["cure"]
        ran = await queued_tasks("doctor", database=dsn, QUEUE_STATEMENT_CACHE="0", QUEUE_LISTEN_DATABASE_URL=database)
        assert ran.out == "Nothing is wrong.\n"
