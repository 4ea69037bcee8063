"""What a handle needs behind it, in ids and plain values, so that a worker can pass each verb on; and how tasks end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from .errors import (
    ParentTaskFailed,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskStopped,
    TaskTimeout,
    WorkerDied,
)
from .task import Json, NewTask, Task, TaskLog, TaskState
from .watch import News
from .writing import Writer

_FAILURES: dict[str, type[TaskFailed]] = {kind.__name__: kind for kind in (TaskTimeout, WorkerDied, ParentTaskFailed)}


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a task ended, `stopped` included; `result` is JSON, None for null."""

    state: TaskState
    result: str | None = None
    exception_name: str | None = None
    exception_message: str | None = None
    exception_traceback: str | None = None


class Backend(Writer, Protocol):
    """The queue as one process sees it. Every verb raises DatabaseUnavailable when PostgreSQL is away.

    An unknown id is TaskNotFound, but None for `get`. `signs`: what is written gets signed.
    """

    @property
    def signs(self) -> bool:
        """Whether tasks can be signed here, which local functions need."""

    async def get(self, id: UUID) -> Task | None:
        """One task."""

    async def page(
        self, *, state: TaskState | None, name: str | None, channel: str | None, before: UUID | None, limit: int
    ) -> list[Task]:
        """A page of tasks, newest first."""

    async def logs(self, id: UUID, *, after: int | None, limit: int) -> list[TaskLog]:
        """What a task logged, oldest first."""

    async def pending(self) -> int:
        """How many tasks are enqueued."""

    async def cancel(self, id: UUID) -> bool:
        """Cancel a task; False when it had ended."""

    async def stop(self, id: UUID) -> bool:
        """Stop a running task; False when it doesn't run."""

    async def retry(self, id: UUID, *, subtree: bool = False) -> UUID:
        """Let a task run again: the id of its clone, its own if it was stopped. InvalidState while it is under way.

        `subtree`: with the descendants that ended because of it.
        """

    async def signed(self, tasks: Sequence[NewTask]) -> list[NewTask]:
        """The tasks with their signatures, where `signs`."""

    async def news(self, id: UUID, progress: str, line: int) -> News:
        """Return once a task has come further than `progress`; with what it logged behind `line`."""

    async def wait(self, id: UUID, timeout: float | None) -> End:
        """Return once the task has ended; TimeoutError after `timeout` seconds."""


def result_of(id: UUID, end: End) -> Json:
    """The result of a task that is done.

    Raises:
        TaskFailed, TaskTimeout, WorkerDied, ParentTaskFailed, TaskCancelled, TaskStopped: as it ended.
    """
    if end.state is TaskState.DONE:
        return None if end.result is None else json.loads(end.result)
    if end.state is TaskState.CANCELLED:
        raise TaskCancelled(f"Task {id} was cancelled{f': {end.exception_message}' if end.exception_message else '.'}")
    if end.state is TaskState.STOPPED:
        raise TaskStopped(f"Task {id} was stopped: `queued-tasks retry {id}` lets it run again.")
    name = end.exception_name or "Exception"
    raise _FAILURES.get(name, TaskFailed)(name, end.exception_message or "", end.exception_traceback)


def not_found(id: UUID) -> TaskNotFound:
    """The error for an id that names no task."""
    return TaskNotFound(f"No task {id} is there: it never was, was removed when it was done, or its retention is over.")
