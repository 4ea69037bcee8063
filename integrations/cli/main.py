"""The face of the command: options, exit codes, errors. What a command does is imported when it is called."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from ...runtime.errors import ConfigurationError, DatabaseUnavailable, QueuedTasksError
from ...runtime.task import TaskState
from .channel import channels
from .scheduler import scheduler
from .servers import servers

app = typer.Typer(
    name="queued-tasks",
    help="Durable background tasks for FastAPI and asyncio, on the PostgreSQL you already have.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tasks = typer.Typer(help="Look at tasks; cancel, stop and retry them.", no_args_is_help=True)
app.add_typer(tasks, name="tasks", rich_help_panel="Look")
app.add_typer(servers, name="servers", rich_help_panel="Look")
app.add_typer(channels, name="channels", rich_help_panel="Look")
app.add_typer(scheduler, name="scheduler", rich_help_panel="Look")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Id = Annotated[UUID, typer.Argument(help="The id of a task.")]
Ids = Annotated[list[UUID], typer.Argument(help="The ids of tasks.")]
Subtree = Annotated[bool, typer.Option("--subtree", help="And those that ended because of it.")]
Name = Annotated[str | None, typer.Option(help="Only tasks of this name.")]
Channel = Annotated[str | None, typer.Option(help="Only tasks of this channel.")]
App = Annotated[
    str | None, typer.Option(metavar="MODULE:APP", help="The application (default: QUEUE_APP, else main:app).")
]
AppDir = Annotated[Path | None, typer.Option(help="The folder that --app is found in (default: this one).")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes (default: as there is work, up to the CPUs).")
]


def main() -> None:
    """Run the command line. Ends the process: 0 fine, 1 failed, 2 wrong usage, 3 unhealthy."""
    try:
        app(prog_name="queued-tasks")
    except DatabaseUnavailable as error:
        _fail(f"{error} Is it running, and is QUEUE_DATABASE_URL right?")
    except QueuedTasksError as error:
        _fail(str(error))
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        _fail(
            f"a fault of its own, {type(error).__name__}: {error}. "
            "Please report it, with what `python -X dev -m queued_tasks ...` prints."
        )


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"queued-tasks {version_of('queued-tasks')}")
        raise typer.Exit


@app.command(rich_help_panel="Run")
def start(
    app: App = None,
    app_dir: AppDir = None,
    workers: Workers = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Tasks at a time in a worker (default: 100).")] = None,
    name: Annotated[str | None, typer.Option(help="The server's name (default: the host's).")] = None,
    lifespan: Annotated[bool, typer.Option("--lifespan", help="Run the app's lifespan in each worker.")] = False,
    channels: Annotated[str | None, typer.Option(help="Take tasks of these channels only, as in a,b.")] = None,
    exclude_channels: Annotated[str | None, typer.Option(help="Take tasks of all channels but these.")] = None,
    no_scheduler: Annotated[bool, typer.Option("--no-scheduler", help="Leave schedules to other servers.")] = False,
    with_parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run tasks: the server of this host."""
    from ...runtime.intake import parse_intake
    from .serve import start

    try:
        intake = parse_intake(channels, exclude_channels)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(
        start(
            app=app,
            app_dir=app_dir,
            workers=workers,
            concurrency=concurrency,
            name=name,
            lifespan=lifespan,
            scheduler=not no_scheduler,
            intake=intake,
            parent=with_parent,
        )
    )


@app.command(rich_help_panel="Run")
def serve(
    app: App = None,
    app_dir: AppDir = None,
    workers: Workers = None,
    host: Annotated[str, typer.Option(help="The address to serve HTTP on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 is any free one.")] = 8000,
) -> None:
    """Serve the app over HTTP and run its tasks, with one command."""
    from .serve import serve

    raise typer.Exit(serve(app=app, app_dir=app_dir, workers=workers, host=host, port=port))


@app.command(rich_help_panel="Run")
def demo(
    seconds: Annotated[float | None, typer.Option(min=1, help="End after so many seconds.")] = None,
) -> None:
    """See it at work: an app, real requests, workers, all on one screen."""
    from .demo import run_demo

    raise typer.Exit(run_demo(seconds))


@app.command(rich_help_panel="Run")
def migrate(
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL for psql instead; touches nothing.")] = False,
    roles: Annotated[bool, typer.Option("--roles", help="Print the SQL that makes roles; touches nothing.")] = False,
) -> None:
    """Create the schema, or bring it up to date."""
    from .serve import migrate_schema

    _run(migrate_schema(as_script=sql, roles=roles))


