"""Procrastinate."""

from __future__ import annotations

from collections.abc import Sequence

from procrastinate import App, PsycopgConnector

from .. import bodies
from ..adapter import Kind

DISTRIBUTION = "procrastinate"
CONFIGURATION = "PsycopgConnector pool of at most 20, concurrency=100, LISTEN on, jobs kept (its default)"
BULK = "`batch_defer_async`, 1,000 a call"
PENDING = "select exists (select from procrastinate_jobs where status in ('todo', 'doing'))"
DONE = "select count(*) from procrastinate_jobs where status = 'succeeded'"
SUPERVISED = False
CHUNK = 1000


def application(dsn: str, connections: int) -> App:
    """An application that knows the bodies."""
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=1, max_size=connections))
    for body in (bodies.noop, bodies.nap, bodies.noop_sync):
        app.task(name=body.__name__)(body)
    return app


async def setup(dsn: str) -> None:
    async with application(dsn, 2).open_async() as app:
        await app.schema_manager.apply_schema_async()


class Producer:
    """Adds tasks through a pool."""

    async def open(self, dsn: str, clients: int) -> None:
        self._app = application(dsn, clients)
        await self._app.open_async()

    async def enqueue(self, task: int, kind: Kind) -> None:
        await self._app.tasks[kind].defer_async(task=task)

    async def enqueue_many(self, tasks: Sequence[int], kind: Kind) -> None:
        for low in range(0, len(tasks), CHUNK):
            await self._app.tasks[kind].batch_defer_async(*({"task": task} for task in tasks[low : low + CHUNK]))

    async def close(self) -> None:
        await self._app.close_async()


producer = Producer


async def worker(dsn: str, concurrency: int) -> None:
    async with application(dsn, 20).open_async() as app:
        await app.run_worker_async(concurrency=concurrency)
