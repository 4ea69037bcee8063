"""Schedules and their fires. What each verb decides is in its SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ..task import NewTask
from .lanes import Lanes
from .link import Link


class Fired(StrEnum):
    """What became of a due time."""

    FIRED = "fired"
    SKIPPED = "skipped"
    BUSY = "busy"  # the previous run is active: try again
    TAKEN = "taken"  # another server has seen to it
    EARLY = "early"  # not yet, by the clock of the database
    PAUSED = "paused"
    FOREIGN = "foreign"  # a newer declaration holds, or none


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a server says of a schedule."""

    name: str
    cron: str
    timezone: str
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A schedule as it stands: what is due up to `after` has been seen to; `now` is the database's clock."""

    name: str
    cron: str
    timezone: str
    function: str
    paused: bool
    after: datetime
    now: datetime
    last_due_at: datetime | None
    last_reason: str | None  # None: it was fired

    @property
    def declaration(self) -> Declaration:
        return Declaration(self.name, self.cron, self.timezone, self.function)


class ScheduleStore:
    """Schedules in PostgreSQL, over one link. What a verb decides it decides in one statement."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lanes = Lanes(link)

    async def declare(self, declarations: Sequence[Declaration], *, newly: bool) -> None:
        """Make schedules known, or confirm them.

        A changed one that is `newly` declared begins anew: nothing before now is due. One that returns, because nobody
        confirms the newer one any more, goes on from where that was left.
        """
        await self._link.fetch("set_back_schedules")
        columns = ([getattr(each, name) for each in declarations] for name in ("name", "cron", "timezone", "function"))
        await self._link.fetch("declare_schedules", *columns, newly)

    async def look(self, names: Sequence[str] | None = None) -> list[ScheduleRow]:
        """How far these schedules have come, by name; without names, all that are in use."""
        return [ScheduleRow(**dict(row)) for row in await self._link.fetch("schedules", names)]

    async def fire(self, of: Declaration, due: datetime, task: NewTask, *, patient: bool) -> Fired:
        """Add the task for a due time, unless it is not for us to do. Repeating a call does nothing more.

        While the previous run is active a `patient` schedule is BUSY and any other one skips.
        """
        session = await self._lanes.ensure([task])
        ((fired,),) = await self._link.fetch(
            "fire",
            of.name,
            of.cron,
            of.timezone,
            due,
            patient,
            task.id,
            task.function,
            task.executor,
            task.args,
            task.kwargs,
            task.name,
            task.channel,
            self._lanes.id_of(task),
            task.priority,
            task.max_retries,
            task.timeout,
            task.unique_key,
            task.auto_remove,
            task.context,
            task.signature,
            session=session,
        )
        return Fired(fired)

    async def skip(self, of: Declaration, due: datetime, reason: str) -> Fired:
        """Record that a due time, and all before it that were not seen to, is skipped."""
        return Fired(await self._link.fetch_value("skip_fire", of.name, of.cron, of.timezone, due, reason))

    async def pause(self, name: str, paused: bool) -> bool:
        """Let a schedule rest, or go on from now; False when there is none of this name."""
        return await self._link.fetch_one("pause_schedule", name, paused) is not None

    async def prune(self, retention: float, limit: int) -> int:
        """Remove schedules unheard of for `retention` seconds, and up to `limit` fires as old; how many of these."""
        await self._link.fetch("prune_schedules", retention)
        return len(await self._link.fetch("prune_fires", retention, limit))
