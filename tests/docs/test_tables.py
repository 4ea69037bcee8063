"""The tables of the reference name all that there is, with the defaults that it has."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import Any

import pytest

import queued_tasks
from queued_tasks import QueuedTasks, QueuedTasksError, Settings, TaskState, scheduled_task, task
from tests.docs.tables import code, table

EMPTY = {None: "none", "": "empty", (): "empty"}


def written(default: Any) -> str:
    """A default as the table of settings writes it."""
    match default:
        case bool():
            return str(default).lower()
        case timedelta():
            return f"{default.total_seconds():g}"
        case None | "" | ():
            return EMPTY[default]
        case _:
            return f"{default}"


def settings() -> dict[str, str]:
    """Each variable with its default."""
    fields = Settings.model_fields.items()
    return {
        f"QUEUE_{name.upper()}": "CPUs" if name == "max_workers" else written(field.default) for name, field in fields
    }


def test_the_settings_are_all_there_with_their_defaults() -> None:
    assert {code(row[0]): row[2].strip("`") for row in table("settings.md", "variable")} == settings()


def test_the_errors_are_all_there_with_their_kinds() -> None:
    public = [getattr(queued_tasks, name) for name in queued_tasks.__all__]
    errors = {kind for kind in public if inspect.isclass(kind) and issubclass(kind, QueuedTasksError)}
    bases = {kind.__name__: kind.__base__.__name__ for kind in errors if kind.__base__}
    assert {code(row[0]): code(row[1]) for row in table("errors.md", "error")} == bases


def options(function: Any) -> dict[str, str]:
    """The keyword options of a function with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: shown(each.default) for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def shown(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    if default == (Exception,):
        return "(Exception,)"
    return f'"{default}"' if isinstance(default, str) else repr(default)


@pytest.mark.parametrize(
    ("page", "head", "function"),
    [
        ("enqueue.md", "option", QueuedTasks.add_task),
        ("tasks.md", "option", task),
        ("tasks.md", "of `@scheduled_task`", scheduled_task),
    ],
)
def test_the_options_are_all_there_with_their_defaults(page: str, head: str, function: Any) -> None:
    assert {code(row[0]): row[2].strip("`") for row in table(page, head)} == options(function)


def test_the_states_are_all_there() -> None:
    assert [code(row[0]) for row in table("tasks.md", "state")] == [*TaskState]
