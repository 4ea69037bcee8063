"""What there is to see at one moment of the demo, read from the database as any observer would."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import psutil

from ...runtime.store.link import Link
from ...runtime.store.overview import Overview, overview
from ...runtime.store.reads import Reads
from ...runtime.task import FINAL_STATES, Task, TaskState

_SPAWNED = "spawn_main"  # what multiprocessing starts its processes with
_RECENT = 60  # tasks, newest first, that are looked through for the latest ends


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the demo; `pids` are those of its worker processes, where they are ours."""

    name: str
    state: str
    slots: int
    busy: int
    workers: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """`counts` of the ended ones start at 0 with the demo; `ended` is newest first, `retrying` soonest first."""

    at: datetime
    seen: Overview
    counts: dict[str, int]
    servers: tuple[Server, ...]
    reports: tuple[Task, ...]
    retrying: tuple[Task, ...]
    ended: tuple[Task, ...]


class Observer:
    """Looks at the queue over one connection."""

    def __init__(self, link: Link, lease_ttl: timedelta, supervisor: int) -> None:
        self._link = link
        self._reads = Reads(link)
        self._lease_ttl = lease_ttl
        self._supervisor = supervisor
        self._before: dict[str, int] = {}
        self._since: datetime | None = None

    async def look(self, now: datetime) -> Scene:
        """Read everything once. What ended before the first look is not shown."""
        counts = await self._reads.counts()
        if self._since is None:
            self._since = now
            self._before = {state: counts[state] for state in FINAL_STATES}
        recent = await self._reads.tasks(state=None, name=None, channel=None, before=None, limit=_RECENT)
        return Scene(
            at=now,
            seen=await overview(self._link, self._lease_ttl),
            counts={state: max(count - self._before.get(state, 0), 0) for state, count in counts.items()},
            servers=await self._servers(),
            reports=tuple(task for task in reversed(recent) if task.name == "build_report" and _runs(task)),
            retrying=tuple(sorted((task for task in recent if _waits_for_retry(task, now)), key=_due)),
            ended=tuple(sorted((task for task in recent if self._is_fresh(task)), key=_end, reverse=True)),
        )

    async def _servers(self) -> tuple[Server, ...]:
        return tuple(
            Server(row["name"], row["state"], row["slots"], row["busy"], row["workers"], self._pids(row["pid"]))
            for row in await self._reads.servers()
            if row["present"] and row["silent_for"] < self._lease_ttl.total_seconds()
        )

    def _pids(self, pid: int) -> tuple[int, ...]:
        return _worker_processes(pid) if pid == self._supervisor else ()

    def _is_fresh(self, task: Task) -> bool:
        return task.ended_at is not None and (self._since is None or task.ended_at > self._since)


def _worker_processes(supervisor: int) -> tuple[int, ...]:
    try:
        children = psutil.Process(supervisor).children()
        return tuple(sorted(child.pid for child in children if _SPAWNED in " ".join(child.cmdline())))
    except psutil.Error:
        return ()


def _runs(task: Task) -> bool:
    return task.state is TaskState.DOING or (task.state is TaskState.ENQUEUED and bool(task.context))


def _waits_for_retry(task: Task, now: datetime) -> bool:
    return task.state is TaskState.ENQUEUED and task.failures > 0 and task.run_at is not None and task.run_at > now


def _due(task: Task) -> datetime:
    return task.run_at or task.created_at


def _end(task: Task) -> datetime:
    return task.ended_at or task.created_at
