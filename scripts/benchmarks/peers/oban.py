"""Oban for Python."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from oban import Job, Oban
from oban import worker as oban_worker
from oban.schema import install

from .. import bodies
from ..adapter import Kind

DISTRIBUTION = "oban"
CONFIGURATION = "psycopg pool of 1 to 10, queues={'default': 100}, defaults"
BULK = "`Oban.enqueue_many`, 1,000 a call (an INSERT per row in one transaction; more is in the paid Pro)"
PENDING = "select exists (select from oban_jobs where state in ('available', 'executing', 'scheduled', 'retryable'))"
DONE = "select count(*) from oban_jobs where state = 'completed'"
SUPERVISED = False
CHUNK = 1000


@oban_worker(queue="default")
class Noop:
    """Runs a no-op."""

    async def process(self, job: Job) -> None:
        await bodies.noop(job.args["task"])


@oban_worker(queue="default")
class Nap:
    """Runs a nap."""

    async def process(self, job: Job) -> None:
        await bodies.nap(job.args["task"])


KINDS: dict[Kind, Any] = {"noop": Noop, "nap": Nap}  # the decorator gives them `new`


async def setup(dsn: str) -> None:
    pool = await Oban.create_pool(dsn=dsn, min_size=1, max_size=2)
    await install(pool)
    await pool.close()


class Producer:
    """Adds tasks through a pool."""

    async def open(self, dsn: str, clients: int) -> None:
        self._pool = await Oban.create_pool(dsn=dsn, min_size=clients, max_size=clients)
        self._oban = Oban(pool=self._pool)

    async def enqueue(self, task: int, kind: Kind) -> None:
        await self._oban.enqueue(KINDS[kind].new({"task": task}))

    async def enqueue_many(self, tasks: Sequence[int], kind: Kind) -> None:
        for low in range(0, len(tasks), CHUNK):
            await self._oban.enqueue_many([KINDS[kind].new({"task": task}) for task in tasks[low : low + CHUNK]])

    async def close(self) -> None:
        await self._pool.close()


producer = Producer


async def worker(dsn: str, concurrency: int) -> None:
    pool = await Oban.create_pool(dsn=dsn, min_size=1, max_size=10)
    async with Oban(pool=pool, queues={"default": concurrency}):
        await asyncio.Event().wait()
