"""The errors of Queued Tasks. Catch the broad class, act on the narrow one.

QueuedTasksError
├── ConfigurationError      a setting or an option of the set-up is wrong
├── DatabaseUnavailable     PostgreSQL did not answer in time
├── SchemaOutdated          the database needs `queued-tasks migrate`
├── InvalidTask             what was given to add_task can't be a task
├── SerializationError      a value can't be kept as JSON
├── TaskNotFound            no task has this id
├── InvalidState            the task is not in a state that allows this
├── SignatureError          a stored task was altered, or never signed
├── TaskFailed              the task ended failed: carries the remote exception
│   ├── TaskTimeout         ... because it ran out of time
│   ├── WorkerDied          ... because it kept killing its worker process
│   └── ParentTaskFailed    ... because a parent failed
├── TaskCancelled           the task was cancelled (no asyncio.CancelledError)
└── TaskStopped             the task was stopped and waits for a retry by hand
"""

from __future__ import annotations


class QueuedTasksError(Exception):
    """The root of every error that this package raises; its text says what to do."""


class ConfigurationError(QueuedTasksError):
    """A setting or an option of the set-up is wrong."""


class DatabaseUnavailable(QueuedTasksError):
    """PostgreSQL could not be reached, or did not answer in time."""


class SchemaOutdated(QueuedTasksError):
    """The database holds an older schema than this version needs, or none."""


class InvalidTask(QueuedTasksError):
    """What was given to add_task can't become a task."""


class SerializationError(QueuedTasksError):
    """A value has the wrong type for its parameter, or can't be kept as JSON in PostgreSQL."""


class TaskNotFound(QueuedTasksError):
    """No task has this id: it never existed, was removed after it ended, or its retention is over."""


class InvalidState(QueuedTasksError):
    """The task is not in a state that allows what was asked."""


class SignatureError(QueuedTasksError):
    """A stored task is unsigned or does not match its signature."""


class TaskFailed(QueuedTasksError):
    """The task ended failed.

    `exception_name`, `exception_message` and `exception_traceback` are those of the last attempt,
    as text: the exception itself stays in the worker.
    """

    def __init__(self, name: str, message: str, traceback: str | None = None) -> None:
        super().__init__(f"{name}: {message}" if message else name)
        self.exception_name = name
        self.exception_message = message
        self.exception_traceback = traceback


class TaskTimeout(TaskFailed):
    """The task ran longer than its timeout."""


class WorkerDied(TaskFailed):
    """The task's worker process died under it, again and again."""


class ParentTaskFailed(TaskFailed):
    """A parent failed, so the task never ran."""


class TaskCancelled(QueuedTasksError):
    """The task was cancelled. Not an asyncio.CancelledError: the waiting code itself goes on."""


class TaskStopped(QueuedTasksError):
    """The task was stopped; `queued-tasks retry ID` lets it run again."""
