"""PgQueuer at equal slots: its cap on concurrent tasks is that of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
from pgqueuer import Job, PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

from .. import bodies
from ..adapter import Kind

DISTRIBUTION = "pgqueuer"
CONFIGURATION = (
    "asyncpg driver, a connection per worker, batch_size=50, max_concurrent_tasks=100, autovacuum as its tool sets it"
)
BULK = "`Queries.enqueue` with lists, 5,000 a call"
PENDING = "select exists (select from pgqueuer where status in ('queued', 'picked'))"
DONE = "select count(*) from pgqueuer_log where status = 'successful'"
SUPERVISED = False
CHUNK = 5000


async def setup(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.optimize_autovacuum()
    await connection.close()


class Producer:
    """Adds tasks through a pool."""

    async def open(self, dsn: str, clients: int) -> None:
        self._pool = await asyncpg.create_pool(dsn, min_size=clients, max_size=clients)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))

    async def enqueue(self, task: int, kind: Kind) -> None:
        await self._queries.enqueue(kind, str(task).encode(), 0)

    async def enqueue_many(self, tasks: Sequence[int], kind: Kind) -> None:
        for low in range(0, len(tasks), CHUNK):
            part = tasks[low : low + CHUNK]
            await self._queries.enqueue([kind] * len(part), [str(task).encode() for task in part], [0] * len(part))

    async def close(self) -> None:
        await self._pool.close()


producer = Producer


async def queue(dsn: str) -> PgQueuer:
    """A worker that knows the bodies."""
    worker = PgQueuer(AsyncpgDriver(await asyncpg.connect(dsn)))

    @worker.entrypoint("noop")
    async def noop(job: Job) -> None:
        await bodies.noop(int(job.payload or b""))

    @worker.entrypoint("nap")
    async def nap(job: Job) -> None:
        await bodies.nap(int(job.payload or b""))

    @worker.entrypoint("noop_sync")
    async def noop_sync(job: Job) -> None:  # functions must be async: this is the documented way
        await asyncio.to_thread(bodies.noop_sync, int(job.payload or b""))

    return worker


async def worker(dsn: str, concurrency: int) -> None:
    await (await queue(dsn)).run(batch_size=concurrency // 2, max_concurrent_tasks=concurrency)
