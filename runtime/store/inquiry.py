"""Gather what `why` needs to know about one task: where it stands, what is in its way, who could take it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from ..gates import Gate, Rate
from ..intake import Intake
from ..task import Task, TaskState
from .link import Link, Row
from .reads import Reads

MOST_AHEAD = 1_000  # tasks of the same line that are counted

_PARENTS = 3  # that are named


class Place(Enum):
    """Where an enqueued task stands."""

    LINE = "line"
    DELAYED = "delayed"
    INBOX = "inbox"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Taker:
    """A server that is there; `workers`, `slots` and `busy` are those for the task's kind of function.

    `intake`: the channels that it takes; `error`: why its workers can't start.
    """

    id: UUID
    name: str
    state: str
    silent_for: float
    workers: int
    slots: int
    busy: int
    intake: Intake
    error: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """Where a task runs, in seconds: since when, when it last logged, when somebody wished to `cancel` or `stop` it."""

    server: Taker | None
    runs_for: float
    said_ago: float | None
    wish: str | None
    wished_ago: float | None


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the task's channel, and how far they are used up; `rate_in`: seconds until the rate allows one."""

    gate: Gate
    running: int
    running_with_key: int
    full_servers: frozenset[UUID]
    rate_in: float


@dataclass(frozen=True, slots=True)
class Parent:
    """A parent that has not ended."""

    id: UUID
    name: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """A task, and what decides whether it runs. Ages and delays are seconds by the clock of the database.

    `ahead`: tasks before it in its own line, `MOST_AHEAD` of them counted at most; `parents`: some of the open ones;
    `bad_parent`: one that has ended, and not done; `declined_by`: servers that don't run its function, and why.
    """

    task: Task
    sync: bool
    key: str
    expired: bool
    place: Place
    ahead: int
    due_in: float | None
    last_outcome: str | None
    last_ended_ago: float | None
    stopped_ago: float | None
    run: Run | None
    limits: Limits
    parents: tuple[Parent, ...]
    open_parents: int
    bad_parent: UUID | None
    declined_by: frozenset[UUID]
    declined_because: str | None
    takers: tuple[Taker, ...]


async def inquire(link: Link, id: UUID, *, lease_ttl: timedelta) -> Inquiry | None:
    """Everything about a task that says why it does, or does not, run; None when there is no such task."""
    reads = Reads(link)
    task = await reads.task(id)
    row = await link.fetch_one("why", id, MOST_AHEAD)
    if task is None or row is None:
        return None
    parents = await link.fetch("open_parents", id, _PARENTS) if task.state is TaskState.WAITING else []
    takers = [_taker(each, lease_ttl, sync=row["sync"]) for each in await reads.servers()]
    return Inquiry(
        task=task,
        sync=row["sync"],
        key=row["key"],
        expired=row["expired"],
        place=_place(row),
        ahead=row["ahead"],
        due_in=row["due_in"],
        last_outcome=row["last_outcome"],
        last_ended_ago=row["last_ended_ago"],
        stopped_ago=row["stopped_ago"],
        run=_run(row, takers),
        limits=_limits(task.channel, row),
        parents=tuple(Parent(each["id"], each["name"], each["state"]) for each in parents),
        open_parents=parents[0]["total"] if parents else 0,
        bad_parent=row["bad_parent"],
        declined_by=frozenset(row["declined_by"]),
        declined_because=row["declined_because"],
        takers=tuple(taker for taker in takers if taker.state != "gone"),
    )


def _place(row: Row) -> Place:
    if row["lined"]:
        return Place.LINE
    if row["delayed"]:
        return Place.DELAYED
    return Place.INBOX if row["posted"] else Place.NONE


def _taker(row: Row, lease_ttl: timedelta, *, sync: bool) -> Taker:
    details: dict[str, Any] = json.loads(row["details"] or "{}")
    own = {"workers": row["workers"] or 0, "slots": row["slots"] or 0, "busy": row["busy"] or 0}
    kind = details.get("kinds", {}).get("sync" if sync else "async", own)
    return Taker(
        id=row["id"],
        name=row["name"],
        state=_state(row, lease_ttl),
        silent_for=row["silent_for"] or 0.0,
        workers=kind["workers"],
        slots=kind["slots"],
        busy=kind["busy"],
        intake=Intake(tuple(details.get("channels", ())), tuple(details.get("excluded_channels", ()))),
        error=details.get("error"),
    )


def _state(row: Row, lease_ttl: timedelta) -> str:
    if not row["present"]:
        return "gone"
    return "lost" if row["silent_for"] > lease_ttl.total_seconds() else str(row["state"])


def _run(row: Row, takers: Sequence[Taker]) -> Run | None:
    if row["server_id"] is None:
        return None
    server = next((taker for taker in takers if taker.id == row["server_id"]), None)
    return Run(server, row["runs_for"], row["said_ago"], row["wish"], row["wished_ago"])


def _limits(channel: str, row: Row) -> Limits:
    rate = None if row["rate_count"] is None else Rate(row["rate_count"], row["rate_period"])
    return Limits(
        gate=Gate(channel, row["cap"], row["per_server"], row["key_cap"], rate, row["paused"]),
        running=row["running_in_channel"],
        running_with_key=row["running_with_key"],
        full_servers=frozenset(row["full_servers"]),
        rate_in=row["rate_in"] or 0.0,
    )
