"""Absurd."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from absurd_sdk import AsyncAbsurd

from .. import bodies
from ..adapter import Kind

DISTRIBUTION = "absurd-sdk"
CONFIGURATION = "start_worker(concurrency=100, poll_interval=0.05), a connection per worker"
BULK = "no batch API: pipelined calls of its SQL function `absurd.spawn_task`"
PENDING = "select exists (select from absurd.t_bench where state not in ('completed', 'failed', 'cancelled'))"
DONE = "select count(*) from absurd.t_bench where state = 'completed'"
SUPERVISED = False
CHUNK = 1000
SPAWN = "select task_id from absurd.spawn_task('bench', %s, %s::jsonb, '{}'::jsonb)"


def application(dsn: str) -> AsyncAbsurd:
    """An application that knows the bodies."""
    app = AsyncAbsurd(dsn, queue_name="bench")

    @app.register_task("noop")
    async def noop(parameters: dict[str, int], _context: Any) -> None:
        await bodies.noop(parameters["task"])

    @app.register_task("nap")
    async def nap(parameters: dict[str, int], _context: Any) -> None:
        await bodies.nap(parameters["task"])

    return app


async def setup(dsn: str) -> None:
    environment = {**os.environ, "ABSURD_DATABASE_URL": dsn, "PGDATABASE": dsn}
    tool = Path(sys.executable).with_name("absurdctl")
    running = await asyncio.create_subprocess_exec(tool, "init", env=environment)
    if await running.wait():
        raise SystemExit("absurdctl init failed.")
    app = application(dsn)
    await app.create_queue("bench")
    await app.close()


class Producer:
    """Adds tasks through as many applications as clients: each has one connection."""

    async def open(self, dsn: str, clients: int) -> None:
        self._dsn = dsn
        self._free = [application(dsn) for _ in range(clients)]
        for app in self._free:
            await app.list_queues()

    async def enqueue(self, task: int, kind: Kind) -> None:
        app = self._free.pop()
        await app.spawn(kind, {"task": task})
        self._free.append(app)

    async def enqueue_many(self, tasks: Sequence[int], kind: Kind) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as connection:
            for low in range(0, len(tasks), CHUNK):
                calls = [(kind, json.dumps({"task": task})) for task in tasks[low : low + CHUNK]]
                async with connection.cursor() as cursor:
                    await cursor.executemany(SPAWN, calls)

    async def close(self) -> None:
        for app in self._free:
            await app.close()


producer = Producer


async def worker(dsn: str, concurrency: int) -> None:
    await application(dsn).start_worker(concurrency=concurrency, poll_interval=0.05)
