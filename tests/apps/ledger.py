"""An application that enqueues over HTTP; its task writes each id that it is given to a table of its own."""

from __future__ import annotations

import os
from typing import Annotated

import asyncpg
from fastapi import Depends, FastAPI

from queued_tasks import QueuedTasks, on_worker_start, on_worker_stop, worker_state
from queued_tasks.integrations.fastapi import get_tasks, lifespan

app = FastAPI(lifespan=lifespan)


@on_worker_start
async def open_pool() -> None:
    worker_state().pool = await asyncpg.create_pool(os.environ["QUEUE_DATABASE_URL"], min_size=1, max_size=4)


@on_worker_stop
async def close_pool() -> None:
    await worker_state().pool.close()


async def write(number: int) -> int:
    await worker_state().pool.execute("insert into ledger (number, worker) values ($1, $2)", number, os.getpid())
    return number


@app.post("/numbers/{number}")
async def post(number: int, tasks: Annotated[QueuedTasks, Depends(get_tasks)]) -> str:
    return str(tasks.add_task(write, number).id)
