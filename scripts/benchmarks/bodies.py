"""The bodies of the tasks that every queue runs: they note that they ran, and do next to nothing."""

from __future__ import annotations

import asyncio

from .recorder import recorder

NAP = 0.01  # seconds


async def noop(task: int) -> None:
    """Note the run."""
    own = recorder()
    own.start(task)
    own.end(task)


async def nap(task: int) -> None:
    """Note the run around ten milliseconds of sleep."""
    own = recorder()
    own.start(task)
    await asyncio.sleep(NAP)
    own.end(task)


def noop_sync(task: int) -> None:
    """Note the run, in whatever thread or process sync functions get."""
    own = recorder()
    own.start(task)
    own.end(task)


app = object()  # what `queued-tasks start --app` asks for
