"""What a handle does: it adds tasks, asks about them, or ends them, by id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial, wraps
from inspect import isfunction
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, Concatenate, ParamSpec, Self, TypeAlias
from uuid import UUID

from msgspec.structs import replace

from .asked import id_of, rows_of, status_of
from .backend import Backend, not_found
from .blocking import runs_loop
from .bound import Bound
from .current import Block
from .enqueue import Form, arguments_of, as_added, family_of, form_of, resolved
from .entry import Entry
from .errors import InvalidTask
from .graphs import TaskRefs, chain, checked, chord, group
from .hooks import on_pre_create
from .ids import new_id, new_ids
from .options import as_text
from .outbox import Outbox
from .refs import Ref, TaskRef
from .settings import Settings
from .task import OnParentFailure, Task, TaskLog, TaskSpec, TaskState
from .uncollected import uncollected
from .watch import TaskUpdate, watch

P = ParamSpec("P")
Function: TypeAlias = Callable[..., object]
Parent: TypeAlias = Ref | Task | UUID

_func = attrgetter("func")
_LONGEST_NAME = 1_000  # characters; what a retry or a function is called may have more than a name that is given
_PART = 1_000  # tasks of a larger batch that go out together, while the next are made


def _written(
    add: Callable[Concatenate[Client, P], TaskRef],
) -> Callable[Concatenate[Client, P], Coroutine[Any, Any, Task]]:
    """The twin of add_task, with its signature."""

    @wraps(add)
    async def add_written(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Task:
        self._check_loop()
        return await self._task_of(add(self, *args, **kwargs))

    add_written.__name__ = "add_task_async"
    add_written.__doc__ = "As `add_task`, but written when it returns: the task as it stands then."
    return add_written


class Client:
    """What a handle does, wherever it comes from and whatever its outbox waits for. See `QueuedTasks`."""

    def __init__(self, backend: Backend, outbox: Outbox, settings: Settings) -> None:
        self.backend = backend
        self.settings = settings
        self._outbox = outbox
        self.bound: Bound | None = None  # to the event loop that it was opened on
        self.block: Block | None = None  # how threads without an event loop wait, where this handle has a blocking twin

    def add_task(
        self,
        func: Function,
        /,
        *args: object,
        parent: Parent | Sequence[Parent] | None = None,
        name: str | None = None,
        channel: str | None = None,
        key: str | None = None,
        priority: int | None = None,
        max_retries: int | None = None,
        timeout: float | timedelta | None = None,
        run_at: datetime | timedelta | None = None,
        expires_at: datetime | timedelta | None = None,
        unique: bool | str | None = None,
        auto_remove: bool | None = None,
        on_parent_failure: OnParentFailure = "cascade",
        context: Mapping[str, object] | None = None,
        connection: object | None = None,
        task_kwargs: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> TaskRef:
        """Add a task; it is written soon (in a route: before the response), and at once by `await` of what returns.

        `priority`: higher first. `timeout` in seconds. `run_at`, `expires_at`: an aware datetime, or a timedelta from
        now. `unique`: a key, or True for one unfinished task per name and arguments. What isn't given is up to @task,
        then to the settings. A parameter of the function that is called like an option goes into `task_kwargs`.
        `connection`: in a transaction of yours, see `on`.

        Raises:
            InvalidTask: the function can't be a task or be called like this, or an option is wrong.
            SerializationError: an argument can't be kept; the text names it.
            DatabaseUnavailable: too many tasks wait to be written.
            Exception: what a sync pre-create hook raises to refuse the task.
        """
        self._outbox.check_room()
        options = _given(
            parent=parent,
            name=name,
            channel=channel,
            key=key,
            priority=priority,
            max_retries=max_retries,
            timeout=timeout,
            run_at=run_at,
            expires_at=expires_at,
            unique=unique,
            auto_remove=auto_remove,
            on_parent_failure=None if on_parent_failure == "cascade" else on_parent_failure,
            context=context,
            connection=connection,
        )
        named = arguments_of(func, kwargs, task_kwargs, options) if options or task_kwargs else kwargs
        handle = self if connection is None else self.on(options.pop("connection"))
        return handle._add(func, args, named, options)

    add_task_async = _written(add_task)

    async def add_tasks(self, items: Iterable[TaskSpec]) -> list[TaskRef]:
        """Add many tasks in one transaction, all or none; written when it returns. Of a large batch the first tasks are
        on their way while the others are encoded, so change no argument before.

        Raises what `add_task` does, for the first of them that is wrong.
        """
        self._outbox.check_open()
        batch = self._outbox.batch()
        specs = [checked("add_tasks", item) for item in items]
        refs: list[TaskRef] = []
        try:
            for low in range(0, len(specs), _PART):
                part = specs[low : low + _PART]
                with uncollected():
                    entries = self._entries(batch, part)
                    refs += [TaskRef(entry, self.backend) for entry in entries]
                batch.add(*entries)
                if len(specs) > _PART:
                    await batch.send(entries)
            await batch.flush()
        finally:
            batch.drop()
        return refs

    def chain(self, *specs: TaskSpec) -> TaskRefs:
        """Add tasks that run one after the other; each may read the result of the one before, `get_parent_results()`.

        Like all graphs they are written together, in one round trip: soon, as by `add_task`, or at once by `await` of
        what returns. When one of them fails, those behind it do not run. `parent` of a spec comes on top.
        """
        return chain(self._add, specs)

    def group(self, *specs: TaskSpec) -> TaskRefs:
        """Add tasks that run side by side. See `chain`."""
        return group(self._add, specs)

    def chord(self, specs: Iterable[TaskSpec], callback: TaskSpec) -> TaskRefs:
        """Add tasks that run side by side, and one that runs when all of them are done: the last of what returns.

        It reads their results, in their order, with `get_parent_results()`. See `chain`.
        """
        return chord(self._add, specs, callback)

    def on(self, connection: object) -> Self:
        """The handle for tasks in a transaction of your own: they commit, or roll back, with what else you do in it.

        `connection`: a Connection of asyncpg, a Connection or AsyncConnection of psycopg, or a session or connection,
        async or not, of SQLAlchemy. Await what you add; with a session the commit writes it otherwise, and where the
        connection blocks it is written at the call. The rest of the handle sees what is committed. A unique key that
        somebody else takes before your commit leaves your task cancelled; nobody waits for your transaction.

        Raises:
            InvalidTask: it is nothing of these.
        """
        from .connections import post_over  # only now: a worker that never needs it is smaller

        self._outbox.check_open()
        wait = None if self.block is None or runs_loop() else partial(self.block, own_code=True)
        box = post_over(connection, self.settings.schema, self._outbox, self.backend, wait)
        self._outbox.attach(box)
        return type(self)(self.backend, box, self.settings)

    async def flush(self) -> None:
        """Write what was added; raises what kept tasks from being written since the last await."""
        self._outbox.check_open()
        await self._outbox.flush()

    async def schedule(
        self,
        func_or_path: Function | str,
        run_at: datetime | timedelta,
        *,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Task:
        """Add a task for later, of a function or its path (`app.tasks:send`); written when it returns.

        `options` and what is raised: see `add_task`.
        """
        self._outbox.check_room()
        self._check_loop()
        func = resolved(func_or_path)
        return await self._task_of(self._add(func, args, kwargs or {}, {**options, "run_at": run_at}))

    async def get_task_by_id(self, id: UUID | str) -> Task | None:
        """The task as it stands; None when there is none with this id."""
        return await self.backend.get(await self._asked(id))

    async def get_task_status(self, id: UUID | str) -> dict[str, Any] | None:
        """Where a task stands and what can be done with it, for a web page or an API; None without such a task."""
        return None if (task := await self.get_task_by_id(id)) is None else status_of(task)

    async def get_pending_tasks_count(self) -> int:
        """How many tasks are enqueued, those that are due later included; not those that wait for a parent."""
        self._outbox.check_open()
        return await self.backend.pending()

    async def retry_task(self, id: UUID | str, *, subtree: bool = False) -> Task:
        """Run a task again: a stopped one goes on, of one that has ended a clone runs, named `<name>_retry`.

        `subtree`: the descendants that ended because of it are cloned along, with the clones as their parents.

        Raises:
            TaskNotFound: there is no such task.
            InvalidState: it is under way.
        """
        retried = await self.backend.retry(await self._asked(id), subtree=subtree)
        task = await self.backend.get(retried)
        if task is None:
            raise not_found(retried)
        return task

    async def cancel_task(self, id: UUID | str) -> bool:
        """End a task for good; False when it had ended. A running one is told and ends soon after.

        Raises TaskNotFound.
        """
        return await self.backend.cancel(await self._asked(id))

    async def stop_task(self, id: UUID | str) -> bool:
        """Interrupt a running task until somebody retries it; False when it doesn't run. Raises TaskNotFound."""
        return await self.backend.stop(await self._asked(id))

    async def list_tasks(
        self,
        *,
        state: TaskState | str | None = None,
        name: str | None = None,
        channel: str | None = None,
        before: UUID | str | None = None,
        limit: int = 50,
    ) -> list[Task]:
        """A page of tasks, newest first; `before` is the id of the last task of the page before. At most 1,000."""
        self._outbox.check_open()
        if state is not None and state not in [*TaskState]:
            raise InvalidTask(f"state is {state!r}: give one of {', '.join(TaskState)}")
        return await self.backend.page(
            state=None if state is None else TaskState(state),
            name=as_text("name", name, _LONGEST_NAME),
            channel=as_text("channel", channel, 100),
            before=None if before is None else id_of(before),
            limit=rows_of(limit),
        )

    async def watch(self, id: UUID | str) -> AsyncIterator[TaskUpdate]:
        """Follow a task by its id: see `TaskRef.watch`. Raises TaskNotFound."""
        async for update in watch(self.backend, await self._asked(id)):
            yield update

    async def get_logs(self, id: UUID | str, *, after: int | None = None, limit: int = 1000) -> list[TaskLog]:
        """What a task logged, oldest first, beginning behind the line `after`. Raises TaskNotFound."""
        return await self.backend.logs(await self._asked(id), after=after, limit=rows_of(limit))

    def _add(
        self, func: Function, args: Sequence[object], kwargs: Mapping[str, object], options: Mapping[str, object]
    ) -> TaskRef:
        form = form_of(func, settings=self.settings, signs=self.backend.signs)
        entry = _entry(self._outbox, form, new_id(), args, kwargs, options)
        self._outbox.add(entry)
        return TaskRef(entry, self.backend)

    def _entries(self, outbox: Outbox, specs: Sequence[TaskSpec]) -> list[Entry]:
        """What `_entry` makes of each; a run of tasks of one function at once, where only their arguments differ."""
        ids = iter(new_ids(len(specs)))
        entries: list[Entry] = []
        for func, specs_of_it in groupby(specs, _func):
            form = form_of(func, settings=self.settings, signs=self.backend.signs)
            run = [*specs_of_it]
            if on_pre_create.used or any(spec.kwargs or spec.options for spec in run):
                entries += [_entry(outbox, form, next(ids), spec.args, spec.kwargs, spec.options) for spec in run]
            else:
                tasks = form.tasks(islice(ids, len(run)), [spec.args for spec in run])
                if outbox.derive is not None:
                    tasks = [replace(task, id=outbox.derive(task)) for task in tasks]
                entries += [Entry(task, outbox) for task in tasks]
        return entries

    def _check_loop(self) -> None:
        """Before a task is added that is awaited at once: on another event loop nothing is to be added, either."""
        if self.bound is not None:
            self.bound.check()

    async def _asked(self, id: UUID | str) -> UUID:
        """The id of a task that the database knows, unless nobody does."""
        self._outbox.check_open()
        asked = id_of(id)
        if self._outbox.holds(asked):
            await self._outbox.write()
        return asked

    async def _task_of(self, ref: TaskRef) -> Task:
        task = await self.backend.get(await ref)
        if task is None and ref.entry.winner is not None and ref.entry.home.connection is None:
            raise not_found(ref.id)
        return task or as_added(ref.entry.task, ref.id)


def _entry(
    outbox: Outbox,
    form: Form,
    id: UUID,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    options: Mapping[str, object],
) -> Entry:
    task = form.task(id, args, kwargs, options)
    if outbox.derive is not None:
        task = replace(task, id=outbox.derive(task))
    entry = Entry(task, outbox, family_of(options.get("parent")) if options else ())
    if on_pre_create.used:  # an attribute, as it is asked for each task
        entry.ask_hooks()
    return entry


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


for _name, _method in vars(Client).items():
    if isfunction(_method):  # an error of Python's names the method like this, and users know no Client
        _method.__qualname__ = f"QueuedTasks.{_name}"
