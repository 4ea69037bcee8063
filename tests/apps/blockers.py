"""Task functions that keep the event loop of their worker from everything else."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from queued_tasks import task
from tests.apps.work import mark


async def block(folder: str, seconds: float) -> int:
    """The process in which it ran."""
    mark(folder, "blocking")
    time.sleep(seconds)  # noqa: ASYNC251  # that is the fault
    return os.getpid()


@task(max_retries=0)
async def spin_in_child(folder: str) -> None:
    async def spin() -> None:
        mark(folder, "blocking")
        while True:
            pass

    await asyncio.gather(asyncio.sleep(60), spin())


@task(max_retries=0)
async def count_for_ages(folder: str) -> None:
    """Spend hours in one C call that never lets go of the GIL."""
    mark(folder, "blocking")
    sum(range(10**15))


@task(max_retries=0)
async def count_in_child(folder: str) -> None:
    await asyncio.gather(asyncio.sleep(60), asyncio.create_task(count_for_ages(folder)))


@task(max_retries=0)
async def freeze(folder: str) -> None:
    """Stop its own process, as a debugger does."""
    mark(folder, "blocking")
    os.kill(os.getpid(), signal.SIGSTOP)
    await asyncio.sleep(60)


@task(max_retries=0)
async def pause(folder: str, seconds: float) -> int:
    """Wait without keeping anybody else from anything; the process in which it ran."""
    mark(folder, "pausing")
    await asyncio.sleep(seconds)
    return os.getpid()


async def block_until_go(folder: str) -> None:
    mark(folder, "blocking")
    go = Path(folder, "go")
    while not go.exists():  # noqa: ASYNC240  # that is the fault, too
        time.sleep(0.01)  # noqa: ASYNC251  # that is the fault
