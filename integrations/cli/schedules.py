"""The commands about schedules: list, run, pause, resume."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import click

from ...runtime.cron import Cron
from ...runtime.errors import ConfigurationError, QueuedTasksError
from ...runtime.handles import QueuedTasks
from ...runtime.schedule import ScheduleSpec, declared_schedules
from ...runtime.settings import Settings
from ...runtime.store.schedules import ScheduleRow, ScheduleStore
from ...runtime.task import TaskSpec
from ..words import ago
from .desk import desk
from .output import Column, complain, document, say, table
from .serve import app_folder, find_app

_COLUMNS = (
    Column("NAME", gives=True),
    Column("CRON"),
    Column("TIMEZONE"),
    Column("NEXT"),
    Column("LAST", room=100),
)
_FIELDS = ("name", "cron", "timezone", "next_at", "paused")


@dataclass(frozen=True, slots=True)
class _Line:
    """A schedule as it is shown; `next_at` in its own time zone."""

    name: str
    cron: str
    timezone: str
    next_at: datetime | None
    paused: bool = False
    last: str = ""


async def list_schedules(declared: Iterable[ScheduleSpec], *, as_json: bool) -> None:
    """Print the schedules that servers know, and those of `declared` that none knows yet."""
    async with desk() as at:
        rows = await ScheduleStore(at.link).look()
    known = {row.name: _line(row) for row in rows}
    new = {spec.name: _new_line(spec) for spec in declared if spec.name not in known}
    lines = [line for _, line in sorted({**known, **new}.items())]
    if as_json:
        document([{name: getattr(line, name) for name in _FIELDS} for line in lines])
    elif lines:
        table(_COLUMNS, [_cells(line) for line in lines])
    else:
        say("No schedules. An application declares them with @scheduled_task.")


def run_schedule(name: str, line: Sequence[str], app: str | None, app_dir: Path | None) -> int:
    """Enqueue the task of a schedule with the options in `line`, print its id; return the exit code."""
    settings = _settings(app)
    declared = _declared(settings, app_dir)
    if declared is None:
        raise ConfigurationError("There is no app to find the schedule in: add --app module:attribute.")
    spec = {spec.name: spec for spec in declared}.get(name)
    if spec is None:
        raise _unknown("The application declares", name, [spec.name for spec in declared])
    try:
        arguments = spec.arguments(line)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    asyncio.run(_enqueue(spec, arguments, settings))
    return 0


async def pause_schedule(name: str) -> None:
    """Let a schedule rest."""
    await _set_paused(name, True)
    say(f"{name} is paused, until `queued-tasks scheduler resume {name}`.")


async def resume_schedule(name: str) -> None:
    """Let a schedule go on."""
    await _set_paused(name, False)
    say(f"{name} goes on.")


def declared_here(app: str | None, app_dir: Path | None) -> Sequence[ScheduleSpec]:
    """What the application declares, if there is one here; why it can't be imported is said on stderr."""
    try:
        return _declared(_settings(app), app_dir) or ()
    except ConfigurationError as error:
        complain(str(error))
        return ()


def _declared(settings: Settings, app_dir: Path | None) -> Sequence[ScheduleSpec] | None:
    folder = app_folder(app_dir)
    app = find_app(settings, folder)
    if app is None:
        return None
    sys.path.insert(0, str(folder))
    try:
        with redirect_stdout(sys.stderr):  # stdout is for what the command answers
            import_module(app.partition(":")[0])
    except QueuedTasksError as error:
        raise ConfigurationError(str(error)) from error
    except Exception as error:
        raise ConfigurationError(
            f"{app} can't be imported ({type(error).__name__}: {error}): correct that, or check --app and --app-dir."
        ) from error
    return declared_schedules()


def _settings(app: str | None) -> Settings:
    return Settings() if app is None else Settings(app=app)


async def _enqueue(spec: ScheduleSpec, arguments: dict[str, object], settings: Settings) -> None:
    task = TaskSpec(spec.func, (), spec.fitting(arguments), channel=spec.channel, priority=spec.priority)
    async with QueuedTasks.connect(settings=settings) as tasks:
        (ref,) = await tasks.add_tasks([task])
    print(ref.id)


async def _set_paused(name: str, paused: bool) -> None:
    async with desk() as at:
        store = ScheduleStore(at.link)
        if not await store.pause(name, paused):
            raise _unknown("The servers know", name, [row.name for row in await store.look()])


def _unknown(who: str, name: str, names: Sequence[str]) -> ConfigurationError:
    others = f"but {', '.join(names)}" if names else "nor any other"
    return ConfigurationError(f"{who} no schedule {name!r}, {others}.")


def _line(row: ScheduleRow) -> _Line:
    due = None if row.paused else _next(row.cron, row.timezone, row.now)
    return _Line(row.name, row.cron, row.timezone, due, row.paused, _last(row))


def _new_line(spec: ScheduleSpec) -> _Line:
    return _Line(spec.name, spec.cron, spec.timezone, _next(spec.cron, spec.timezone, datetime.now(UTC)))


def _next(expression: str, timezone: str, now: datetime) -> datetime:
    cron = Cron(expression, timezone)
    return cron.next_after(now).astimezone(cron.zone)


def _last(row: ScheduleRow) -> str:
    if row.last_due_at is None:
        return ""
    return ago(row.last_due_at) if row.last_reason is None else f"{ago(row.last_due_at)}, skipped: {row.last_reason}"


def _cells(line: _Line) -> list[str]:
    due = "paused" if line.next_at is None else ago(line.next_at)
    return [line.name, line.cron, line.timezone, due, line.last]
