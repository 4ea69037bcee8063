"""The face of `queued-tasks scheduler`: its options. What a command does is in schedules.py, imported when called."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

scheduler = typer.Typer(help="Look at schedules, and run, pause or resume one.", no_args_is_help=True)

App = Annotated[
    str | None, typer.Option(metavar="MODULE:APP", help="The application (default: QUEUE_APP, else main:app).")
]
AppDir = Annotated[Path | None, typer.Option(help="The folder that --app is found in (default: this one).")]
Name = Annotated[str, typer.Argument(help="The name of a schedule.")]


@scheduler.command("list")
def list_schedules(
    app: App = None,
    app_dir: AppDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """The schedules that servers know or the application declares, and when each is due next."""
    from .schedules import declared_here, list_schedules

    asyncio.run(list_schedules(declared_here(app, app_dir), as_json=as_json))


# Every option that isn't the command's own is the schedule's, --help included.
@scheduler.command(
    "run", add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def run_schedule(context: typer.Context, name: Name, app: App = None, app_dir: AppDir = None) -> None:
    """Enqueue a schedule's task now and print its id. After the name come the options that its function declares."""
    if name in ("-h", "--help"):
        print(context.get_help())
        return
    from .schedules import run_schedule

    raise typer.Exit(run_schedule(name, context.args, app, app_dir))


@scheduler.command("pause")
def pause_schedule(name: Name) -> None:
    """Let a schedule rest, on all servers."""
    from .schedules import pause_schedule

    asyncio.run(pause_schedule(name))


@scheduler.command("resume")
def resume_schedule(name: Name) -> None:
    """Let a paused schedule go on, with the next time that it is due."""
    from .schedules import resume_schedule

    asyncio.run(resume_schedule(name))
