"""What callers ask by, ids and the sizes of pages, and what a web page wants to know of a task. Pure."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from .errors import InvalidTask
from .task import Task, TaskState

_MOST_ROWS = 1_000  # a page


def id_of(id: UUID | str) -> UUID:
    """The id that was given, as text perhaps. Raises InvalidTask when it is none."""
    if isinstance(id, UUID):
        return id
    try:
        return UUID(id)
    except (ValueError, TypeError, AttributeError):
        raise InvalidTask(f"the id is {id!r:.60}: give the UUID of a task, or its text") from None


def rows_of(limit: int) -> int:
    """The size of a page. Raises InvalidTask when it is none."""
    if isinstance(limit, int) and 1 <= limit <= _MOST_ROWS:
        return limit
    raise InvalidTask(f"limit is {limit!r:.60}: give a number from 1 to {_MOST_ROWS}, and fetch more pages")


def status_of(task: Task) -> dict[str, Any]:
    """Where a task stands and what can be done with it."""
    return {
        "id": task.id,
        "name": task.name,
        "state": task.state,
        "is_finished": task.state.is_final,
        "is_active": task.state in (TaskState.ENQUEUED, TaskState.WAITING, TaskState.DOING),
        "can_be_restarted": task.state.is_final or task.state is TaskState.STOPPED,
        "can_be_cancelled": not task.state.is_final,
        "attempt": task.attempt,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "ended_at": task.ended_at,
        "exception_name": task.exception_name,
        "exception_message": task.exception_message,
    }
