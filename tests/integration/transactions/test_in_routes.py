"""Tasks in a transaction of a route: what the route has to await, and what a session takes along."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from typing import Annotated, Any

import asyncpg
import pytest
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from queued_tasks import QueuedTasks
from queued_tasks.integrations.fastapi import Inject, lifespan
from queued_tasks.runtime.errors import InvalidState
from queued_tasks.runtime.outbox import Outbox
from tests.orders import left


def work(value: Any = None) -> None: ...


async def test_a_task_that_nobody_awaits_makes_the_route_fail(database: str, rows: asyncpg.Connection) -> None:
    app = FastAPI(lifespan=lifespan(dsn=database))

    @app.post("/")
    async def forgetful(tasks: Annotated[QueuedTasks, Inject(QueuedTasks)]) -> None:
        tasks.add_task(work, "of the request")
        async with rows.transaction():
            tasks.on(rows).add_task(work)

    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app, raise_app_exceptions=False), base_url="http://test") as client,
    ):
        assert (await client.post("/")).status_code == 500
    assert await rows.fetchval("select count(*) from queued_tasks.task") == 0


async def test_a_handle_on_a_connection_is_watched_although_another_was_made_since(
    database: str, rows: asyncpg.Connection
) -> None:
    app = FastAPI(lifespan=lifespan(dsn=database))

    @app.post("/")
    async def forgetful(tasks: Annotated[QueuedTasks, Inject(QueuedTasks)]) -> None:
        first, _ = tasks.on(rows), tasks.on(rows)
        first.add_task(work)

    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app, raise_app_exceptions=False), base_url="http://test") as client,
    ):
        assert (await client.post("/")).status_code == 500


async def test_a_handle_on_a_connection_goes_with_its_route_and_not_only_as_garbage(
    database: str, rows: asyncpg.Connection
) -> None:
    app = FastAPI(lifespan=lifespan(dsn=database))
    made: list[weakref.ref[Outbox]] = []

    @app.post("/")
    async def order(tasks: Annotated[QueuedTasks, Inject(QueuedTasks)]) -> None:
        await tasks.on(rows).add_task(work)
        made.append(weakref.ref(tasks.on(rows)._outbox))

    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
    ):
        gc.disable()
        try:
            await client.post("/")
            assert [ref() for ref in made] == [None]
        finally:
            gc.enable()


async def test_the_error_of_such_a_route_says_what_is_missing(database: str, rows: asyncpg.Connection) -> None:
    app = FastAPI(lifespan=lifespan(dsn=database))

    @app.post("/")
    async def forgetful(tasks: Annotated[QueuedTasks, Inject(QueuedTasks)]) -> None:
        tasks.on(rows).add_task(work)

    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
    ):
        with pytest.raises(InvalidState, match="never awaited"):
            await client.post("/")


async def test_a_session_that_a_dependency_commits_after_the_route_takes_its_tasks_along(
    database: str, rows: asyncpg.Connection
) -> None:
    app = FastAPI(lifespan=lifespan(dsn=database))
    engine = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"))

    async def session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as opened:
            yield opened
            await opened.commit()

    own = Depends(session)

    @app.post("/")
    async def order(tasks: Annotated[QueuedTasks, Inject(QueuedTasks)], session: AsyncSession = own) -> None:
        tasks.on(session).add_task(work)

    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
    ):
        assert (await client.post("/")).status_code == 200
    await engine.dispose()
    assert await left(rows) == (0, 1)
