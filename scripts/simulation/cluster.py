"""Some simulated servers on one database, and whoever gives them tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from queued_tasks import QueuedTasks, Settings, TaskSpec
from queued_tasks.runtime.store.migrate import migrate

from ..benchmarks.postgres import Postgres
from .server import SimulatedServer
from .worker import Run, nap

AT_ONCE = 10  # servers that start together
PATIENCE = 60.0  # seconds


class TooMany(Exception):
    """The simulation can't keep up with itself; that says nothing of PostgreSQL."""


class Cluster:
    """The servers on one database. `runs`: every task that has run."""

    def __init__(self, dsn: str, tasks: QueuedTasks) -> None:
        self.servers: list[SimulatedServer] = []
        self.runs: list[Run] = []
        self._dsn = dsn
        self._tasks = tasks
        self._names = 0

    async def start(self, *, slots: int = 10, speed: float = 1.0, shares: bool = True) -> None:
        """One server more."""
        self._names += 1
        name = f"server-{self._names}"
        self.servers.append(SimulatedServer(name, self._dsn, slots=slots, speed=speed, shares=shares, runs=self.runs))

    async def grow(self, size: int) -> None:
        """Start servers until there are so many, all of which take tasks."""
        self.servers = [server for server in self.servers if not server.given_up]
        while len(self.servers) < size:
            for _ in range(min(AT_ONCE, size - len(self.servers))):
                await self.start()
            await self._all_have_beaten(float("-inf"))
        await self.meet()

    async def meet(self) -> None:
        """Let every server know how busy all others are now: the first beat says it, the second one hears it."""
        for _ in range(2):
            now = time.monotonic()
            for server in self.servers:
                server.beat()
            await self._all_have_beaten(now)

    async def add(self, count: int, seconds: float) -> None:
        """Add so many tasks at once that sleep for so many seconds."""
        now = time.monotonic()
        await self._tasks.add_tasks([TaskSpec(nap, (seconds, now)) for _ in range(count)])

    async def ended(self, count: int) -> None:
        """Return when so many tasks have run in all."""
        await _until(lambda: len(self.runs) >= count, "tasks have not run")

    async def _all_have_beaten(self, since: float) -> None:
        await _until(
            lambda: all(server.has_beaten_since(since) or server.given_up for server in self.servers),
            "servers have not come up, or do not beat",
        )


async def _until(is_so: Callable[[], bool], what: str) -> None:
    pause, deadline = 0.001, time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise TooMany(f"after {PATIENCE:g} s {what}: so many servers in one process are too many for this machine")
        await asyncio.sleep(pause)
        pause = min(1.5 * pause, 0.02)


@asynccontextmanager
async def cluster(postgres: Postgres, database: str) -> AsyncIterator[Cluster]:
    """No server yet, on a new database, which is gone afterwards with all servers."""
    postgres.create(database)
    dsn = postgres.dsn(database)
    await migrate(dsn)
    async with QueuedTasks.connect(dsn, settings=Settings()) as tasks:
        servers = Cluster(dsn, tasks)
        try:
            yield servers
        finally:
            await asyncio.gather(*(server.kill() for server in servers.servers))
    postgres.drop(database)
