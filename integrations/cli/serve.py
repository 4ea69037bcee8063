"""The commands that run something or change the schema: start, serve, migrate."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import typer
import uvloop

from ...runtime.database import prepare, resolve, with_key
from ...runtime.errors import ConfigurationError, DatabaseUnavailable
from ...runtime.intake import Intake
from ...runtime.settings import Settings
from ...runtime.store.migrate import NEWEST, as_sql, migrate, roles_sql
from ..child import ChildServer, leave_with
from .output import say

_MAIN = "main:app"


def start(
    *,
    app: str | None,
    app_dir: Path | None,
    workers: int | None,
    concurrency: int | None,
    name: str | None,
    lifespan: bool,
    scheduler: bool,
    intake: Intake,
    parent: int | None,
) -> int:
    """Run the server of this host until it is told to leave; return its exit code."""
    if parent is not None:
        leave_with(parent)
    settings = _settings(app=app, max_workers=workers, concurrency=concurrency)
    if workers is not None and "min_workers" not in settings.model_fields_set:
        settings = settings.model_copy(update={"min_workers": workers})  # who asks for so many gets them
    return uvloop.run(_start(settings, app_folder(app_dir), name, lifespan, scheduler, intake))


def serve(*, app: str | None, app_dir: Path | None, workers: int | None, host: str, port: int) -> int:
    """Serve HTTP here, with a server as a child process, until Ctrl-C or SIGTERM; return the exit code."""
    require_uvicorn("serve")
    settings, folder = _settings(app=app, max_workers=workers), app_folder(app_dir)
    found = find_app(settings, folder)
    if found is None:
        raise typer.BadParameter("There is no app to serve: add --app module:attribute, or set QUEUE_APP.")
    return uvloop.run(_serve(settings, found, folder, workers, host, port))


async def migrate_schema(*, as_script: bool, roles: bool) -> None:
    """Bring the schema up to date, or print the SQL that makes it, or that which makes roles for it."""
    settings = Settings()
    if roles:
        sys.stdout.write(roles_sql(settings.schema))
        return
    if as_script:
        sys.stdout.write(as_sql(settings.schema))
        return
    applied = await migrate(await resolve(settings), schema=settings.schema)
    if applied:
        say(f"The schema {settings.schema} is now at migration {applied[-1]}.")
    else:
        say(f"The schema {settings.schema} is up to date, at migration {NEWEST}.")


def require_uvicorn(command: str) -> None:
    """Make sure that HTTP can be served.

    Raises:
        ConfigurationError: uvicorn is not installed.
    """
    from importlib.util import find_spec

    if find_spec("uvicorn") is None:
        raise ConfigurationError(f"`queued-tasks {command}` needs uvicorn, which is not installed: pip install uvicorn")


async def _start(
    settings: Settings, folder: Path, name: str | None, lifespan: bool, scheduler: bool, intake: Intake
) -> int:
    from ...actors.console import configure
    from ...actors.server import run

    gc.freeze()  # what is imported stays: no need to look through it again and again
    gc.set_threshold(20_000)  # thousands of attempts are under way, and none of them makes a circle
    configure(settings.log_format)
    try:
        dsn = await prepare(settings)
    except DatabaseUnavailable:
        dsn = await resolve(settings)  # the server waits for it, and says so
    return await run(
        with_key(settings),
        dsn=dsn,
        app=find_app(settings, folder),
        app_dir=str(folder),
        name=name,
        lifespan=lifespan,
        scheduler=scheduler,
        intake=intake,
    )


async def _serve(settings: Settings, app: str, folder: Path, workers: int | None, host: str, port: int) -> int:
    from ..web import WebServer, listen
    from .pair import Pair

    await prepare(settings)
    with listen(host, port) as listener:
        web = WebServer(app, folder, grace=settings.shutdown_grace)
        child = await ChildServer.start(app=app, app_dir=folder, workers=workers)
        say(f"Serving {app} on http://{host}:{listener.getsockname()[1]} (Ctrl-C ends it)")
        return await Pair(web, child).run(listener)


def _settings(**given: Any) -> Settings:
    return Settings(**{name: value for name, value in given.items() if value is not None})


def app_folder(app_dir: Path | None) -> Path:
    return (app_dir or Path()).resolve()


def find_app(settings: Settings, folder: Path) -> str | None:
    return settings.app or (_MAIN if (folder / "main.py").is_file() else None)
