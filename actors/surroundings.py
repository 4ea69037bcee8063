"""What stands around the tasks of a worker process: the application, its lifespan, the start and stop hooks."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from loguru import logger

from ..runtime import wire
from ..runtime.backend import Backend
from ..runtime.errors import ConfigurationError
from ..runtime.execute import added_of
from ..runtime.functions import AllowList
from ..runtime.hooks import on_worker_start, on_worker_stop, run_all
from ..runtime.schedule import declared_schedules
from ..runtime.wire import WorkerArgument
from .worker_backend import queue_outside_tasks

NOT_READY: Final = 3  # the exit code of a worker that could not start


class Surroundings:
    """The application of this process; user code runs between `open` and `close`, both on the same loop."""

    def __init__(self, argument: WorkerArgument, backend: Backend) -> None:
        """Import the application. Raises whatever its modules raise, ConfigurationError when it is not in them."""
        if argument.app_dir is not None:
            sys.path.insert(0, argument.app_dir)
        self.app = None if argument.app is None else _imported(argument.app)
        self.allowed = AllowList(_prefixes(argument), _folder(argument), argument.only_decorated)
        self._lifespan = argument.lifespan
        self._backend = backend
        self._leave: asyncio.Event | None = None
        self._life: asyncio.Task[None] | None = None

    def schedules(self) -> list[wire.Schedule]:
        """What the application declares to run by the clock. Raises what is wrong with it."""
        declared = declared_schedules()
        if not declared:
            return []
        from ..runtime.settings import Settings  # 5 MB that a worker without schedules has no use for

        settings = Settings()
        return [
            wire.Schedule(spec.name, spec.cron, spec.timezone, spec.catch_up, added_of(spec.task(settings)))
            for spec in declared
        ]

    async def open(self) -> None:
        """Enter the lifespan, call the start hooks; raises what they raise."""
        opened = asyncio.get_running_loop().create_future()
        self._leave = asyncio.Event()
        # One asyncio task for both ends: a lifespan may hold a cancel scope, which must be left where it was entered.
        self._life = asyncio.create_task(self._live(opened, self._leave))
        await asyncio.wait([self._life, opened], return_when=asyncio.FIRST_COMPLETED)
        if self._life.done():
            await self._life
        # What is there now stays. Else every few hundred tasks the collector would look through the whole application:
        # half the time of a worker that runs short ones.
        gc.collect()
        gc.freeze()

    async def close(self) -> None:
        """Call the stop hooks, leave the lifespan; what they raise is logged."""
        if self._life is None or self._leave is None:
            return
        self._leave.set()
        try:
            await self._life
        except Exception as error:
            logger.opt(exception=error).error("The lifespan of the application failed at its end.")

    async def _live(self, opened: asyncio.Future[None], leave: asyncio.Event) -> None:
        async with self._application():
            for error in await run_all(on_worker_start):
                raise error
            opened.set_result(None)
            await leave.wait()
            for error in await run_all(on_worker_stop):
                logger.opt(exception=error).error("A stop hook of the worker failed.")

    @asynccontextmanager
    async def _application(self) -> AsyncIterator[None]:
        if not self._lifespan or self.app is None:
            yield
            return
        router = getattr(self.app, "router", None)
        lifespan = getattr(router, "lifespan_context", None)
        if lifespan is None:
            raise ConfigurationError("--lifespan needs a FastAPI or Starlette application: give one, or leave it out")
        async with queue_outside_tasks(self._backend), lifespan(self.app):
            yield


def why_not(error: BaseException) -> str:
    """The text for a supervisor that is told NotReady: the traceback from the user's code on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def _imported(reference: str) -> object:
    module_name, _, path = reference.partition(":")
    found: object = importlib.import_module(module_name)
    for part in (path or "app").split("."):
        found = getattr(found, part, None)
        if found is None:
            raise ConfigurationError(f"--app {reference}: {module_name} has no {path or 'app'}: correct the name")
    return found


def _prefixes(argument: WorkerArgument) -> tuple[str, ...]:
    if argument.app is None:
        return argument.allowed_modules
    return (*argument.allowed_modules, argument.app.partition(":")[0].partition(".")[0])


def _folder(argument: WorkerArgument) -> Path | None:
    """The application's folder: the one given, else the one in which its outermost package or module stands."""
    if argument.app_dir is not None:
        return Path(argument.app_dir)
    if argument.app is None:
        return None
    top = argument.app.partition(":")[0].partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None:
        return None
    return Path(file).parent.parent if Path(file).name == "__init__.py" else Path(file).parent
