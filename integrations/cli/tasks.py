"""The commands about tasks: list, show, logs, cancel, stop, retry, clear."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from rich.text import Text

from ...runtime.backend import not_found
from ...runtime.errors import InvalidState, TaskNotFound
from ...runtime.store.reads import Reads
from ...runtime.task import Json, Task, TaskLog, TaskState
from ..words import ago, plural, span, state, visible
from .ask import confirm
from .desk import desk
from .output import Column, complain, document, facts, say, table

if TYPE_CHECKING:
    from ...runtime.handles import QueuedTasks

_PAGE = 500
_COLUMNS = (
    Column("ID"),
    Column("STATE"),
    Column("NAME", gives=True),
    Column("CHANNEL", room=110),
    Column("ATTEMPT", room=120, right=True),
    Column("SERVER", room=140),
    Column("WHEN"),
)
_LEVELS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}


async def list_tasks(
    state: TaskState | None, name: str | None, channel: str | None, before: UUID | None, limit: int, *, as_json: bool
) -> None:
    """Print a page of tasks, newest first."""
    async with desk() as at:
        found = await at.reads.tasks(state=state, name=name, channel=channel, before=before, limit=limit)
    if as_json:
        document([row(task) for task in found])
    elif found:
        table(_COLUMNS, [_line(task) for task in found])
        if len(found) == limit:
            say(Text(f"Older ones: add --before {found[-1].id}", style="dim"))
    elif state or name or channel or before:
        say("No task matches.")
    else:
        say("No tasks yet. Your application adds them with tasks.add_task(...); `queued-tasks demo` shows it.")


async def show_task(id: UUID, *, as_json: bool) -> None:
    """Print everything about a task."""
    async with desk() as at:
        task = await _known(at.reads, id)
    if as_json:
        document(row(task))
    else:
        facts(_facts(task))


async def show_logs(id: UUID, limit: int, *, as_json: bool) -> None:
    """Print what a task logged, oldest first."""
    async with desk() as at:
        task = await _known(at.reads, id)
        lines = await at.reads.logs(id, after=None, limit=limit)
    if as_json:
        document([_log_row(line) for line in lines])
    elif lines:
        for line in lines:
            _print_log(line)
    else:
        say(f"{visible(task.name)} has logged nothing{'' if task.state.is_final else ' yet'}.")


async def follow_logs(id: UUID) -> None:
    """Print what a task logs, from the first line on and as it comes, until the task has ended."""
    from ...runtime.handles import QueuedTasks

    async with desk() as at, QueuedTasks.connect(settings=at.settings) as tasks:
        async for update in tasks.watch(id):
            for line in update.logs:
                _print_log(line)


async def end_tasks(verb: Literal["cancel", "stop"], ids: Sequence[UUID], *, yes: bool) -> int:
    """Cancel or stop these tasks, after a question; return the exit code."""
    from ...runtime.handles import QueuedTasks

    if not yes and not confirm(f"{verb.capitalize()} {plural(len(ids), 'task')}?"):
        return 1
    async with desk() as at, QueuedTasks.connect(settings=at.settings) as tasks:
        return max([await _end(tasks, verb, id) for id in ids])


async def retry_tasks(
    ids: Sequence[UUID], name: str | None, channel: str | None, *, yes: bool, subtree: bool = False
) -> int:
    """Retry the tasks with these ids; without any, after a question, all that failed. Return the exit code."""
    from ...runtime.handles import QueuedTasks

    async with desk() as at:
        chosen = list(ids) or [id async for id in _failed(at.reads, name, channel)]
        if not chosen:
            say("Nothing to retry.")
            return 0
        if not ids and not yes and not confirm(f"Retry {plural(len(chosen), 'failed task')}?"):
            return 1
        async with QueuedTasks.connect(settings=at.settings) as tasks:
            return max([await _retry(tasks, id, subtree) for id in chosen])


async def clear_tasks(name: str | None, channel: str | None, *, yes: bool) -> int:
    """Delete the tasks that have not started, after a question; return the exit code."""
    named, placed = f" named {name}" if name else "", f" of channel {channel}" if channel else ""
    if not yes and not confirm(f"Delete all enqueued and waiting tasks{named}{placed}? They are gone for good."):
        return 1
    total = 0
    async with desk() as at:
        while (await at.link.fetch("promote_inbox", _PAGE))[0]["taken"]:
            pass  # what was added in transactions has no place yet that it could be deleted from
        while count := int(await at.link.fetch_value("clear", name, channel)):
            total += count
    say(f"Deleted {plural(total, 'task')}." if total else "There was nothing to delete.")
    return 0


def row(task: Task) -> dict[str, Json]:
    """A task as a row of --json: the fields of the read model, in their order."""
    return {field.name: getattr(task, field.name) for field in fields(task)}


async def _known(reads: Reads, id: UUID) -> Task:
    task = await reads.task(id)
    if task is None:
        raise not_found(id)
    return task


async def _failed(reads: Reads, name: str | None, channel: str | None) -> AsyncIterator[UUID]:
    before: UUID | None = None
    while page := await reads.tasks(state=TaskState.FAILED, name=name, channel=channel, before=before, limit=_PAGE):
        for task in page:
            yield task.id
        before = page[-1].id


async def _end(tasks: QueuedTasks, verb: Literal["cancel", "stop"], id: UUID) -> int:
    try:
        found = await (tasks.cancel_task(id) if verb == "cancel" else tasks.stop_task(id))
    except TaskNotFound as error:
        complain(str(error))
        return 1
    if not found:
        complain(f"{id} {'has ended' if verb == 'cancel' else 'does not run'}: there is nothing to {verb}.")
        return 1
    task = await tasks.get_task_by_id(id)
    over = task is None or task.state is not TaskState.DOING
    say(f"{id} is {'cancelled' if verb == 'cancel' else 'stopped'}." if over else f"{id} is being interrupted.")
    return 0


async def _retry(tasks: QueuedTasks, id: UUID, subtree: bool) -> int:
    try:
        again = await tasks.retry_task(id, subtree=subtree)
    except (InvalidState, TaskNotFound) as error:
        complain(str(error))
        return 1
    say(f"{id} runs again." if again.id == id else f"{id} runs again as {again.id}.")
    return 0


def _line(task: Task) -> list[str | Text]:
    attempt = str(task.attempt or "")
    return [str(task.id), state(task.state), task.name, task.channel, attempt, task.server or "", _when(task)]


def _when(task: Task) -> str:
    if task.ended_at:
        return f"ended {ago(task.ended_at)}"
    if task.state is TaskState.DOING and task.started_at:
        return f"runs for {span((datetime.now(UTC) - task.started_at).total_seconds())}"
    if task.state is TaskState.ENQUEUED and task.run_at and task.run_at > datetime.now(UTC):
        return f"due {ago(task.run_at)}"
    return f"added {ago(task.created_at)}"


def _facts(task: Task) -> list[tuple[str, str | Text]]:
    """What is worth a line, in the order in which it happened."""
    known: list[tuple[str, str | Text | None]] = [
        ("id", str(task.id)),
        ("name", task.name),
        ("function", task.function),
        ("state", Text.assemble(state(task.state), f", {_when(task)}")),
        ("args", json.dumps(task.args, ensure_ascii=False) if task.args else None),
        ("kwargs", json.dumps(task.kwargs, ensure_ascii=False) if task.kwargs else None),
        ("context", json.dumps(task.context, ensure_ascii=False) if task.context else None),
        ("channel", f"{task.channel}, priority {task.priority}"),
        ("parents", "\n".join(map(str, task.parents)) or None),
        ("unique", task.unique_key),
        ("added", _instant(task.created_at)),
        ("due", _instant(task.run_at) if task.run_at else None),
        ("started", f"{_instant(task.started_at)} on {task.server}" if task.started_at else None),
        ("ended", _ended(task)),
        ("attempts", f"{task.attempt}, {task.failures} failed, {task.max_retries} retries allowed"),
        ("result", json.dumps(task.result, indent=2, ensure_ascii=False) if task.state is TaskState.DONE else None),
        ("error" if task.state is TaskState.FAILED else "last error", _error(task)),
    ]
    return [(name, value) for name, value in known if value is not None]


def _ended(task: Task) -> str | None:
    if task.ended_at is None:
        return None
    took = f", took {span(task.execution_time.total_seconds())}" if task.execution_time is not None else ""
    return f"{_instant(task.ended_at)}{took}"


def _error(task: Task) -> Text | None:
    parts = [part for part in (task.exception_name, task.exception_message) if part]
    if not parts:
        return None
    trace = f"\n{task.exception_traceback.rstrip()}" if task.exception_traceback else ""
    return Text.assemble((visible(": ".join(parts)), "red"), visible(trace))


def _instant(instant: datetime) -> str:
    return f"{instant.astimezone():%Y-%m-%d %H:%M:%S} ({ago(instant)})"


def _log_row(line: TaskLog) -> dict[str, Json]:
    return {name: getattr(line, name) for name in ("at", "level", "logger", "message", "exception")}


def _print_log(line: TaskLog) -> None:
    say(
        Text.assemble(
            (f"{line.at.astimezone():%H:%M:%S.%f}"[:-3], "dim"),
            (f" {line.level:8} ", _LEVELS.get(line.level, "")),
            (visible(line.logger), "dim"),
            f" {visible(line.message)}",
        )
    )
    if line.exception:
        say(Text(visible(line.exception.rstrip()), style="dim"))
