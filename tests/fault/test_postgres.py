"""PostgreSQL restarts, crashes, stands still, throws everybody out, takes nobody in: nothing is lost, all goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from tests.databases import connected
from tests.fault.postgres import Postgres, own_postgres
from tests.fault.trial import Trial
from tests.servers import Server, running_server

pytestmark = [
    pytest.mark.skipif("QUEUE_TEST_DATABASE_URL" in os.environ, reason="needs PostgreSQL servers of its own"),
    pytest.mark.xdist_group("own postgres"),
]

FROZEN = 5  # seconds
MOST_CONNECTIONS = 30
OURS = "application_name like 'queued-tasks %' and datname = current_database()"


@pytest.fixture
async def postgres_of_its_own(tmp_path: Path) -> AsyncIterator[Postgres]:
    async with own_postgres(tmp_path) as postgres:
        yield postgres


@pytest.fixture
def database(postgres_of_its_own: Postgres) -> str:
    return postgres_of_its_own.dsn


@pytest.mark.parametrize(("mode", "forgetful"), [("fast", False), ("immediate", True)])
async def test_a_restart_under_load(
    postgres_of_its_own: Postgres, database: str, trial: Trial, mode: str, forgetful: bool
) -> None:
    async with running_server(database, workers=2, concurrency=20):
        await trial.add(200, 0.1)
        async with trial.stream():
            for _ in range(2):
                begun = len(trial.runs())
                await trial.begun(begun + 50)
                await postgres_of_its_own.restart(mode)
            await trial.goes_on()
        await trial.check(away=True, forgetful=forgetful, ends=frozenset())


async def test_connections_that_are_terminated_over_and_over(database: str, trial: Trial) -> None:
    async with (
        running_server(database, name="first", concurrency=20),
        running_server(database, name="second", concurrency=20),
        connected(database) as connection,
    ):
        await trial.add(200, 0.1)
        async with trial.stream():
            for _ in range(40):
                await connection.fetch(f"select pg_terminate_backend(pid) from pg_stat_activity where {OURS}")
                await asyncio.sleep(0.1)
            await trial.goes_on()
        await trial.check(away=True, ends=frozenset())


async def test_a_restart_makes_no_server_look_dead(postgres_of_its_own: Postgres, database: str, trial: Trial) -> None:
    async with (
        running_server(database, name="first", concurrency=20),
        running_server(database, name="second", concurrency=20),
    ):
        await trial.add(400, 0.3)
        for _ in range(3):
            await trial.begun(len(trial.runs()) + 20)
            await postgres_of_its_own.restart("fast")
        await trial.check(away=True, ends=frozenset())


async def test_a_postgresql_that_stands_still_for_a_while(
    postgres_of_its_own: Postgres, database: str, trial: Trial
) -> None:
    async with (
        running_server(database, name="first", concurrency=20, lease_ttl=3),
        running_server(database, name="second", concurrency=20, lease_ttl=3),
    ):
        await trial.add(200, 0.1)
        async with trial.stream():
            await trial.begun(100)
            with postgres_of_its_own.frozen():
                await asyncio.sleep(FROZEN)
            await trial.goes_on()
        await trial.check(away=True, ends=frozenset())


async def test_no_connection_is_left_for_a_server_that_lost_its_own(
    postgres_of_its_own: Postgres, database: str, trial: Trial
) -> None:
    await postgres_of_its_own.set("max_connections", MOST_CONNECTIONS)
    async with running_server(database, workers=2, concurrency=20) as server:
        await trial.add(400, 0.2)
        await trial.begun(50)
        taken = await _take_all(database)
        async with asyncio.timeout(30):
            await _keep_out(database, taken, server)
        await asyncio.sleep(FROZEN)
        for connection in taken:
            connection.terminate()
        await trial.goes_on()
        await trial.check(away=True, ends=frozenset())


async def _take_all(dsn: str) -> list[asyncpg.Connection]:
    """Every connection that can be had."""
    taken: list[asyncpg.Connection] = []
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            taken.append(await asyncpg.connect(dsn))
    return taken


async def _keep_out(dsn: str, taken: list[asyncpg.Connection], server: Server) -> None:
    """Throw out everybody else and take the places that get free, until the server has noticed."""
    while "PostgreSQL is away" not in server.said:
        await taken[0].fetch(f"select pg_terminate_backend(pid) from pg_stat_activity where {OURS}")
        taken += await _take_all(dsn)
