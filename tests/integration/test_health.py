"""What `/health` answers to a probe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response

from queued_tasks.integrations.fastapi import lifespan
from queued_tasks.integrations.health import health_router
from queued_tasks.runtime.settings import Settings
from tests.command import Rows, rows_in
from tests.databases import connected


@asynccontextmanager
async def application(database: str) -> AsyncIterator[AsyncClient]:
    """A client of a running application with the health route."""
    app = FastAPI(lifespan=lifespan(settings=Settings(database_url=database)))
    app.include_router(health_router)
    async with app.router.lifespan_context(app):
        transport = ASGITransport(app=app)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


@pytest.fixture
async def rows(database: str) -> AsyncIterator[Rows]:
    async with rows_in(database) as access:
        yield access


async def probe(database: str) -> Response:
    async with application(database) as client:
        return await client.get("/health")


async def test_it_is_healthy_while_a_server_takes_tasks(database: str, rows: Rows) -> None:
    await rows.serve()
    answer = await probe(database)
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ok", "database": "ok", "servers_claiming": 1, "oldest_waiting_seconds": None, "stuck": False},
    )


async def test_a_probe_may_ask_for_the_head_alone(database: str, rows: Rows) -> None:
    await rows.serve()
    async with application(database) as client:
        answer = await client.head("/health")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_it_is_unhealthy_without_a_server(database: str) -> None:
    answer = await probe(database)
    assert (answer.status_code, answer.json()["servers_claiming"]) == (503, 0)


async def test_it_is_unhealthy_while_the_only_server_drains(database: str, rows: Rows) -> None:
    await rows.serve(state="draining")
    assert (await probe(database)).status_code == 503


async def test_it_is_unhealthy_while_the_only_server_is_silent(database: str, rows: Rows) -> None:
    await rows.serve()
    async with connected(database) as connection:
        await connection.execute("update queued_tasks.heartbeat set beat_at = now() - interval '1 hour'")
    assert (await probe(database)).status_code == 503


async def test_it_is_unhealthy_when_a_task_waits_although_there_are_free_slots(database: str, rows: Rows) -> None:
    await rows.serve()
    await rows.add()
    await make_old(database)
    answer = await probe(database)
    assert (answer.status_code, answer.json()["stuck"]) == (503, True)


async def test_a_backlog_with_every_slot_busy_is_healthy(database: str, rows: Rows) -> None:
    await rows.serve()
    await rows.add()
    await make_old(database)
    async with connected(database) as connection:
        await connection.execute("update queued_tasks.heartbeat set busy = slots")
    answer = await probe(database)
    assert (answer.status_code, answer.json()["stuck"], answer.json()["oldest_waiting_seconds"] > 3000) == (
        200,
        False,
        True,
    )


async def test_it_is_unhealthy_when_the_database_is_gone(database: str, postgres: str) -> None:
    async with application(database) as client, renamed(database, postgres):
        answer = await client.get("/health")
    assert (answer.status_code, answer.json()["database"]) == (503, "unavailable")


@asynccontextmanager
async def renamed(database: str, postgres: str) -> AsyncIterator[None]:
    """Cut every session of the database, and let it have another name."""
    name = database.partition("?")[0].rpartition("/")[2]
    async with connected(postgres) as connection:
        await connection.fetch("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name)
        await connection.execute(f"alter database {name} rename to {name}_away")
        try:
            yield
        finally:
            await connection.execute(f"alter database {name}_away rename to {name}")


async def make_old(database: str) -> None:
    """Let what is enqueued have waited for an hour."""
    async with connected(database) as connection:
        await connection.execute("update queued_tasks.task set created_at = now() - interval '1 hour'")
