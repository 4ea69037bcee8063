"""Divide a long line of ids among tasks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, cast, overload

from .errors import InvalidTask
from .handles import QueuedTasks
from .refs import TaskRef
from .sync_client import SyncQueuedTasks, SyncTaskRef
from .task import TaskSpec


@overload
def enqueue_id_range_tasks(
    func: Callable[..., object],
    ids: Iterable[Any],
    *,
    chunk_size: int = 200,
    channel: str | None = None,
    priority: int | None = None,
    max_retries: int | None = None,
    auto_remove: bool = True,
    tasks: SyncQueuedTasks,
    **kwargs: object,
) -> list[SyncTaskRef]: ...


@overload
def enqueue_id_range_tasks(
    func: Callable[..., object],
    ids: Iterable[Any],
    *,
    chunk_size: int = 200,
    channel: str | None = None,
    priority: int | None = None,
    max_retries: int | None = None,
    auto_remove: bool = True,
    tasks: QueuedTasks | None = None,
    **kwargs: object,
) -> Coroutine[Any, Any, list[TaskRef]]: ...


def enqueue_id_range_tasks(
    func: Callable[..., object],
    ids: Iterable[Any],
    *,
    chunk_size: int = 200,
    channel: str | None = None,
    priority: int | None = None,
    max_retries: int | None = None,
    auto_remove: bool = True,
    tasks: QueuedTasks | SyncQueuedTasks | None = None,
    **kwargs: object,
) -> Coroutine[Any, Any, list[TaskRef]] | list[SyncTaskRef]:
    """Add a task for each `chunk_size` of the ascending `ids`: it calls `func(min_id=…, max_id=…, **kwargs)`.

    Both ends are among the ids of the chunk. All tasks are written, or none, when the call returns: it is awaited, but
    with a SyncQueuedTasks, or in a `def` task, it blocks. Without `tasks` it is for code inside a task, and an attempt
    that is repeated adds the same tasks, not more.

    Raises:
        InvalidTask: `chunk_size` is less than 1, the ids don't ascend, `func` can't be called like this.
        InvalidState: there is no running task here, and no `tasks`.
    """
    if not isinstance(chunk_size, int) or chunk_size < 1:
        raise InvalidTask(f"chunk_size is {chunk_size!r:.60}: give a whole number from 1")
    given = {"channel": channel, "priority": priority, "max_retries": max_retries, "auto_remove": auto_remove}
    options = {name: value for name, value in given.items() if value is not None}
    specs = [
        TaskSpec(func, (), {"min_id": low, "max_id": high, **kwargs}, **options)
        for low, high in _ranges(ids, chunk_size)
    ]
    handle: object = QueuedTasks.current() if tasks is None else tasks
    if isinstance(handle, SyncQueuedTasks):
        return handle.add_tasks(specs)
    return cast("QueuedTasks", handle).add_tasks(specs)


def _ranges(ids: Iterable[Any], size: int) -> Iterator[tuple[Any, Any]]:
    """The first and the last of each `size` ids."""
    if isinstance(ids, range) and ids.step > 0:
        for start in range(0, len(ids), size):
            chunk: Sequence[Any] = ids[start : start + size]
            yield chunk[0], chunk[-1]
        return
    rest, before = iter(ids), None
    while chunk := list(islice(rest, size)):
        for one, next in pairwise(chunk if before is None else [before, *chunk]):
            if not one < next:
                raise InvalidTask(f"the ids must ascend, and {next!r:.60} came after {one!r:.60}: sort them, once each")
        yield chunk[0], chunk[-1]
        before = chunk[-1]
