"""What so many servers cost one PostgreSQL, when they have nothing to do and when they have, and what they notice."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from ..benchmarks.postgres import Postgres
from .cluster import Cluster, cluster

DATABASE = "simulation"
NAP = 1.0  # seconds that a task takes
BATCHES = 2  # a second, each of one task per server
NOTICED_WITHIN = 30.0  # seconds
STATISTICS_LATE = 1.5  # seconds by which PostgreSQL may be late to count: what the start has cost is not measured


@dataclass(frozen=True)
class Load:
    """What one span of time has cost: transactions a second, cores of PostgreSQL and of the simulation itself."""

    transactions: float
    postgres: float
    simulation: float


@dataclass(frozen=True)
class Figures:
    """Those of one number of servers. `noticed`: seconds until a peer took over from a dead one, None: not at all.

    `spread`: how many times its even part the busiest server ran; `took_none` ran nothing. `given_up`: taken for dead.
    """

    servers: int
    connections: int
    idle: Load
    work: Load
    ran: int
    wait: float
    latest: float
    spread: float
    took_none: int
    given_up: int
    noticed: float | None


async def measure(postgres: Postgres, sizes: Iterable[int], seconds: float) -> AsyncIterator[Figures]:
    """The figures of each size, smallest first."""
    async with cluster(postgres, DATABASE) as servers:
        for size in sorted(sizes):
            await servers.grow(size)
            yield await _figures(postgres, servers, seconds)


async def _figures(postgres: Postgres, servers: Cluster, seconds: float) -> Figures:
    size, meter = len(servers.servers), Meter(postgres)
    await asyncio.sleep(STATISTICS_LATE)
    await meter.start()
    await asyncio.sleep(seconds)
    idle = await meter.stop()
    connections = await asyncio.to_thread(_connections, postgres)
    before = len(servers.runs)
    await meter.start()
    added = await _work(servers, seconds)
    work = await meter.stop()
    await servers.ended(before + added)
    runs = servers.runs[before:]
    given_up = sum(server.given_up for server in servers.servers)
    noticed = await _death(postgres, servers)
    waits = sorted(run.started - run.added for run in runs)
    taken = Counter(run.server for run in runs)
    return Figures(
        servers=size,
        connections=connections,
        idle=idle,
        work=work,
        ran=len(runs),
        wait=statistics.median(waits),
        latest=waits[int(0.95 * len(waits))],
        spread=max(taken.values()) * size / len(runs),
        took_none=size - len(taken),
        given_up=given_up,
        noticed=noticed,
    )


async def _work(servers: Cluster, seconds: float) -> int:
    """Add tasks for so long; how many."""
    began, batches, size = time.monotonic(), round(seconds * BATCHES), len(servers.servers)
    for batch in range(batches):
        await servers.add(size, NAP)
        await asyncio.sleep(began + (batch + 1) / BATCHES - time.monotonic())
    return batches * size


async def _death(postgres: Postgres, servers: Cluster) -> float | None:
    """Kill the newest server; the seconds until another one has rescued what it held."""
    victim = servers.servers.pop()
    began = time.monotonic()
    await victim.kill()
    asked = f"select count(*) from queued_tasks.server where id = '{victim.identity.id}' and end_reason = 'lost'"
    while time.monotonic() < began + NOTICED_WITHIN:
        if await asyncio.to_thread(postgres.ask, asked, DATABASE):
            return time.monotonic() - began
        await asyncio.sleep(0.05)
    return None


class Meter:
    """Reads what PostgreSQL and this process have done between `start` and `stop`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def start(self) -> None:
        """From now on."""
        self._counted = await asyncio.to_thread(_transactions, self._postgres)
        self._cpu = await asyncio.to_thread(self._postgres.cpu)
        self._own, self._began = time.process_time(), time.monotonic()

    async def stop(self) -> Load:
        """Up to now."""
        took, own = time.monotonic() - self._began, time.process_time() - self._own
        cpu = await asyncio.to_thread(self._postgres.cpu) - self._cpu
        counted = await asyncio.to_thread(_transactions, self._postgres) - self._counted
        return Load(counted / took, cpu / took, own / took)


def _transactions(postgres: Postgres) -> int:
    found = f"select xact_commit + xact_rollback from pg_stat_database where datname = '{DATABASE}'"
    return int(postgres.ask(found))


def _connections(postgres: Postgres) -> int:
    servers = "application_name like 'queued-tasks server %'"
    return int(postgres.ask(f"select count(*) from pg_stat_activity where datname = '{DATABASE}' and {servers}"))
