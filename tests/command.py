"""Run the real command line in a subprocess, and put rows where it looks."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.reads import Reads
from queued_tasks.runtime.store.servers import Beat, ServerStore
from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import Executor, NewTask, ServerId, Settled, Stance


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def queued_tasks(
    *arguments: object,
    database: str | None = None,
    answer: str = "",
    cwd: Path | None = None,
    **environ: str,
) -> Ran:
    """Run `queued-tasks` with these arguments to its end; `answer` is its stdin."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "queued_tasks", *map(str, arguments)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=environment(database, **environ),
    )
    out, err = await running.communicate(answer.encode())
    assert running.returncode is not None
    return Ran(running.returncode, out.decode(), err.decode())


@asynccontextmanager
async def started(
    *arguments: object, database: str, cwd: Path, **environ: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command that runs until it is told to end, killed at last; `stdout` and `stderr` can be read."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "queued_tasks", *map(str, arguments)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=environment(database, PYTHONUNBUFFERED="1", **environ),
        limit=2**20,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


def environment(database: str | None, **environ: str) -> dict[str, str]:
    """The environment of a command: ours, without colours, with this database."""
    given = {"QUEUE_DATABASE_URL": database} if database else {}
    return {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **given, **environ}


class Rows:
    """Tasks and servers, as clients and servers would have written them."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._tasks = TaskStore(link)
        self._servers = ServerStore(link)
        self.reads = Reads(link)

    async def add(self, function: str = "app:send", **options: Any) -> UUID:
        """One task; its id."""
        task = NewTask(id=new_id(), function=function, **{"args": "[]", "executor": Executor.ASYNC, **options})
        await self._tasks.add([task])
        return task.id

    async def serve(
        self, name: str = "web-1", *, state: str = "running", details: Mapping[str, object] | None = None
    ) -> ServerId:
        """A server that has just beaten."""
        server = ServerId(uuid4())
        await self._servers.register(server, name=name, host="host.a", pid=1, version="0.1.0", lock_key=None)
        beat = Beat(lock_key=None, state=state, workers=2, slots=200, busy=3, details=details or {})
        await self._servers.beat(server, beat)
        return server

    async def leave(self, server: ServerId) -> None:
        """Let a server end in order."""
        await self._servers.leave(server, "stopped")

    async def decline(self, server: ServerId, function: str, reason: str) -> None:
        """Let `server` say that it doesn't know that function."""
        await self._tasks.take_stance(server, [Stance(function, "unknown", reason)])

    async def park(self, server: ServerId, reason: str) -> None:
        """Let `server` take the oldest task, and leave it to others."""
        lease = uuid4()
        await self._tasks.lanes.refresh()
        (task,) = (await self._tasks.claim(server, lease, [(lane, 0, 0) for lane in self._tasks.lanes], 1)).tasks
        await self._tasks.park(server, [task], [Stance(task.function, "unknown", reason)], full=[lease])

    async def run(self, server: ServerId, outcome: str | None = "done", **end: Any) -> UUID:
        """Let `server` take the oldest task and end it so, or leave it running (None); its id."""
        lease = uuid4()
        await self._tasks.lanes.refresh()
        claim = await self._tasks.claim(server, lease, [(lane, 0, 0) for lane in self._tasks.lanes], 1)
        (task,) = claim.tasks
        if outcome is not None:
            settled = Settled(
                lease=lease,
                id=task.id,
                attempt=task.attempt,
                outcome=outcome,
                took=0.25,
                ended=time.monotonic(),
                flagged=task.flagged,
                **end,
            )
            await self._tasks.settle(server, [settled], full=[lease], part=[])
        return task.id

    async def fail(self, server: ServerId) -> UUID:
        """Let `server` take the oldest task and fail it for good; its id."""
        return await self.run(
            server, "failed", exception_name="ValueError", exception_message="no such address", exception_traceback="Tb"
        )


@asynccontextmanager
async def rows_in(database: str) -> AsyncIterator[Rows]:
    """Access to the rows of a database."""
    link = Link(database, "queued_tasks", name="test")
    try:
        yield Rows(link)
    finally:
        await link.close()
