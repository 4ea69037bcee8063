"""Follow a task: what has changed since one last looked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias
from uuid import UUID

from .task import Json, Task, TaskLog, TaskState

Change: TypeAlias = Literal["state", "context", "logs"]

MOST_LINES = 1_000  # of the log, in one update


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A task as it stands, what it logged behind a certain line, and how far it had come at least: see get_progress."""

    task: Task
    progress: str
    logs: list[TaskLog]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUpdate:
    """One look at a task that is followed.

    `task` is the task as it stands, `changed` says what is new about it since the update before, `logs` holds the lines
    that are. The first update has all there is. Changes that come close together arrive as one update.
    """

    task: Task
    changed: frozenset[Change]
    logs: tuple[TaskLog, ...] = ()

    @property
    def state(self) -> TaskState:
        """Where the task stands."""
        return self.task.state

    @property
    def context(self) -> dict[str, Json]:
        """The context of the task, its progress included."""
        return self.task.context


class Newsroom(Protocol):
    """Who knows what becomes of tasks."""

    async def news(self, id: UUID, progress: str, line: int) -> News:
        """See `Backend.news`."""


async def watch(backend: Newsroom, id: UUID) -> AsyncIterator[TaskUpdate]:
    """See `TaskRef.watch`."""
    before: Task | None = None
    progress, line = "", 0
    while True:
        news = await backend.news(id, progress, line)
        progress, line = news.progress, news.logs[-1].id if news.logs else line
        changed = _changes(before, news)
        before = news.task
        if changed:
            yield TaskUpdate(task=news.task, changed=changed, logs=tuple(news.logs))
        if len(news.logs) == MOST_LINES:
            progress = ""
        elif before.state.is_final or before.state is TaskState.STOPPED:
            return


def _changes(before: Task | None, news: News) -> frozenset[Change]:
    changed: set[Change] = set()
    if before is None or (before.state, before.attempt) != (news.task.state, news.task.attempt):
        changed.add("state")
    if news.task.context != (before.context if before else {}):
        changed.add("context")
    if news.logs:
        changed.add("logs")
    return frozenset(changed)
