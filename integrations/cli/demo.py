"""The command `demo`: a database, an app, visitors, a server, and a screen that shows them at work."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import uvloop
from rich.console import Console
from rich.live import Live

from ...runtime.database import is_embedded, resolve
from ...runtime.embedded_home import data_home
from ...runtime.errors import QueuedTasksError
from ...runtime.settings import Settings
from ...runtime.store.link import Link
from ...runtime.store.migrate import migrate
from ..child import ChildServer
from ..demo.scene import Observer, Scene
from ..demo.screen import Stage, draw, headline, said
from ..demo.traffic import Traffic
from ..words import plural
from .output import say
from .serve import require_uvicorn

_PACKAGE = (__package__ or "").removesuffix(".cli") + ".demo"
_SCHEMA = "queued_tasks_demo"  # so that a configured database keeps its own tasks to itself
_DRAWN_EVERY = 0.4  # seconds
_SAID_EVERY = 2.0  # seconds, where there is no terminal to draw on
_LOG_TAIL = 4000  # characters of the server's log that are shown when it fails


def run_demo(seconds: float | None) -> int:
    """Show the queue at work until Ctrl-C, or for so many seconds; return the exit code."""
    require_uvicorn("demo")
    try:
        return uvloop.run(_demo(seconds))
    except KeyboardInterrupt:
        say("Goodbye: the demo ended before it began.")
        return 0


async def _demo(seconds: float | None) -> int:
    say("Starting PostgreSQL, an app and two workers ...")
    environ, settings = _surroundings()
    dsn = await resolve(settings)
    await migrate(dsn, schema=settings.schema)
    link = Link(dsn, settings.schema, name="demo", statement_cache=settings.statement_cache)
    try:
        with tempfile.TemporaryDirectory(prefix="queued-tasks-") as folder, (Path(folder) / "log").open("w+b") as log:
            return await _perform(settings, link, environ, Path(folder), log, seconds)
    finally:
        await link.close()


def _surroundings() -> tuple[str, Settings]:
    """Point this process, and so its children, at the demo's own data: what a second terminal needs, the settings."""
    os.environ |= {
        "QUEUE_ALLOWED_MODULES": _PACKAGE,
        "QUEUE_CONCURRENCY": "10",
        "QUEUE_SHUTDOWN_GRACE": "3",
    }
    settings = Settings()
    if is_embedded(settings):
        home = data_home(settings.data_dir)
        variable, value = "QUEUE_DATA_DIR", str(home.with_name(f"{home.name}-demo"))
    else:
        variable, value = "QUEUE_SCHEMA", _SCHEMA
    os.environ[variable] = value
    return f"{variable}={value}", Settings()


async def _perform(
    settings: Settings, link: Link, environ: str, folder: Path, log: IO[bytes], seconds: float | None
) -> int:
    from ..web import WebServer, listen
    from .pair import Pair

    app = f"{_PACKAGE}.app:app"
    with listen("127.0.0.1", 0) as listener:
        stage = Stage(f"http://127.0.0.1:{listener.getsockname()[1]}", environ)
        web = WebServer(app, folder, grace=settings.shutdown_grace, quiet=True)
        child = await ChildServer.start(app=app, app_dir=folder, workers=2, name="demo", log=log)
        pair = Pair(web, child)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, pair.stop)
        show = _Show(Observer(link, settings.lease_ttl, child.pid), Traffic(stage.url), stage)
        playing = asyncio.ensure_future(show.play())
        try:
            code = await pair.run(listener)
        finally:
            playing.cancel()
            with suppress(asyncio.CancelledError):
                await playing
    if code:
        log.seek(0)
        sys.stderr.write(log.read().decode(errors="replace")[-_LOG_TAIL:])
    say(show.goodbye())
    return code


class _Show:
    """Visitors on one side, observers on the other."""

    def __init__(self, observer: Observer, traffic: Traffic, stage: Stage) -> None:
        self._observer = observer
        self._traffic = traffic
        self._stage = stage
        self._began = time.monotonic()
        self._scene: Scene | None = None

    async def play(self) -> None:
        """Show what is going on, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._traffic.run())
            group.create_task(self._draw() if sys.stdout.isatty() else self._tell())

    def goodbye(self) -> str:
        """The last line."""
        done = self._scene.counts["done"] if self._scene else 0
        rest = ", the rest is kept for the next demo" if self._unfinished() else ""
        return f"Goodbye: {plural(self._traffic.answered, 'request')} answered, {plural(done, 'task')} done{rest}."

    async def _draw(self) -> None:
        console = Console(highlight=False, emoji=False)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                if scene := await self._look():
                    elapsed = time.monotonic() - self._began
                    height, width = console.height, console.width
                    answered = self._traffic.answered
                    picture = draw(scene, self._stage, answered=answered, elapsed=elapsed, height=height, width=width)
                    live.update(picture, refresh=True)
                await asyncio.sleep(_DRAWN_EVERY)

    async def _tell(self) -> None:
        say(f"The app serves {self._stage.url}; try: curl -X POST {self._stage.url}/reports")
        while True:
            await asyncio.sleep(_SAID_EVERY)
            if scene := await self._look():
                last = f" Last: {scene.ended[0].name}, {said(scene.ended[0])}." if scene.ended else ""
                say(f"{headline(scene, self._traffic.answered)} {scene.counts['done']:,} done.{last}")
                sys.stdout.flush()

    async def _look(self) -> Scene | None:
        with suppress(QueuedTasksError):  # the next look may succeed
            self._scene = await self._observer.look(datetime.now(UTC))
        return self._scene

    def _unfinished(self) -> int:
        counts = self._scene.counts if self._scene else {}
        return sum(counts.get(name, 0) for name in ("enqueued", "waiting", "doing"))
