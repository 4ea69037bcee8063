"""What people ask: tasks, their logs, counts, servers. Reads only, in as few round trips as they need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

from ..ids import plain_id
from ..task import Task, TaskLog, TaskState
from .link import Link, Row

_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


class Reads:
    """Reads over one link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def task(self, id: UUID) -> Task | None:
        """One task, None when there is none with this id."""
        row = await self._link.fetch_one("get_task", id)
        return None if row is None else _task(row)

    async def tasks(
        self, *, state: TaskState | None, name: str | None, channel: str | None, before: UUID | None, limit: int
    ) -> list[Task]:
        """A page of tasks, newest first; `before` is the last id of the page before."""
        return [_task(row) for row in await self._link.fetch("list_tasks", state, name, channel, before, limit)]

    async def ends(self, ids: Iterable[UUID]) -> dict[UUID, Row]:
        """How far tasks are, for whoever waits for them: see get_ends.sql."""
        return {row["id"]: row for row in await self._link.fetch("get_ends", list(ids))}

    async def progress(self, ids: Iterable[UUID]) -> dict[UUID, str | None]:
        """A text for each task that changes whenever something happens to it; None for one that is not there."""
        return {row["id"]: row["progress"] for row in await self._link.fetch("get_progress", list(ids))}

    async def was_written(self, id: UUID) -> bool:
        """Whether a task is there, or was until within the hour."""
        return bool(await self._link.fetch_value("was_written", id))

    async def logs(self, id: UUID, *, after: int | None, limit: int) -> list[TaskLog]:
        """What a task logged, oldest first, beginning behind the line `after`."""
        return [_log(row) for row in await self._link.fetch("task_logs", id, after, limit)]

    async def pending(self) -> int:
        """How many tasks are enqueued, those that are not due yet included."""
        return int(await self._link.fetch_value("count_pending"))

    async def counts(self) -> dict[str, int]:
        """How many tasks are in each state, by its name."""
        row = await self._link.fetch_one("count_states")
        assert row is not None
        return dict(row)

    async def servers(self) -> Sequence[Row]:
        """The servers that run, and those that left or were lost within the hour: see servers.sql."""
        return await self._link.fetch("servers")

    async def running(self, servers: Sequence[UUID] | None = None, *, limit: int) -> Sequence[Row]:
        """What runs, on these servers or on all, the longest first: see running_tasks.sql."""
        return await self._link.fetch("running_tasks", servers, limit)

    async def failures(self, *, limit: int) -> Sequence[Row]:
        """What failed lately, the last first: see recent_failures.sql."""
        return await self._link.fetch("recent_failures", limit)


def _task(row: Row) -> Task:
    fields: dict[str, Any] = dict(row)
    for name in ("args", "kwargs", "context", "result"):
        fields[name] = None if fields[name] is None else json.loads(fields[name])
    fields["id"] = plain_id(fields["id"])
    fields["parents"] = [*map(plain_id, fields["parents"])]
    if fields["run_at"] is not None:
        fields["run_at"] = fields["run_at"].replace(tzinfo=UTC)  # asyncpg gives infinity none
    fields["state"] = TaskState(fields["state"])
    fields["timeout"] = None if fields["timeout"] is None else timedelta(seconds=fields["timeout"])
    return Task(**fields)


def _log(row: Row) -> TaskLog:
    return TaskLog(
        id=row["id"],
        task_id=plain_id(row["task_id"]),
        attempt=row["attempt"],
        at=row["at"],
        level=_LEVELS.get(row["level"], str(row["level"])),
        logger=row["logger"],
        message=row["message"],
        exception=row["exception"],
    )