@app.command(rich_help_panel="Look")
def status(
    check: Annotated[bool, typer.Option("--check", help="Exit code 3 when no server takes tasks.")] = False,
    as_json: AsJson = False,
) -> None:
    """How the whole is, on one screen."""
    from .cluster import show_status

    _run(show_status(check=check, as_json=as_json))


@app.command(rich_help_panel="Look")
def stats(as_json: AsJson = False) -> None:
    """How many tasks are in each state, how busy the servers are."""
    from .cluster import show_stats

    _run(show_stats(as_json=as_json))


@app.command(rich_help_panel="Look")
def why(id: Id, as_json: AsJson = False) -> None:
    """Why a task isn't running, and what to do about it."""
    from .why import show_why

    _run(show_why(id, as_json=as_json))


@app.command(rich_help_panel="Look")
def top(as_json: AsJson = False) -> None:
    """Servers, channels, running tasks and failures, live. Ends with q."""
    from .top import show_top

    _run(show_top(as_json=as_json))


@app.command(rich_help_panel="Look")
def doctor(as_json: AsJson = False) -> None:
    """What is wrong, and what to do about it. Exit code 1 for findings, 3 when nothing can run."""
    from .doctor import show_doctor

    _run(show_doctor(as_json=as_json))


@tasks.command("list")
def list_tasks(
    state: Annotated[TaskState | None, typer.Option(help="Only tasks in this state.")] = None,
    name: Name = None,
    channel: Channel = None,
    before: Annotated[UUID | None, typer.Option(metavar="ID", help="Only tasks older than this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """The newest tasks."""
    from .tasks import list_tasks

    _run(list_tasks(state, name, channel, before, limit, as_json=as_json))


@tasks.command("show")
def show_task(id: Id, as_json: AsJson = False) -> None:
    """Everything about one task."""
    from .tasks import show_task

    _run(show_task(id, as_json=as_json))


@tasks.command("logs")
def show_logs(
    id: Id,
    limit: Annotated[int, typer.Option(min=1, help="How many lines at most.")] = 1000,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """What one task logged."""
    if follow and as_json:
        raise typer.BadParameter("--json prints one document, which --follow never ends")
    from .tasks import follow_logs, show_logs

    _run(follow_logs(id) if follow else show_logs(id, limit, as_json=as_json))


@tasks.command("cancel")
def cancel_tasks(ids: Ids, yes: Yes = False) -> None:
    """End tasks for good: unstarted ones never start, running ones are interrupted."""
    from .tasks import end_tasks

    _run(end_tasks("cancel", ids, yes=yes))


@tasks.command("stop")
def stop_tasks(ids: Ids, yes: Yes = False) -> None:
    """Interrupt running tasks; they stay stopped until they are retried."""
    from .tasks import end_tasks

    _run(end_tasks("stop", ids, yes=yes))


@tasks.command("retry")
def retry_task(id: Id, subtree: Subtree = False) -> None:
    """Let one task run again."""
    from .tasks import retry_tasks

    _run(retry_tasks([id], None, None, yes=True, subtree=subtree))


@app.command(rich_help_panel="Change")
def retry(
    ids: Annotated[list[UUID] | None, typer.Argument(help="The ids of tasks.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed.")] = False,
    name: Name = None,
    channel: Channel = None,
    subtree: Subtree = False,
    yes: Yes = False,
) -> None:
    """Let tasks run again: those with these ids, or all that failed."""
    if bool(ids) == failed:
        raise typer.BadParameter("give ids, or --failed")
    if ids and (name or channel):
        raise typer.BadParameter("--name and --channel go with --failed, not with ids")
    from .tasks import retry_tasks

    _run(retry_tasks(ids or [], name, channel, yes=yes, subtree=subtree))


@app.command(rich_help_panel="Change")
def clear(name: Name = None, channel: Channel = None, yes: Yes = False) -> None:
    """Delete tasks that have not started."""
    from .tasks import clear_tasks

    _run(clear_tasks(name, channel, yes=yes))


def _run(deed: Coroutine[Any, Any, int | None]) -> None:
    raise typer.Exit(asyncio.run(deed) or 0)


def _fail(text: str) -> None:
    print(f"queued-tasks: {text}", file=sys.stderr)
    sys.exit(1)
