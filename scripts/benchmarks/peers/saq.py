"""SAQ on PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from saq import Worker
from saq.queue.postgres import PostgresQueue

from .. import bodies
from ..adapter import Kind
from ..inside import each

DISTRIBUTION = "saq"
CONFIGURATION = "PostgresQueue pool of 4 to 20, concurrency=100, finished jobs kept for 600 s (its default)"
BULK = "no batch API: 20 concurrent calls of `enqueue`"
PENDING = "select exists (select from saq_jobs where status in ('new', 'deferred', 'queued', 'active', 'aborting'))"
DONE = "select count(*) from saq_jobs where status = 'complete'"
SUPERVISED = False
BULK_CLIENTS = 20


async def setup(dsn: str) -> None:
    queue = PostgresQueue.from_url(dsn)
    await queue.connect()
    await queue.disconnect()


class Producer:
    """Adds tasks through a pool."""

    async def open(self, dsn: str, clients: int) -> None:
        self._queue = PostgresQueue.from_url(dsn, min_size=clients, max_size=clients)
        await self._queue.connect()

    async def enqueue(self, task: int, kind: Kind) -> None:
        await self._queue.enqueue(kind, task=task)

    async def enqueue_many(self, tasks: Sequence[int], kind: Kind) -> None:
        await each(tasks, BULK_CLIENTS, lambda task: self.enqueue(task, kind))

    async def close(self) -> None:
        await self._queue.disconnect()


producer = Producer


async def worker(dsn: str, concurrency: int) -> None:
    logging.getLogger("saq").setLevel(logging.WARNING)

    async def noop(_context: Any, *, task: int) -> None:
        await bodies.noop(task)

    async def nap(_context: Any, *, task: int) -> None:
        await bodies.nap(task)

    queue = PostgresQueue.from_url(dsn)
    await queue.connect()
    await Worker(queue, functions=[("noop", noop), ("nap", nap)], concurrency=concurrency).start()
