"""Durable background tasks for FastAPI and asyncio, on PostgreSQL."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runtime.context import clear_context, get_context, get_full_context, set_context, set_full_context
    from .runtime.current import get_current_task
    from .runtime.cursor import iter_with_cursor
    from .runtime.errors import (
        ConfigurationError,
        DatabaseUnavailable,
        InvalidState,
        InvalidTask,
        ParentTaskFailed,
        QueuedTasksError,
        SchemaOutdated,
        SerializationError,
        SignatureError,
        TaskCancelled,
        TaskFailed,
        TaskNotFound,
        TaskStopped,
        TaskTimeout,
        WorkerDied,
    )
    from .runtime.handles import QueuedTasks
    from .runtime.hooks import (
        on_post_create,
        on_post_run,
        on_pre_create,
        on_pre_run,
        on_worker_start,
        on_worker_stop,
        worker_state,
    )
    from .runtime.logging import getLogger
    from .runtime.options import task
    from .runtime.parents import get_parent_results
    from .runtime.ranges import enqueue_id_range_tasks
    from .runtime.refs import TaskRef
    from .runtime.retry import Cancel, Retry
    from .runtime.schedule import option, scheduled_task
    from .runtime.settings import Settings
    from .runtime.sync_client import SyncQueuedTasks, SyncTaskRef
    from .runtime.task import Task, TaskLog, TaskSpec, TaskState
    from .runtime.watch import TaskUpdate

__all__ = [
    "Cancel",
    "ConfigurationError",
    "DatabaseUnavailable",
    "InvalidState",
    "InvalidTask",
    "ParentTaskFailed",
    "QueuedTasks",
    "QueuedTasksError",
    "Retry",
    "SchemaOutdated",
    "SerializationError",
    "Settings",
    "SignatureError",
    "SyncQueuedTasks",
    "SyncTaskRef",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskLog",
    "TaskNotFound",
    "TaskRef",
    "TaskSpec",
    "TaskState",
    "TaskStopped",
    "TaskTimeout",
    "TaskUpdate",
    "WorkerDied",
    "clear_context",
    "enqueue_id_range_tasks",
    "getLogger",
    "get_context",
    "get_current_task",
    "get_full_context",
    "get_parent_results",
    "iter_with_cursor",
    "on_post_create",
    "on_post_run",
    "on_pre_create",
    "on_pre_run",
    "on_worker_start",
    "on_worker_stop",
    "option",
    "scheduled_task",
    "set_context",
    "set_full_context",
    "task",
    "worker_state",
]

# Where each name is defined. Imported when it is first used: a worker process loads nothing that it doesn't need.
_HOMES = {
    "context": ("clear_context", "get_context", "get_full_context", "set_context", "set_full_context"),
    "current": ("get_current_task",),
    "cursor": ("iter_with_cursor",),
    "errors": (
        "ConfigurationError",
        "DatabaseUnavailable",
        "InvalidState",
        "InvalidTask",
        "ParentTaskFailed",
        "QueuedTasksError",
        "SchemaOutdated",
        "SerializationError",
        "SignatureError",
        "TaskCancelled",
        "TaskFailed",
        "TaskNotFound",
        "TaskStopped",
        "TaskTimeout",
        "WorkerDied",
    ),
    "handles": ("QueuedTasks",),
    "hooks": (
        "on_post_create",
        "on_post_run",
        "on_pre_create",
        "on_pre_run",
        "on_worker_start",
        "on_worker_stop",
        "worker_state",
    ),
    "logging": ("getLogger",),
    "options": ("task",),
    "parents": ("get_parent_results",),
    "ranges": ("enqueue_id_range_tasks",),
    "refs": ("TaskRef",),
    "retry": ("Cancel", "Retry"),
    "schedule": ("option", "scheduled_task"),
    "settings": ("Settings",),
    "sync_client": ("SyncQueuedTasks", "SyncTaskRef"),
    "task": ("Task", "TaskLog", "TaskSpec", "TaskState"),
    "watch": ("TaskUpdate",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker that saw this would take any name for public

    def __getattr__(name: str) -> object:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f".runtime.{home}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
