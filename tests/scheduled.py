"""Schedules in a database, as a server sees them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.schedules import Declaration, Fired, ScheduleStore
from queued_tasks.runtime.task import Executor, NewTask

HOURLY = Declaration("hourly", "0 * * * *", "UTC", "app:report")
MINUTELY = Declaration("minutely", "* * * * *", "UTC", "app:report")
MONTH = 30 * 86_400.0


@dataclass
class Cluster:
    """A database with schedules, as a server sees it."""

    dsn: str
    link: Link
    connection: asyncpg.Connection
    now: datetime

    @property
    def store(self) -> ScheduleStore:
        return ScheduleStore(self.link)

    def due(self, hours_ago: int) -> datetime:
        """A time in the past at which HOURLY is due."""
        return self.now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours_ago)

    async def declare(self, of: Declaration, *, since: timedelta = timedelta(days=2)) -> None:
        """Let a schedule be known, for so long."""
        await self.store.declare([of], newly=True)
        query = "update queued_tasks.schedule set since = now() - $1::interval where name = $2"
        await self.connection.execute(query, since, of.name)

    async def fire(self, due: datetime, *, patient: bool = False, of: Declaration = HOURLY) -> Fired:
        """Try to fire."""
        return await self.store.fire(of, due, new_task(), patient=patient)

    async def tasks(self) -> int:
        return int(await self.connection.fetchval("select count(*) from queued_tasks.task"))

    async def fires(self) -> list[tuple[datetime, bool]]:
        """The due times seen to, and whether each was fired."""
        rows = await self.connection.fetch("select due_at, task from queued_tasks.schedule_fire order by due_at")
        return [(row["due_at"], row["task"] is not None) for row in rows]


def new_task(function: str = HOURLY.function, **options: object) -> NewTask:
    return NewTask(id=new_id(), function=function, executor=Executor.ASYNC, args="[]", **options)  # type: ignore[arg-type]
