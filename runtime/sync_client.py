"""The handle for code without an event loop: `def` tasks, scripts, Flask and Django views. Its methods block."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime, timedelta
from functools import wraps
from threading import Lock, Thread
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from uuid import UUID

from .blocking import refuse_on_loop, result_of, runs_loop
from .client import Client
from .current import Block, making
from .entry import Entry
from .errors import InvalidState
from .inside import of_attempt, running_task
from .refs import Ref, TaskRef
from .task import Json, Task, TaskSpec, TaskState
from .watch import TaskUpdate, watch

P = ParamSpec("P")
T = TypeVar("T")

_LAST_WORDS = 5.0  # seconds for what still runs when a handle is closed
_CLOSED = "This handle is closed: use it, and what it returned, inside `with QueuedTasks.sync()`, or open another one."


def _twin(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncQueuedTasks, P], T]:
    """The method that waits for `method`, which asks about tasks and may have to write some of them first."""

    @wraps(method)
    def blocking(self: SyncQueuedTasks, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._write_asked(args)
        return self._wait(method(self._handle, *args, **kwargs))

    return blocking


def _twin_that_writes(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncQueuedTasks, P], T]:
    @wraps(method)
    def blocking(self: SyncQueuedTasks, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._write(method(self._handle, *args, **kwargs))

    return blocking


def _twin_of_add(
    add: Callable[Concatenate[Client, P], TaskRef],
) -> Callable[Concatenate[SyncQueuedTasks, P], SyncTaskRef]:
    @wraps(add)
    def added(self: SyncQueuedTasks, /, *args: P.args, **kwargs: P.kwargs) -> SyncTaskRef:
        self._check_process()
        return SyncTaskRef(add(self._handle, *args, **kwargs).entry, self)

    return added


class SyncQueuedTasks:
    """As QueuedTasks, but what is awaited there blocks here, and raises the same. Safe to use from several threads.

    Get one from `QueuedTasks.sync()`, in a `def` task from `current()`.
    """

    def __init__(self, handle: Client, block: Block) -> None:
        self._handle = handle
        self._block = handle.block = block
        self._turn = handle._outbox.turn
        self._process = os.getpid()

    @classmethod
    def current(cls) -> SyncQueuedTasks:
        """The handle of the `def` task that this code runs for: what `QueuedTasks.current()` gives there.

        Raises:
            InvalidState: no task runs here, or one that is `async def`.
        """
        running = running_task()
        block = running.workplace.block
        if block is None or runs_loop():
            raise InvalidState("This task is async def: use QueuedTasks.current(), whose methods are awaited.")
        with making:
            if running.twin is None:
                running.twin = cls(of_attempt(Client, running), block)
        return cast("SyncQueuedTasks", running.twin)

    add_task = _twin_of_add(Client.add_task)
    flush = _twin_that_writes(Client.flush)
    get_task_by_id = _twin(Client.get_task_by_id)
    get_task_status = _twin(Client.get_task_status)
    get_pending_tasks_count = _twin(Client.get_pending_tasks_count)
    retry_task = _twin(Client.retry_task)
    cancel_task = _twin(Client.cancel_task)
    stop_task = _twin(Client.stop_task)
    list_tasks = _twin(Client.list_tasks)
    get_logs = _twin(Client.get_logs)

    def add_tasks(self, items: Iterable[TaskSpec]) -> list[SyncTaskRef]:
        """Add many tasks in one transaction, all or none; written when it returns. Raises what `add_task` does."""
        return self._refs(self._write(self._handle.add_tasks(items)))

    def schedule(
        self,
        func_or_path: Callable[..., object] | str,
        run_at: datetime | timedelta,
        *,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Task:
        """Add a task for later; written when it returns. See `QueuedTasks.schedule`."""
        return self._write(self._handle.schedule(func_or_path, run_at, args=args, kwargs=kwargs, **options))

    def chain(self, *specs: TaskSpec) -> list[SyncTaskRef]:
        """Add tasks that run one after the other; written soon, as by `add_task`. See `QueuedTasks.chain`."""
        return self._refs(self._handle.chain(*specs))

    def group(self, *specs: TaskSpec) -> list[SyncTaskRef]:
        """Add tasks that run side by side. See `QueuedTasks.group`."""
        return self._refs(self._handle.group(*specs))

    def chord(self, specs: Iterable[TaskSpec], callback: TaskSpec) -> list[SyncTaskRef]:
        """Add tasks that run side by side, and one that runs when all of them are done. See `QueuedTasks.chord`."""
        return self._refs(self._handle.chord(specs, callback))

    def watch(self, id: UUID | str) -> Iterator[TaskUpdate]:
        """Follow a task by its id: see `TaskRef.watch`. Raises TaskNotFound."""
        self._write_asked((id,))
        return self._each(self._handle.watch(id))

    def on(self, connection: object) -> SyncQueuedTasks:
        """The handle for tasks in a transaction of your own, over a connection or session that blocks.

        See `QueuedTasks.on`.
        """
        return SyncQueuedTasks(self._handle.on(connection), self._block)

    def _refs(self, refs: Iterable[TaskRef]) -> list[SyncTaskRef]:
        self._check_process()
        return [SyncTaskRef(ref.entry, self) for ref in refs]

    def _each(self, updates: AsyncIterator[TaskUpdate]) -> Iterator[TaskUpdate]:
        async def following() -> TaskUpdate | None:
            return await anext(updates, None)

        while (update := self._wait(following())) is not None:
            yield update

    def _write_asked(self, args: tuple[object, ...]) -> None:
        """Write what was added if it is that which is asked about: hooks of the user's have a say in it."""
        outbox = self._handle._outbox
        if args and any(entry.id in args or str(entry.id) in args for entry in outbox.entries):
            self._write(outbox.write())

    def _write(self, work: Coroutine[Any, Any, T]) -> T:
        self._check_process(work)
        refuse_on_loop(work.close)  # first: whoever has the turn may wait for this very loop
        with self._turn:
            return self._block(work, own_code=True)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        self._check_process(work)
        return self._block(work)

    def _check_process(self, work: Coroutine[Any, Any, object] | None = None) -> None:
        if os.getpid() != self._process:
            if work is not None:
                work.close()
            raise InvalidState(
                "This handle belongs to the process that this one was forked from: open QueuedTasks.sync() after the "
                "fork, in each process."
            )


