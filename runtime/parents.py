"""What the parents of the running task returned."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NoReturn, cast
from uuid import UUID

from .blocking import runs_loop
from .current import Running, get_running
from .errors import InvalidState, QueuedTasksError, TaskNotFound
from .task import Json, TaskState

if TYPE_CHECKING:
    from .backend import Backend


class ParentResults(list[Json]):
    """The results, in the order in which the parents were given; None for one that did not end done.

    A `def` task uses the list as it is, an `async def` task awaits it.
    """

    def __await__(self) -> Generator[Any, None, list[Json]]:
        yield from ()
        return list(self)


class _Unread(ParentResults):
    """Results that are too large to come with the task: there once they were awaited."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self._running = running

    def __await__(self) -> Generator[Any, None, list[Json]]:
        return _ask(self._running).__await__()

    def __iter__(self) -> NoReturn:
        raise _not_yet()

    def __len__(self) -> NoReturn:
        raise _not_yet()

    def __getitem__(self, index: object) -> NoReturn:
        raise _not_yet()

    def __eq__(self, other: object) -> NoReturn:
        raise _not_yet()


def get_parent_results() -> ParentResults:
    """What the parents of the running task returned, in the order in which they were given; None for one not done.

    In an `async def` task: `await get_parent_results()`. In a `def` task the call gives the list itself, and blocks
    while results are fetched that together are larger than 256 KiB.

    Raises:
        QueuedTasksError: there is no running task here.
        DatabaseUnavailable: large results could not be fetched.
    """
    running = get_running()
    if running is None:
        raise QueuedTasksError("get_parent_results() was called outside a running task: call it in a task's own code")
    shipped = running.attempt.parents
    if shipped is None:
        return ParentResults()
    if shipped != "[]":
        return ParentResults(json.loads(shipped))
    block = running.workplace.block
    if block is None or runs_loop():
        return _Unread(running)
    return ParentResults(block(_ask(running)))


async def _ask(running: Running) -> list[Json]:
    backend, id = cast("Backend", running.workplace.backend), UUID(bytes=running.attempt.id)
    task = await backend.get(id)
    return [await _result_of(backend, parent) for parent in (task.parents if task else ())]


async def _result_of(backend: Backend, id: UUID) -> Json:
    try:
        end = await backend.wait(id, None)  # it has ended, or this task would not run
    except TaskNotFound:
        return None
    return json.loads(end.result) if end.state is TaskState.DONE and end.result is not None else None


def _not_yet() -> InvalidState:
    return InvalidState("These results have to be fetched: write `await get_parent_results()`.")
