"""An application with a lifespan and worker hooks that leave traces in the folder `TRACES`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from queued_tasks import get_current_task, on_worker_start, on_worker_stop, worker_state


def trace(what: str) -> None:
    Path(os.environ["TRACES"], what).touch()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.greeting = "hello"
    yield
    trace("lifespan over")


app = FastAPI(lifespan=lifespan)


@on_worker_start
async def start() -> None:
    worker_state().number = 7


@on_worker_stop
async def stop() -> None:
    trace(f"stopped with {worker_state().number}")


async def number() -> int:
    return int(worker_state().number)


def number_plainly() -> int:
    return int(worker_state().number)


async def greeting() -> str:
    current = get_current_task()
    assert current is not None
    return str(current.app.state.greeting)
