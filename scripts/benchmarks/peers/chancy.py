"""Chancy."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from chancy import Chancy, Job, Queue, Worker

from .. import bodies
from ..adapter import Kind

DISTRIBUTION = "chancy"
CONFIGURATION = "Queue(concurrency=100, executor=Async, eager_polling=True), pool of 1 to 20"
BULK = "`push_many`, batches of 1,000 (an INSERT per row)"
PENDING = "select exists (select from chancy_jobs where state in ('pending', 'running', 'retrying'))"
DONE = "select count(*) from chancy_jobs where state = 'succeeded'"
SUPERVISED = False

quiet = logging.getLogger("quiet")
quiet.setLevel(logging.ERROR)


async def noop(*, task: int) -> None:
    """Run a no-op."""
    await bodies.noop(task)


async def nap(*, task: int) -> None:
    """Run a nap."""
    await bodies.nap(task)


KINDS = {"noop": noop, "nap": nap}


def application(dsn: str, connections: int) -> Chancy:
    """An application with a pool."""
    return Chancy(dsn, min_connection_pool_size=1, max_connection_pool_size=connections, log=quiet)


async def setup(dsn: str) -> None:
    async with application(dsn, 2) as app:
        await app.migrate()
        eager = {"polling_interval": 1, "eager_polling": True}
        await app.declare(Queue("default", concurrency=100, executor=Chancy.Executor.Async, **eager))


class Producer:
    """Adds tasks through a pool."""

    async def open(self, dsn: str, clients: int) -> None:
        self._app = application(dsn, clients)
        await self._app.__aenter__()

    async def enqueue(self, task: int, kind: Kind) -> None:
        await self._app.push(Job.from_func(KINDS[kind], kwargs={"task": task}))

    async def enqueue_many(self, tasks: Sequence[int], kind: Kind) -> None:
        jobs = [Job.from_func(KINDS[kind], kwargs={"task": task}) for task in tasks]
        async for _ in self._app.push_many(jobs):
            pass

    async def close(self) -> None:
        await self._app.__aexit__(None, None, None)


producer = Producer


async def worker(dsn: str, concurrency: int) -> None:
    del concurrency  # that of the queue
    async with application(dsn, 20) as app, Worker(app) as running:
        await running.wait_for_shutdown()
