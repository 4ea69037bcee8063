"""Where a handle comes from: a connection, the task that runs here, or the worker process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast

from .blocking import runs_loop
from .bound import Bound
from .client import Client
from .current import making
from .entry import Entry
from .inside import of_attempt, running_task
from .outbox import Outbox
from .settings import Settings
from .turn import TurnFlush
from .writing import Writer

if TYPE_CHECKING:
    from .sync_client import SyncQueuedTasks

worker_handle: QueuedTasks | None = None  # set in a worker process, for what runs there outside of tasks


class QueuedTasks(Client):
    """Add tasks and look after them. Get one from `connect()`, in a route from `Inject`, in a task from `current()`.

    Every method raises InvalidState once the handle is closed, also one that is under way, and those that are awaited
    DatabaseUnavailable when PostgreSQL is away. An id may be given as text.
    """

    @classmethod
    @asynccontextmanager
    async def connect(cls, dsn: str | None = None, *, settings: Settings | None = None) -> AsyncIterator[QueuedTasks]:
        """A handle for scripts and services: what it adds is written at the end of the event loop's turn.

        Without `dsn` the settings name the database, and without these the embedded one is used. Leaving writes what
        is left. What is awaited belongs to this event loop; any thread may call `add_task`.

        Raises:
            SchemaOutdated: the database needs `queued-tasks migrate`.
            DatabaseUnavailable: it could not be reached within ten seconds.
            ConfigurationError: a malformed URL, or none and no embedded PostgreSQL.
        """
        from .direct import open_backend  # a worker process must not load what it never uses

        settings = settings or Settings()
        backend = await open_backend(dsn, settings)
        bound = Bound()
        outbox = _BoundOutbox(backend, bound)
        flush = TurnFlush(outbox)
        handle = cls(backend, outbox, settings)
        handle.bound = bound
        try:
            yield handle
        finally:
            try:
                await flush.close(
                    "This handle is closed: add tasks before you leave `async with QueuedTasks.connect()`."
                )
            finally:
                await backend.close()

    @classmethod
    @contextmanager
    def sync(cls, dsn: str | None = None, *, settings: Settings | None = None) -> Iterator[SyncQueuedTasks]:
        """A handle whose methods block, for scripts and for the views of Flask and Django; one serves all threads.

        A thread of its own writes at once what it adds; leaving writes what is left. Raises what `connect` does.
        """
        from .sync_client import connected

        with connected(cls.connect(dsn, settings=settings)) as tasks:
            yield tasks

    @classmethod
    def current(cls) -> QueuedTasks:
        """The handle of the task that this code runs for: what it adds is written with the task's success.

        In a `def` task it is a SyncQueuedTasks: what is awaited here blocks there. A type checker wants to be told so:
        `SyncQueuedTasks.current()`.

        Raises:
            InvalidState: no task runs here.
        """
        running = running_task()
        if running.workplace.block is not None and not runs_loop():
            from .sync_client import SyncQueuedTasks

            return cast("QueuedTasks", SyncQueuedTasks.current())
        with making:
            if running.handle is None:
                running.handle = of_attempt(cls, running)
        return cast("QueuedTasks", running.handle)


class _BoundOutbox(Outbox):
    """One that any thread may add to, and that is written on one event loop."""

    def __init__(self, writer: Writer, bound: Bound) -> None:
        super().__init__(writer, together=False)
        self._bound = bound

    def put(self, wanted: Entry | None = None) -> Coroutine[Any, Any, None]:
        self._bound.check()
        return super().put(wanted)