class SyncTaskRef(Ref):
    """A task that was added. Its methods block; each of them writes the task first, and what was added before it."""

    __slots__ = ("_tasks",)

    def __init__(self, entry: Entry, tasks: SyncQueuedTasks) -> None:
        super().__init__(entry, tasks._handle.backend)
        self._tasks = tasks

    def get_task_id(self) -> UUID:
        """The id; the task is durable when this returns. Raises DatabaseUnavailable: see `TaskRef`."""
        if self._entry.created is None:
            self._tasks._write(self._entry.home.settle(self._entry))
        return self._entry.id

    def get_state(self) -> TaskState:
        """Where the task stands. Raises TaskNotFound once it was removed."""
        return self._ask(TaskRef.get_state)

    def cancel(self) -> bool:
        """Cancel the task; False when it had ended. A running one is told and ends soon after."""
        return self._ask(TaskRef.cancel)

    def stop(self) -> bool:
        """Interrupt the task until somebody retries it; False when it doesn't run."""
        return self._ask(TaskRef.stop)

    def watch(self) -> Iterator[TaskUpdate]:
        """What happens to the task, as it happens. See `TaskRef.watch`."""
        self._entry.expected = True
        self.get_task_id()
        return self._tasks._each(watch(self._backend, self._entry.id))

    def wait(self, timeout: float | timedelta | None = None) -> Json:
        """The result of the task, once it is done; `timeout` in seconds. Raises what `TaskRef.wait` does."""
        self._entry.expected = True
        return self._ask(lambda ref: ref.wait(timeout))

    def _ask(self, verb: Callable[[TaskRef], Coroutine[Any, Any, T]]) -> T:
        self.get_task_id()
        return self._tasks._wait(verb(TaskRef(self._entry, self._backend)))


@contextmanager
def connected(connection: AbstractAsyncContextManager[Client]) -> Iterator[SyncQueuedTasks]:
    """The twin of the handle that `connection` gives, which gets a thread of its own. See `QueuedTasks.sync`."""
    own = _OwnLoop()
    try:
        tasks = SyncQueuedTasks(own.block(connection.__aenter__()), own.block)
        try:
            yield tasks
        finally:
            tasks._wait(cast("Coroutine[Any, Any, object]", connection.__aexit__(None, None, None)))
    finally:
        own.close()


class _OwnLoop:
    """An event loop in a thread of its own, for threads that wait for what goes on there."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="queued-tasks", daemon=True)
        self._asking = Lock()  # held while something is given to the loop: after its end that would never be done
        self._closed = False
        self._thread.start()

    def block(self, work: Coroutine[Any, Any, T], *, own_code: bool = False) -> T:  # noqa: ARG002  # see Block
        refuse_on_loop(work.close)
        with self._asking:
            if self._closed:
                work.close()
                raise InvalidState(_CLOSED)
            asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        return result_of(asked)

    def close(self) -> None:
        """End the loop, when those who still wait have been told what became of it."""
        with self._asking:
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_forever()
        if left := asyncio.all_tasks(self._loop):
            self._loop.run_until_complete(asyncio.wait(left, timeout=_LAST_WORDS))
            for each in left:
                each.cancel()
            self._loop.run_until_complete(asyncio.wait(left, timeout=_LAST_WORDS))
