"""awa: an engine in Rust with handlers in Python."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from awa import AsyncClient, Job

from .. import bodies
from ..adapter import Kind

DISTRIBUTION = "awa-pg"
CONFIGURATION = "AsyncClient, 100 workers in the queue, its default queue storage, at most 10 connections"
BULK = "`enqueue_many_copy`, 10,000 a call"
# Completions are compact batches; its view awa.jobs would be the public way, but takes minutes on 100,000 jobs.
PENDING = """
    select (select count(*) from awa.ready_entries)
           > (select coalesce(sum(completed_count), 0) from awa.receipt_completion_batches)
             + (select count(*) from awa.done_entries)
        or exists (select from awa.deferred_jobs)
"""
DONE = None
SUPERVISED = False
CHUNK = 10_000


@dataclass
class Noop:
    """The arguments of a no-op."""

    task: int


@dataclass
class Nap:
    """The arguments of a nap."""

    task: int


KINDS = {"noop": Noop, "nap": Nap}


async def setup(dsn: str) -> None:
    client = AsyncClient(dsn)
    await client.migrate()
    await client.install_queue_storage()
    await client.close()


class Producer:
    """Adds tasks through a pool."""

    async def open(self, dsn: str, clients: int) -> None:
        self._client = AsyncClient(dsn, max_connections=max(2, clients))

    async def enqueue(self, task: int, kind: Kind) -> None:
        await self._client.insert(KINDS[kind](task), queue="bench")

    async def enqueue_many(self, tasks: Sequence[int], kind: Kind) -> None:
        for low in range(0, len(tasks), CHUNK):
            part = [KINDS[kind](task) for task in tasks[low : low + CHUNK]]
            await self._client.enqueue_many_copy(part, queue="bench")

    async def close(self) -> None:
        await self._client.close()


producer = Producer


async def worker(dsn: str, concurrency: int) -> None:
    client = AsyncClient(dsn, max_connections=10)

    @client.task(Noop, queue="bench")
    async def noop(job: Job) -> None:
        await bodies.noop(job.args.task)

    @client.task(Nap, queue="bench")
    async def nap(job: Job) -> None:
        await bodies.nap(job.args.task)

    await client.start([("bench", concurrency)])
    await asyncio.Event().wait()
