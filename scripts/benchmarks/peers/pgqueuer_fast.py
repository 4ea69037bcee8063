"""PgQueuer at its fastest: batches of 500 and no cap on running tasks, so more than 100 slots."""

from __future__ import annotations

from .pgqueuer import BULK, DISTRIBUTION, DONE, PENDING, SUPERVISED, producer, queue, setup

__all__ = ["BULK", "CONFIGURATION", "DISTRIBUTION", "DONE", "PENDING", "SUPERVISED", "producer", "setup", "worker"]

CONFIGURATION = "as pgqueuer, but batch_size=500 and no max_concurrent_tasks: not at equal slots"


async def worker(dsn: str, concurrency: int) -> None:
    del concurrency
    await (await queue(dsn)).run(batch_size=500)
