"""The commands that run until they are told to end: start, serve, demo. Real processes and signals."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest

from queued_tasks.runtime.task import Task
from tests.command import Rows, queued_tasks, started
from tests.databases import with_database
from tests.waiting import wait_until

APP = """
from fastapi import Depends, FastAPI
from queued_tasks.integrations.fastapi import get_tasks, lifespan

async def double(number):
    return number * 2

async def block(seconds):
    import asyncio
    await asyncio.sleep(seconds)

app = FastAPI(lifespan=lifespan)

@app.post("/double/{number}")
async def add(number: int, tasks = Depends(get_tasks)):
    return {"id": tasks.add_task(double, number).id}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application."""
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


# ---- start


async def test_start_runs_the_tasks_of_the_app_in_its_folder(database: str, rows: Rows, folder: Path) -> None:
    id = await rows.add("main:double", args="[21]")
    async with started("start", "--workers", 1, database=database, cwd=folder):
        task = await ended(rows, id)
    assert (task.state, task.result) == ("done", 42)


async def test_a_server_that_is_told_to_leave_ends_with_0(database: str, rows: Rows, folder: Path) -> None:
    async with started("start", "--workers", 1, "--name", "web-9", database=database, cwd=folder) as running:
        await wait_until(lambda: is_claiming(rows, "web-9"))
        running.terminate()
        assert await running.wait() == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("start", "--channels", "a", "--exclude-channels", "b"), "exclude each other"),
        (("start", "--channels", ","), "names no channel"),
        (("serve",), "There is no app to serve"),
    ],
)
async def test_options_that_can_not_be_are_wrong_usage(
    database: str, tmp_path: Path, command: tuple[str, ...], said: str
) -> None:
    ran = await queued_tasks(*command, database=database, cwd=tmp_path)
    assert (ran.code, ran.out, said in ran.err) == (2, "", True)


async def test_start_without_the_schema_says_the_cure(empty_database: str, folder: Path) -> None:
    ran = await queued_tasks("start", database=empty_database, cwd=folder)
    assert (ran.code, "queued-tasks: " in ran.err, "run `queued-tasks migrate`" in ran.err) == (1, True, True)


async def test_start_waits_for_a_database_that_is_away_and_says_so(database: str, folder: Path) -> None:
    away = with_database(database, "not_there_yet")
    async with started("start", database=away, cwd=folder) as running:
        assert "waiting for PostgreSQL" in await line_with("waiting", running.stderr)
        running.terminate()
        assert await running.wait() == 0


# ---- serve


async def test_serve_answers_requests_and_runs_their_tasks(database: str, rows: Rows, folder: Path) -> None:
    async with serving(database, folder) as (_, url), httpx.AsyncClient() as client:
        id = (await client.post(f"{url}/double/4")).json()["id"]
        task = await ended(rows, UUID(id))
    assert (task.state, task.result) == ("done", 8)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_one_signal_ends_both_in_order(database: str, rows: Rows, folder: Path, number: signal.Signals) -> None:
    async with serving(database, folder) as (running, _):
        await wait_until(lambda: is_claiming(rows))
        running.send_signal(number)
        code = await running.wait()
    assert (code, [server["present"] for server in await rows.reads.servers()]) == (0, [False])


async def test_a_killed_serve_takes_its_server_with_it(database: str, rows: Rows, folder: Path) -> None:
    async with serving(database, folder) as (running, _):
        await wait_until(lambda: is_claiming(rows))
        running.kill()
        await wait_until(lambda: has_left(rows))


async def test_serve_ends_with_1_when_its_server_dies(database: str, rows: Rows, folder: Path) -> None:
    async with serving(database, folder) as (running, _):
        await wait_until(lambda: is_claiming(rows))
        (server,) = psutil.Process(running.pid).children()
        os.kill(server.pid, signal.SIGKILL)
        assert await running.wait() == 1


async def test_a_taken_port_is_an_error_with_a_cure(database: str, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = await queued_tasks("serve", "--port", port, database=database, cwd=folder)
    assert (ran.code, f"127.0.0.1:{port} (Address already in use): choose another --port" in ran.err) == (1, True)


async def test_an_app_that_can_not_be_imported_is_an_error_with_its_traceback(database: str, folder: Path) -> None:
    (folder / "main.py").write_text("1 / 0")
    ran = await queued_tasks("serve", "--port", 0, database=database, cwd=folder)
    assert (ran.code, "ZeroDivisionError" in ran.err, "main:app can't be imported" in ran.err) == (1, True, True)


@pytest.mark.parametrize("command", ["serve", "demo"])
async def test_without_uvicorn_the_error_says_how_to_get_it(database: str, folder: Path, command: str) -> None:
    (folder / "sitecustomize.py").write_text("import sys; sys.modules['uvicorn'] = None")
    ran = await queued_tasks(command, database=database, cwd=folder, PYTHONPATH=str(folder))
    assert (ran.code, "pip install uvicorn" in ran.err) == (1, True)


# ---- demo


async def test_the_demo_answers_requests_runs_tasks_and_ends_by_itself(database: str, tmp_path: Path) -> None:
    ran = await queued_tasks("demo", "--seconds", 8, database=database, cwd=tmp_path)
    goodbye = ran.out.splitlines()[-1]
    done = re.fullmatch(r"Goodbye: \d+ requests? answered, (\d+) tasks? done.*\.", goodbye)
    assert (ran.code, ran.err, bool(done and int(done[1]))) == (0, "", True)


async def test_the_demo_keeps_out_of_the_tasks_of_a_configured_database(
    database: str, rows: Rows, tmp_path: Path
) -> None:
    id = await rows.add()
    await queued_tasks("demo", "--seconds", 4, database=database, cwd=tmp_path)
    assert [task["id"] for task in (await queued_tasks("tasks", "list", "--json", database=database)).json] == [str(id)]


async def test_ctrl_c_ends_the_demo_with_a_goodbye(database: str, tmp_path: Path) -> None:
    async with started("demo", database=database, cwd=tmp_path) as running:
        await line_with("requests answered", running.stdout)
        running.send_signal(signal.SIGINT)
        assert "answered" in await line_with("Goodbye", running.stdout)
        assert await running.wait() == 0


# ---- what they wait for


@asynccontextmanager
async def serving(database: str, folder: Path) -> AsyncIterator[tuple[Process, str]]:
    """A running `serve`, and the URL that it has announced."""
    arguments = ("serve", "--workers", 1, "--port", 0)
    async with started(*arguments, database=database, cwd=folder) as running:
        line = await line_with("Serving", running.stdout)
        yield running, line.split()[3]


async def line_with(text: str, stream: asyncio.StreamReader | None) -> str:
    """The next line that holds `text`."""
    assert stream
    async with asyncio.timeout(30):
        async for line in stream:
            if text in line.decode():
                return line.decode()
    raise AssertionError(f"the output ended without {text!r}")


async def ended(rows: Rows, id: UUID) -> Task:
    """A task, once it has ended."""

    async def task_has_ended() -> bool:
        task = await rows.reads.task(id)
        return task is not None and task.state.is_final

    await wait_until(task_has_ended)
    task = await rows.reads.task(id)
    assert task
    return task


async def is_claiming(rows: Rows, name: str | None = None) -> bool:
    return any(row["state"] == "running" and name in (None, row["name"]) for row in await rows.reads.servers())


async def has_left(rows: Rows) -> bool:
    return all(not row["present"] for row in await rows.reads.servers())
