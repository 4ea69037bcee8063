"""FastAPI: the queue opens and closes with the application, and a route's tasks are written before its response."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeAlias, overload
from weakref import WeakKeyDictionary

from fastapi import Depends, HTTPException
from loguru import logger
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from ..runtime import handles
from ..runtime.errors import ConfigurationError, DatabaseUnavailable
from ..runtime.handles import QueuedTasks
from ..runtime.outbox import Outbox
from ..runtime.settings import Settings
from .child import ChildServer
from .health import health_router as health_router

# Any: the state that the application's own lifespan yields, if it does; Starlette types both as one
Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]

PATIENCE = 4.0  # seconds that a request waits for its tasks to be written
_RETRY_AFTER = "5"  # seconds
_ENDED = "This route has ended: use request.app.state.queued_tasks, which lives as long as the application."

_opened: WeakKeyDictionary[asyncio.AbstractEventLoop, list[QueuedTasks]] = WeakKeyDictionary()


async def _request_handle(connection: HTTPConnection) -> AsyncIterator[QueuedTasks]:
    everywhere = _application_handle(connection)
    if connection.scope["type"] != "http":  # it may stay open for days, and has no response
        yield everywhere
        return
    outbox = Outbox(everywhere.backend, together=True, patience=PATIENCE)
    try:
        yield QueuedTasks(everywhere.backend, outbox, everywhere.settings)
        await outbox.flush()
    except DatabaseUnavailable as error:
        raise HTTPException(
            503, "The task queue can't be reached: try again in a moment.", {"Retry-After": _RETRY_AFTER}
        ) from error
    finally:
        outbox.discard(_ENDED)


async def get_tasks(
    # "function": the exit code runs before the response is sent; by default it runs after, when it's too late for a 500
    handle: Annotated[QueuedTasks, Depends(_request_handle, scope="function")],
) -> QueuedTasks:
    """The request's handle, for `Depends(get_tasks)`.

    What a route adds is written after it and before its response: 503 when the database is away, nothing when the route
    raises. Both drop the tasks. Whatever else shares the request, a dependency for one, gets the same handle.
    """
    return handle


def Inject(cls: type[QueuedTasks]) -> Any:  # noqa: N802  # the name is part of the contract
    """`tasks: QueuedTasks = Inject(QueuedTasks)` is the same as `= Depends(get_tasks)`."""
    if cls is not QueuedTasks:
        raise ConfigurationError(f"Inject({cls!r:.60}) is not known: write Inject(QueuedTasks).")
    return Depends(get_tasks)


@overload
def lifespan(own: Starlette, /) -> AbstractAsyncContextManager[Any]: ...


@overload
def lifespan(
    own: Callable[[Any], Any] | None = None,
    /,
    *,
    settings: Settings | None = None,
    workers: int = 0,
    dsn: str | None = None,
) -> Lifespan: ...


def lifespan(
    own: Starlette | Callable[[Any], Any] | None = None,
    /,
    *,
    settings: Settings | None = None,
    workers: int = 0,
    dsn: str | None = None,
) -> Lifespan | AbstractAsyncContextManager[Any]:
    """Open the queue for as long as the application lives: `FastAPI(lifespan=lifespan)`, or `lifespan=lifespan(...)`.

    `own` is the application's own lifespan, which runs inside and may use `app.state.queued_tasks`, the handle for what
    is not a route. `workers=2` also runs a server with two workers as a child process, for development. Inside a worker
    process the handle is the worker's, and nothing is opened.

    Raises:
        ConfigurationError: an option is wrong; or, as the application starts, see `QueuedTasks.connect`.
    """
    if isinstance(own, Starlette):
        return _queue_around(own, None, Settings(), 0, None)
    if not isinstance(workers, int) or not 0 <= workers <= 1024:
        raise ConfigurationError(f"workers is {workers!r:.60}: give a number from 0 to 1024.")
    inner = asynccontextmanager(own) if inspect.isasyncgenfunction(own) else own
    return lambda app: _queue_around(app, inner, settings or Settings(), workers, dsn)


@asynccontextmanager
async def _queue_around(
    app: Starlette, own: Lifespan | None, settings: Settings, workers: int, dsn: str | None
) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        if handles.worker_handle is not None:
            handle = handles.worker_handle
        else:
            handle = await stack.enter_async_context(QueuedTasks.connect(dsn, settings=settings))
            if workers:
                await stack.enter_async_context(_child(app, settings, workers, dsn))
        app.state.queued_tasks = stack.enter_context(_known(handle))
        async with own(app) if own is not None else nullcontext() as state:
            yield state


@contextmanager
def _known(handle: QueuedTasks) -> Iterator[QueuedTasks]:
    opened = _opened.setdefault(asyncio.get_running_loop(), [])
    opened.append(handle)
    try:
        yield handle
    finally:
        opened.remove(handle)


def _application_handle(connection: HTTPConnection) -> QueuedTasks:
    handle = getattr(connection.app.state, "queued_tasks", None)
    if handle is None:  # a mounted application has a state of its own, and its lifespan never runs
        opened = {*_opened.get(asyncio.get_running_loop(), ())}
        if len(opened) > 1:
            raise ConfigurationError(
                "Several queues are open, and this application, which is mounted in another one, has none of its own: "
                "write mounted.state.queued_tasks = app.state.queued_tasks in the lifespan of that one."
            )
        handle = next(iter(opened), None)
    if not isinstance(handle, QueuedTasks):
        raise ConfigurationError(
            "The queue is not open: write FastAPI(lifespan=lifespan), around your own if you have one."
        )
    return handle


@asynccontextmanager
async def _child(app: Starlette, settings: Settings, workers: int, dsn: str | None) -> AsyncIterator[None]:
    name, folder = (settings.app, Path.cwd()) if settings.app else _place_of(app)
    if dsn is not None:
        settings = settings.model_copy(update={"database_url": SecretStr(dsn)})
    child = await ChildServer.start(app=name, app_dir=folder, workers=workers, environ=_environ(settings))
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(settings.shutdown_grace.total_seconds() + 5):
                await child.stop()
        except TimeoutError:
            logger.warning("The server did not end in time and is told to leave at once.")
            await child.stop()


def _place_of(app: Starlette) -> tuple[str, Path]:
    """How another process imports this application: its path, and the folder to import it from."""
    for name, module in [*sys.modules.items()]:
        file = getattr(module, "__file__", None)
        attribute = next((key for key, value in vars(module).items() if value is app), None)
        if attribute and file:
            return _place_in(module, name, attribute, Path(file).resolve())
    raise ConfigurationError(
        "lifespan(workers=...) can't tell where the app is: set QUEUE_APP to its module:attribute."
    )


def _place_in(module: ModuleType, name: str, attribute: str, file: Path) -> tuple[str, Path]:
    if name in ("__main__", "__mp_main__"):
        name = module.__spec__.name if module.__spec__ else file.stem
    depth = name.count(".") + (file.name == "__init__.py")
    return f"{name}:{attribute}", file.parents[depth]


def _environ(settings: Settings) -> dict[str, str]:
    """The settings that were given, as a child reads them."""
    given = {name: getattr(settings, name) for name in (*settings.model_fields_set, "database_url")}
    return {f"QUEUE_{name.upper()}": _text(value) for name, value in given.items() if value is not None}


def _text(value: object) -> str:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case timedelta():
            return str(value.total_seconds())
        case tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)
