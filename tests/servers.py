"""Run real servers, `python -m queued_tasks start`, and look at them from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import psutil

from tests.command import environment
from tests.databases import connected
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
STANDBY = 1  # worker that a server keeps beside those that work


class Server:
    """One `queued-tasks start`, from its first line to its exit code."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, database: str, log: Path) -> None:
        self._process = process
        self._database = database
        self._log = log
        self.name = name

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        """All that it has written to stderr."""
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def interrupt_group(self) -> None:
        """What Ctrl-C in a terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)

    async def exited(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        return await self._process.wait()

    async def stop(self) -> int:
        """Let it drain; the exit code."""
        self.signal(signal.SIGTERM)
        return await self.exited()

    def workers(self) -> list[psutil.Process]:
        """Its worker processes, the standby included."""
        children = psutil.Process(self.pid).children()
        return [child for child in children if _is_worker(child)]

    async def state(self) -> str | None:
        """What its heartbeat says."""
        row = await self.heartbeat()
        return None if row is None else row["state"]

    async def heartbeat(self) -> asyncpg.Record | None:
        """Its heartbeat row, that of its newest incarnation."""
        async with connected(self._database) as connection:
            return await connection.fetchrow(
                "select h.*, s.name from queued_tasks.heartbeat h join queued_tasks.server s on s.id = h.server "
                "where s.pid = $1 order by s.started_at desc limit 1",
                self.pid,
            )

    async def error(self) -> str | None:
        """Why it takes no work."""
        row = await self.heartbeat()
        return None if row is None else json.loads(row["details"]).get("error")

    async def is_working(self) -> bool:
        return not self.running or await self.state() == "running"

    async def wait_for_work(self) -> None:
        """Return once it takes tasks."""
        await wait_until(self.is_working)
        assert self.running, "the server has ended"

    async def wait_for_standby(self) -> None:
        """Return once its standby is there, too, so that a count of its processes means something."""
        await wait_until(lambda: len(self.workers()) > STANDBY)


@asynccontextmanager
async def running_server(
    database: str,
    *,
    app: str | None = None,
    app_dir: Path = ROOT,
    workers: int = 1,
    name: str = "server",
    options: tuple[str, ...] = (),
    wait: bool = True,
    **environ: object,
) -> AsyncIterator[Server]:
    """A server on `database` that takes tasks (with `wait`), killed at the end of the block if it still runs.

    `environ` are settings without QUEUE_. When the block fails, what the server wrote is shown.
    """
    settings = {f"QUEUE_{key.upper()}": str(value) for key, value in environ.items()}
    arguments = ["start", "--app-dir", str(app_dir), "--workers", str(workers), "--name", name, *options]
    arguments += [] if app is None else ["--app", app]
    with tempfile.TemporaryDirectory(prefix="server-") as folder:
        log = Path(folder, "log")
        with log.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "queued_tasks", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                cwd=ROOT,
                env=environment(database, **settings),
                start_new_session=True,
            )
        server = Server(process, name, database, log)
        try:
            if wait:
                await server.wait_for_work()
            yield server
        except BaseException:
            print(f"--- {name} (exit code {process.returncode}) wrote:\n{server.said}")
            raise
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


class Rows:
    """What the tables say, for tests that check more than the API shows."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def value(self, query: str, *arguments: object) -> Any:
        return await self._connection.fetchval(query, *arguments)

    async def outcomes(self, task: UUID) -> list[str]:
        """How the attempts ended that did not end the task, in their order."""
        rows = await self._connection.fetch(
            "select outcome from queued_tasks.attempt where id = $1 order by attempt", task
        )
        return [row["outcome"] for row in rows]

    async def states(self) -> dict[str, int]:
        """How many tasks are in each state."""
        rows = await self._connection.fetch("select state::text, count(*) from queued_tasks.task_view group by 1")
        return {row["state"]: row["count"] for row in rows}

    async def left(self) -> int:
        """How many tasks have not ended."""
        return int(
            await self.value(
                "select count(*) from queued_tasks.task t "
                "where not exists (select from queued_tasks.result r where r.id = t.id)"
            )
        )

    async def leases(self) -> int:
        return int(await self.value("select count(*) from queued_tasks.lease"))


@asynccontextmanager
async def rows_of(database: str) -> AsyncIterator[Rows]:
    """The tables of a database."""
    async with connected(database) as connection:
        yield Rows(connection)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False
