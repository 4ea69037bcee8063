"""What `lifespan()` opens: the handle of a worker, a server of its own as a child."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Annotated
from uuid import UUID

import asyncpg
import httpx
import pytest
from fastapi import Depends, FastAPI

from queued_tasks.integrations import fastapi as integration
from queued_tasks.integrations.fastapi import get_tasks, lifespan
from queued_tasks.runtime import handles
from queued_tasks.runtime.errors import ConfigurationError
from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.settings import Settings
from tests.databases import fresh_database
from tests.waiting import wait_until


async def test_in_a_worker_lifespan_gives_the_handle_of_the_worker(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with QueuedTasks.connect(database) as handle:
        monkeypatch.setattr(handles, "worker_handle", handle)
        app = FastAPI()
        async with lifespan(workers=3, dsn="postgresql://nobody@127.0.0.1:1/x")(app):
            assert app.state.queued_tasks is handle


def work(value: int) -> None: ...


def with_a_mounted_one(dsn: str) -> tuple[FastAPI, FastAPI]:
    app, mounted = FastAPI(lifespan=lifespan(dsn=dsn)), FastAPI()

    @mounted.post("/add")
    async def add(tasks: Annotated[QueuedTasks, Depends(get_tasks)]) -> UUID:
        return tasks.add_task(work, 1).id

    app.mount("/mounted", mounted)
    return app, mounted


async def added(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http:
        assert (await http.post("/mounted/add")).status_code == 200


async def test_a_mounted_application_never_gets_the_queue_of_another_one(
    postgres: str, template: str, database: str, rows: asyncpg.Connection
) -> None:
    async with fresh_database(postgres, template=template) as other:
        app, mounted = with_a_mounted_one(database)
        another, _ = with_a_mounted_one(other)
        async with app.router.lifespan_context(app), another.router.lifespan_context(another):
            with pytest.raises(ConfigurationError, match=r"mounted\.state\.queued_tasks = app\.state\.queued_tasks"):
                await added(app)
            mounted.state.queued_tasks = app.state.queued_tasks
            await added(app)
        assert await rows.fetchval("select count(*) from queued_tasks.task") == 1


async def test_a_mounted_application_gets_no_queue_that_was_left(
    postgres: str, template: str, database: str, rows: asyncpg.Connection
) -> None:
    async with fresh_database(postgres, template=template) as other:
        app, _ = with_a_mounted_one(database)
        another, _ = with_a_mounted_one(other)
        async with app.router.lifespan_context(app):
            async with another.router.lifespan_context(another):
                pass
            await added(app)
        assert await rows.fetchval("select count(*) from queued_tasks.task") == 1
        with pytest.raises(ConfigurationError, match="The queue is not open"):
            await added(app)


APPLICATION = """
from fastapi import FastAPI
from queued_tasks import QueuedTasks
from queued_tasks.integrations.fastapi import Inject, lifespan

app = FastAPI(lifespan=lifespan(workers=1))

async def double(number: int) -> int:
    return 2 * number

@app.post("/double/{number}")
async def route(number: int, tasks: QueuedTasks = Inject(QueuedTasks)) -> int:
    return await tasks.add_task(double, number).wait(60)
"""


async def test_workers_run_the_tasks_in_a_child_that_leaves_with_the_application(
    database: str, rows: asyncpg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serving = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port), "--log-level", "critical"),
        cwd=tmp_path,
        env={**os.environ, "QUEUE_DATABASE_URL": database},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:

            async def answers() -> bool:
                try:
                    return (await http.get("/docs")).status_code == 200
                except httpx.ConnectError:
                    return False

            await wait_until(answers)
            assert (await http.post("/double/21")).json() == 42
    finally:
        serving.terminate()
        await serving.wait()
    assert await rows.fetchval("select count(*) from queued_tasks.heartbeat") == 0


def test_an_application_is_found_where_it_was_made() -> None:
    name, folder = integration._place_of(found_app)
    assert (name, (folder / "tests" / "integration" / "test_lifespan.py").exists()) == (f"{__name__}:found_app", True)


def test_given_settings_reach_the_child() -> None:
    settings = Settings(database_url="postgresql://u:p@h/d", polling_interval=1.5, allowed_modules=("a", "b"))
    assert integration._environ(settings) == {
        "QUEUE_DATABASE_URL": "postgresql://u:p@h/d",
        "QUEUE_POLLING_INTERVAL": "1.5",
        "QUEUE_ALLOWED_MODULES": "a,b",
    }


found_app = FastAPI()
