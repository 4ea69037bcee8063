"""Schedules across servers that start and are killed while they fire."""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from tests.command import environment
from tests.databases import connected
from tests.waiting import wait_until

MISSED = 8
APP = """
from queued_tasks import scheduled_task

@scheduled_task(cron="* * * * *", catch_up=True)
async def report() -> None: ...

app = object()
"""


class Servers:
    """Servers of one application, as processes."""

    def __init__(self, database: str, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self.running: list[Process] = []

    async def start(self, *arguments: str, **environ: str) -> None:
        self.running.append(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "queued_tasks", "start", "--workers", "1", *arguments),
                cwd=self._folder,
                env=environment(self._database, **environ),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )

    async def kill(self, server: Process) -> None:
        self.running.remove(server)
        server.kill()
        await server.wait()


@pytest.fixture
async def servers(database: str, tmp_path: Path) -> AsyncIterator[Servers]:
    (tmp_path / "main.py").write_text(APP)
    servers = Servers(database, tmp_path)
    yield servers
    for server in [*servers.running]:
        await servers.kill(server)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(database) as connection:
        yield connection


async def test_each_due_time_is_fired_once_however_servers_start_and_die(
    servers: Servers, connection: asyncpg.Connection
) -> None:
    await _miss(connection, MISSED)
    await servers.start()
    await servers.start()
    for fired in range(1, MISSED + 1, 2):
        await wait_until(partial(_reached, connection, fired), deadline=60)
        await servers.kill(random.choice(servers.running))
        await servers.start()
    await wait_until(partial(_reached, connection, MISSED), deadline=60)
    row = await connection.fetchrow(
        "select count(*) as fires, count(distinct f.task) as tasks, (select count(*) from queued_tasks.task) as added, "
        "extract(epoch from max(f.due_at) - min(f.due_at))::int / 60 + 1 as minutes from queued_tasks.schedule_fire f"
    )
    assert row["fires"] == row["tasks"] == row["added"] == row["minutes"]


async def test_a_server_without_a_scheduler_runs_what_others_fire_and_fires_nothing(
    servers: Servers, connection: asyncpg.Connection
) -> None:
    await servers.start("--no-scheduler")
    await wait_until(lambda: _claims(connection))
    assert await connection.fetchval("select count(*) from queued_tasks.schedule") == 0


async def test_a_fired_task_is_run_where_tasks_are_signed(servers: Servers, connection: asyncpg.Connection) -> None:
    await _miss(connection, 1)
    await servers.start(QUEUE_SECRET_KEY="secret")
    await wait_until(lambda: connection.fetchval("select exists (select from queued_tasks.result)"))
    assert await connection.fetchval("select state::text from queued_tasks.result") == "done"


async def _miss(connection: asyncpg.Connection, minutes: int) -> None:
    await connection.execute(
        "insert into queued_tasks.schedule (name, cron, timezone, function, since) "
        "values ('report', '* * * * *', 'UTC', 'main:report', now() - make_interval(mins => $1))",
        minutes,
    )


async def _reached(connection: asyncpg.Connection, count: int) -> bool:
    return bool(await connection.fetchval("select count(*) >= $1 from queued_tasks.schedule_fire", count))


async def _claims(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("select exists (select from queued_tasks.heartbeat where state = 'running')"))
