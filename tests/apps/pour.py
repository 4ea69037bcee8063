"""A program that adds tasks, one after the other and in batches, and prints the id of each that was acknowledged."""

from __future__ import annotations

import asyncio
import sys

from queued_tasks import QueuedTasks
from tests.apps import trials


async def main(dsn: str, ledger: str) -> None:
    async with QueuedTasks.connect(dsn) as tasks:
        print("open", flush=True)
        while True:
            refs = [tasks.add_task(trials.work, ledger, 0.01) for _ in range(5)]
            await tasks.flush()
            print(*(ref.id for ref in refs), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
