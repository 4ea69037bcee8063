"""The context of the task that runs here: what its code keeps there survives a retry."""

from __future__ import annotations

from .current import Running, get_running, making
from .errors import QueuedTasksError
from .nested import Context
from .task import Json


def set_context(path: str, value: object, *, auto_commit: bool = True) -> None:
    """Keep `value` at the dotted `path` of the running task's context, where a retry of the task finds it.

    What is kept is a copy, as JSON gives it back. It is written within about 100 ms, and before the task's end; without
    `auto_commit` only with the next change that has it, or at the end: nobody sees the one without the other.

    Raises:
        QueuedTasksError: there is no running task here.
        SerializationError: it is not JSON, the context would become too large, or the path has an empty part.
        InvalidState: a part of the path holds something else than a dictionary.
    """
    running = _running("set_context")
    context = context_of(running)
    if context.set(path, value, commit=auto_commit):
        running.workplace.context_changed(running)


def get_context(path: str, default: Json = None) -> Json:
    """A copy of what stands at the dotted `path` of the running task's context, else `default`.

    Raises:
        QueuedTasksError: there is no running task here.
    """
    return context_of(_running("get_context")).get(path, default)


def get_full_context() -> dict[str, Json]:
    """A copy of the running task's whole context.

    Raises:
        QueuedTasksError: there is no running task here.
    """
    return context_of(_running("get_full_context")).copy()


def set_full_context(values: dict[str, Json], *, auto_commit: bool = True) -> None:
    """Replace the running task's whole context; `auto_commit` as in `set_context`.

    Raises:
        QueuedTasksError: there is no running task here.
        SerializationError: it is no dictionary, not JSON, or too large.
    """
    replace_context(_running("set_full_context"), values, commit=auto_commit)


def clear_context(*, auto_commit: bool = True) -> None:
    """Empty the running task's context; `auto_commit` as in `set_context`.

    Raises:
        QueuedTasksError: there is no running task here.
    """
    replace_context(_running("clear_context"), {}, commit=auto_commit)


def context_of(running: Running) -> Context:
    """The context of an attempt, read from what was stored when it is first asked for."""
    with making:
        if running.context is None:
            running.context = Context(running.attempt.context)
    return running.context


def replace_context(running: Running, values: dict[str, Json], *, commit: bool = True) -> None:
    """As `set_full_context`, for a given attempt."""
    if context_of(running).replace(values, commit=commit):
        running.workplace.context_changed(running)


def _running(what: str) -> Running:
    running = get_running()
    if running is None:
        raise QueuedTasksError(
            f"{what}() was called outside a running task: call it in a task's own code, while that runs"
        )
    return running
