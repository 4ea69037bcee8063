"""Run real servers, `python -m queued_tasks start`, and look at them from outside."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import psutil

from queued_tasks import QueuedTasks, TaskRef
from tests.apps import work
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
        self._log: Path | None = log
        self._said = ""
        self.name = name

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        """All that it has written to stderr."""
        return self._said if self._log is None else self._log.read_text(errors="replace")

    def remember(self) -> None:
        """Keep what it has written beyond the life of the file."""
        self._said, self._log = self.said, None

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

    async def probe(self, path: str) -> int:
        """The status of the answer to an orchestrator's question; it needs `health_port=0`."""
        await wait_until(lambda: "probes on" in self.said)
        found = re.search(r"probes on (http://[\d.]+:\d+)", self.said)
        assert found
        async with httpx.AsyncClient() as client:
            return (await client.get(found[1] + path)).status_code

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
    home: Path = ROOT,
    workers: int | None = 1,
    name: str = "server",
    options: tuple[str, ...] = (),
    wait: bool = True,
    within: str | None = None,
    **environ: object,
) -> AsyncIterator[Server]:
    """A server on `database` that takes tasks (with `wait`), killed at the end of the block if it still runs.

    `environ` are settings without QUEUE_; `home` is the folder whose package runs; `within` the network namespace that
    it is in. When the block fails, what the server wrote is shown.
    """
    settings = {f"QUEUE_{key.upper()}": str(value) for key, value in environ.items()}
    arguments = ["start", "--app-dir", str(app_dir), "--name", name, *options]
    arguments += [] if workers is None else ["--workers", str(workers)]
    arguments += [] if app is None else ["--app", app]
    environ_of_it = environment(database, **settings)
    async with _running(("queued_tasks", *arguments), environ_of_it, home, within) as (process, log):
        server = Server(process, name, database, log)
        try:
            if wait:
                await server.wait_for_work()
            yield server
        finally:
            server.remember()


@asynccontextmanager
async def serving(app: str, database: str) -> AsyncIterator[str]:
    """uvicorn in a process of its own, serving `app`; the URL that it serves on."""
    arguments = ("uvicorn", app, "--port", "0", "--no-access-log")
    async with _running(arguments, environment(database)) as (process, log):
        await wait_until(lambda: process.returncode is not None or "Uvicorn running" in log.read_text())
        found = re.search(r"http://[\d.]+:\d+", log.read_text())
        assert found, "uvicorn did not start"
        yield found[0]


@asynccontextmanager
async def _running(
    arguments: tuple[str, ...], environ: dict[str, str], home: Path = ROOT, within: str | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """`python -m` with these arguments, killed in the end, and the file with what it prints: shown on failure."""
    with tempfile.NamedTemporaryFile(prefix="server-") as written:
        log = Path(written.name)
        place = () if within is None else ("nsenter", f"--net=/run/netns/{within}")
        process = await asyncio.create_subprocess_exec(
            *(*place, sys.executable, "-m", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            cwd=home,
            env=environ,
            start_new_session=True,
        )
        try:
            yield process, log
        except BaseException:
            print(_last_words(arguments[0], process.returncode, log))
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

    async def column(self, query: str, *arguments: object) -> list[Any]:
        """The first column of all rows."""
        return [row[0] for row in await self._connection.fetch(query, *arguments)]

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


def marks(folder: Path, what: str) -> int:
    """How many tasks have left the mark `what` in a folder."""
    return len(list(folder.glob(f"{what}.*")))


def started(folder: Path) -> int:
    """How many tasks that hold have started there, each run counted."""
    return marks(folder, "started")


def go(folder: Path) -> None:
    """Let the tasks end that hold there."""
    (folder / "go").touch()


async def held_tasks(tasks: QueuedTasks, folder: Path, count: int, function: object = work.hold) -> list[TaskRef]:
    """Tasks that run until `go`, written."""
    refs = [tasks.add_task(function, str(folder)) for _ in range(count)]  # type: ignore[arg-type]
    await tasks.flush()
    return refs


def _last_words(name: str, code: int | None, log: Path) -> str:
    return f"--- {name} (exit code {code}) wrote:\n{log.read_text(errors='replace')}"


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False
