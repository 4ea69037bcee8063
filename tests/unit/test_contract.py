"""What the documentation promises by name: nobody may rename it unawares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

import queued_tasks
from queued_tasks import (
    Cancel,
    QueuedTasks,
    Retry,
    Settings,
    SyncQueuedTasks,
    Task,
    TaskLog,
    TaskRef,
    TaskSpec,
    enqueue_id_range_tasks,
    iter_with_cursor,
    scheduled_task,
    task,
)
from queued_tasks.integrations import fastapi
from queued_tasks.runtime.current import CurrentTask

NAMES = [
    "QueuedTasks",
    "TaskSpec",
    "TaskRef",
    "Task",
    "TaskState",
    "TaskLog",
    "Settings",
    "task",
    "scheduled_task",
    "option",
    "set_context",
    "get_context",
    "get_full_context",
    "set_full_context",
    "clear_context",
    "get_current_task",
    "get_parent_results",
    "getLogger",
    "on_pre_create",
    "on_post_create",
    "on_pre_run",
    "on_post_run",
    "on_worker_start",
    "on_worker_stop",
    "worker_state",
    "enqueue_id_range_tasks",
    "iter_with_cursor",
    "Retry",
    "Cancel",
    "QueuedTasksError",
    "ConfigurationError",
    "DatabaseUnavailable",
    "SchemaOutdated",
    "SerializationError",
    "InvalidTask",
    "TaskNotFound",
    "InvalidState",
    "TaskFailed",
    "TaskTimeout",
    "WorkerDied",
    "ParentTaskFailed",
    "TaskCancelled",
    "TaskStopped",
    "SignatureError",
]

TASK = [
    "id",
    "name",
    "function",
    "state",
    "args",
    "kwargs",
    "context",
    "result",
    "channel",
    "priority",
    "attempt",
    "failures",
    "max_retries",
    "timeout",
    "auto_remove",
    "unique_key",
    "parents",
    "created_at",
    "run_at",
    "started_at",
    "ended_at",
    "execution_time",
    "server",
    "exception_name",
    "exception_message",
    "exception_traceback",
]

SETTINGS = [
    "database_url",
    "schema",
    "max_workers",
    "concurrency",
    "worker_idle_timeout",
    "task_timeout",
    "max_retries",
    "use_postgresql_notify",
    "notify_channel",
    "polling_interval",
    "fallback_polling_interval",
    "channels",
    "retention_days",
    "shutdown_grace",
    "lease_ttl",
    "health_file",
    "health_port",
    "health_host",
    "secret_key",
    "allowed_modules",
    "allow_unsigned",
    "only_decorated",
    "log_format",
    "listen_database_url",
    "statement_cache",
    "data_dir",
    "app",
]

ADD = {
    **dict.fromkeys(("parent", "name", "channel", "key", "priority", "max_retries", "timeout", "run_at", "expires_at")),
    **dict.fromkeys(("unique", "auto_remove", "context", "connection", "task_kwargs")),
    "on_parent_failure": "cascade",
}
RANGES = {"chunk_size": 200, "channel": None, "priority": None, "max_retries": None, "auto_remove": True, "tasks": None}
DECLARED = {
    **dict.fromkeys(("name", "channel", "priority", "max_retries", "timeout", "backoff", "unique", "auto_remove")),
    "retry_on": (Exception,),
    "give_up_on": (),
    "executor": None,
}
SCHEDULED = {"name": None, "timezone": "UTC", "catch_up": False, "channel": None, "priority": None}
LISTED = {"state": None, "name": None, "channel": None, "before": None, "limit": 50}


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_imported_from_the_package(name: str) -> None:
    assert name in queued_tasks.__all__


@pytest.mark.parametrize("name", ["Inject", "get_tasks", "lifespan", "health_router"])
def test_it_can_be_imported_from_the_integration(name: str) -> None:
    assert hasattr(fastapi, name)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Task, TASK),
        (TaskLog, ["task_id", "attempt", "at", "level", "logger", "message", "exception"]),
        (CurrentTask, ["id", "name", "attempt", "deadline", "app"]),
    ],
)
def test_what_one_reads_has_these_fields(kind: Any, names: list[str]) -> None:
    assert {*names} <= {field.name for field in fields(kind)}


def test_settings_have_these_fields() -> None:
    assert {*SETTINGS} <= {*Settings.model_fields}


@pytest.mark.parametrize(
    ("function", "defaults"),
    [
        (QueuedTasks.add_task, ADD),
        (QueuedTasks.add_task_async, ADD),
        (QueuedTasks.connect, {"dsn": None, "settings": None}),
        (QueuedTasks.sync, {"dsn": None}),
        (QueuedTasks.schedule, {"args": (), "kwargs": None}),
        (QueuedTasks.list_tasks, LISTED),
        (QueuedTasks.get_logs, {"after": None, "limit": 1000}),
        (QueuedTasks.retry_task, {"subtree": False}),
        (SyncQueuedTasks.retry_task, {"subtree": False}),
        (TaskRef.wait, {"timeout": None}),
        (TaskSpec, {"args": (), "kwargs": None}),
        (task, DECLARED),
        (scheduled_task, SCHEDULED),
        (enqueue_id_range_tasks, RANGES),
        (iter_with_cursor, {"key": "cursor", "commit_every": 1}),
        (Retry, {"in_": None, "reason": ""}),
        (Cancel, {"reason": ""}),
        (fastapi.lifespan, {"settings": None, "workers": 0}),
    ],
)
def test_a_function_takes_these_arguments(function: Callable[..., object], defaults: dict[str, object]) -> None:
    taken = {name: each.default for name, each in inspect.signature(function).parameters.items()}
    assert {name: taken.get(name, "missing") for name in defaults} == defaults


@pytest.mark.parametrize(
    "name",
    [
        *("add_task", "add_tasks", "flush", "get_task_by_id", "cancel_task", "retry_task"),
        *(
            "get_task_status",
            "get_pending_tasks_count",
            "stop_task",
            "list_tasks",
            "schedule",
            "chain",
            "group",
            "chord",
        ),
    ],
)
def test_both_handles_have_these_verbs(name: str) -> None:
    assert callable(getattr(QueuedTasks, name))
    assert callable(getattr(SyncQueuedTasks, name))
