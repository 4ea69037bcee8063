"""The reference that add_task returns: good at once, durable once it was awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from datetime import timedelta
from uuid import UUID

from .backend import Backend, not_found, result_of
from .entry import Entry
from .task import Json, TaskState
from .watch import TaskUpdate, watch


class Ref:
    """A task that was added, whatever way its handle has to wait for it."""

    __slots__ = ("_backend", "_entry")

    def __init__(self, entry: Entry, backend: Backend) -> None:
        self._entry = entry
        self._backend = backend

    @property
    def id(self) -> UUID:
        """The id of the task. For a unique one it is provisional until it is written: another task may stand for it."""
        return self._entry.id

    @property
    def created(self) -> bool | None:
        """Whether this call made the task; None before it is written, False when its unique key was taken."""
        return self._entry.created

    @property
    def entry(self) -> Entry:
        """What the outbox knows of it."""
        return self._entry

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, created={self.created})"


class TaskRef(Ref):
    """A task that was added. Awaiting it writes it, and what was added before it, and gives its id."""

    __slots__ = ()

    def __await__(self) -> Generator[object, None, UUID]:
        return self.get_task_id().__await__()

    async def get_task_id(self) -> UUID:
        """The id; the task is durable when this returns.

        Raises:
            DatabaseUnavailable: it could not be written in time; it is kept, and the next await tries again.
        """
        await self._entry.home.settle(self._entry)
        return self._entry.id

    async def get_state(self) -> TaskState:
        """Where the task stands. Raises TaskNotFound once it was removed."""
        id = await self.get_task_id()
        task = await self._backend.get(id)
        if task is None:
            raise not_found(id)
        return task.state

    async def cancel(self) -> bool:
        """Cancel the task; False when it had ended. A running one is told and ends soon after."""
        return await self._backend.cancel(await self.get_task_id())

    async def stop(self) -> bool:
        """Interrupt the task until somebody retries it; False when it doesn't run."""
        return await self._backend.stop(await self.get_task_id())

    async def watch(self) -> AsyncIterator[TaskUpdate]:
        """What happens to the task, as it happens: its state, its context, what it logs. Ends when the task has ended.

        The first update is how it stands; nothing after it is missed. A task that was stopped has ended here, too.
        `auto_remove` waits for those who watch. Raises TaskNotFound once the task was removed.
        """
        self._entry.expected = True
        async for update in watch(self._backend, await self.get_task_id()):
            yield update

    async def wait(self, timeout: float | timedelta | None = None) -> Json:
        """The result of the task, once it is done. `timeout` in seconds; None waits for as long as it takes.

        Raises:
            TaskFailed: with the remote exception's name, message and traceback; TaskTimeout, WorkerDied and
                ParentTaskFailed are kinds of it.
            TaskCancelled, TaskStopped: it ended that way.
            TimeoutError: it has not ended in time; it goes on.
            TaskNotFound: it was removed, as auto_remove does.
        """
        self._entry.expected = True
        id = await self.get_task_id()
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        return result_of(id, await self._backend.wait(id, seconds))
