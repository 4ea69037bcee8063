"""This project."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from queued_tasks import QueuedTasks, TaskSpec

from .. import bodies
from ..adapter import Kind

ROOT = Path(__file__).parents[3]

DISTRIBUTION = "queued-tasks"
CONFIGURATION = "defaults: 100 slots a worker; asyncpg inside"
BULK = "`add_tasks`, 5,000 a call"
PENDING = "select exists (select from queued_tasks.lease)"
DONE = """
    select count(*) from queued_tasks.result r
     where r.state = 'done' and r.attempt = 1 and not exists (select from queued_tasks.attempt a where a.id = r.id)
"""
SUPERVISED = True
CHUNK = 5000


class Producer:
    """Adds tasks from outside a server."""

    async def open(self, dsn: str, clients: int) -> None:
        del clients  # its pool is its own affair
        self._context = QueuedTasks.connect(dsn)
        self._tasks = await self._context.__aenter__()

    async def enqueue(self, task: int, kind: Kind) -> None:
        await self._tasks.add_task(getattr(bodies, kind), task)

    async def enqueue_many(self, tasks: Sequence[int], kind: Kind) -> None:
        function = getattr(bodies, kind)
        for low in range(0, len(tasks), CHUNK):
            await self._tasks.add_tasks([TaskSpec(function, (task,)) for task in tasks[low : low + CHUNK]])

    async def close(self) -> None:
        await self._context.__aexit__(None, None, None)


producer = Producer


async def setup(dsn: str) -> None:
    command = (sys.executable, "-m", "queued_tasks", "migrate")
    running = await asyncio.create_subprocess_exec(*command, env={**os.environ, "QUEUE_DATABASE_URL": dsn})
    if await running.wait():
        raise SystemExit("queued-tasks migrate failed.")


async def worker(dsn: str, concurrency: int) -> None:
    command = [sys.executable, "-m", "queued_tasks", "start", "--workers", os.environ["BENCH_WORKERS"]]
    place = ["--app", "scripts.benchmarks.bodies:app", "--app-dir", str(ROOT)]
    environment = {**os.environ, "QUEUE_DATABASE_URL": dsn, "QUEUE_CONCURRENCY": str(concurrency)}
    os.execve(sys.executable, command + place, environment)  # the server takes this process over
