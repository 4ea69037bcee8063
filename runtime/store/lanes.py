"""The lanes that exist: one for each channel, priority and kind of worker, and for what comes back interrupted.

What a server can't run stands in lanes of functions, see 0018_functions.sql.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TypeAlias

from ..task import Executor, NewTask
from .link import Link

LaneKey: TypeAlias = tuple[str, int, bool]  # channel, priority, sync


@dataclass(frozen=True, slots=True)
class Lane:
    id: int
    channel: str
    priority: int
    sync: bool
    again: bool
    function: str | None = None


class Lanes:
    """What this process knows of the lanes. Only those of functions are ever removed."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._session = 0  # in which the ids were learned
        self._known: dict[int, Lane] = {}
        self._ids: dict[LaneKey, int] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._known.values())

    def knows(self, id: int) -> bool:
        """Whether there was such a lane when they were read."""
        return id in self._known

    def id_of(self, task: NewTask) -> int:
        """The lane of a task, once `ensure` has seen it."""
        return self._ids[_key(task)]

    def count(self, tasks: Iterable[NewTask]) -> Counter[int]:
        """How many of these tasks stand in each lane, once `ensure` has seen them."""
        lanes: Counter[int] = Counter()
        for (channel, priority, executor), run in groupby(tasks, _place):
            lanes[self._ids[channel, priority, executor is Executor.SYNC]] += sum(1 for _ in run)
        return lanes

    def has(self, tasks: Iterable[NewTask]) -> bool:
        """Whether the lanes of these tasks are known to exist."""
        return all(_key(task) in self._ids for task in tasks)

    async def ensure(self, tasks: Iterable[NewTask]) -> int:
        """Make the lanes of these tasks, unless they are known to exist; the session in which they do.

        A standby that takes over may lack some of the newest: tasks written into such a lane would never be found.
        """
        if self._session != self._link.open_session:
            self._session = await self._link.session()
            self._ids.clear()
        missing = {_key(task) for task in tasks} - self._ids.keys()
        if missing:
            columns = map(list, zip(*sorted(missing), strict=True))
            await self._link.fetch("ensure_lanes", *columns, session=self._session)
            await self.refresh()
        return self._session

    async def refresh(self) -> None:
        """Read them all again: other processes make new ones."""
        lanes = [Lane(*row) for row in await self._link.fetch("lanes")]
        self._known = {lane.id: lane for lane in lanes}
        for lane in lanes:
            if not lane.again and lane.function is None:
                self._ids[lane.channel, lane.priority, lane.sync] = lane.id


_place = attrgetter("channel", "priority", "executor")


def _key(task: NewTask) -> LaneKey:
    return task.channel, task.priority, task.executor is Executor.SYNC
