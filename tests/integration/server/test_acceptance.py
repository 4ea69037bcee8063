"""The whole way: HTTP requests to a real uvicorn, tasks in PostgreSQL, workers that run each of them once."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.command import queued_tasks
from tests.servers import Rows, Server, running_server, serving
from tests.waiting import wait_until

APP = "tests.apps.ledger:app"
CONNECTIONS = 20


@pytest.mark.parametrize(("workers", "requests"), [(1, 500), (2, 2_000), (4, 1_000)])
async def test_each_task_of_many_requests_runs_exactly_once(
    database: str, rows: Rows, workers: int, requests: int
) -> None:
    await rows.value("create table ledger (number integer, worker integer)")
    async with (
        running_server(database, app=APP, workers=workers, name="acceptance") as server,
        serving(APP, database) as url,
    ):
        await wait_until(lambda: _are_up(server, workers))
        await _post(requests, url)

        async def all_have_ended() -> bool:
            return not await rows.left()

        await wait_until(all_have_ended)
        (row,) = (await queued_tasks("servers", "--json", database=database)).json
    assert (row["name"], row["workers"], row["state"]) == ("acceptance", workers, "running")
    assert await rows.value("select array[count(*), count(distinct number)] from ledger") == [requests, requests]
    assert await rows.value("select count(distinct worker) from ledger") == workers
    assert await rows.states() == {"done": requests}


async def _are_up(server: Server, workers: int) -> bool:
    row = await server.heartbeat()
    return row is not None and row["workers"] == workers


async def _post(requests: int, url: str) -> None:
    numbers = iter(range(requests))
    limits = httpx.Limits(max_connections=CONNECTIONS)

    async def post_some(client: httpx.AsyncClient) -> None:
        for number in numbers:
            (await client.post(f"/numbers/{number}")).raise_for_status()

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client, asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(post_some(client))
