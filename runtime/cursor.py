"""Go through ids in a task so that a next attempt goes on behind the last one that was done."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from .blocking import refuse_on_loop, result_of
from .context import context_of
from .current import Running, get_running
from .errors import InvalidTask, QueuedTasksError

Id = TypeVar("Id", bound=int | str | UUID)


def iter_with_cursor(
    ids: Iterable[Id] | AsyncIterable[Id], *, key: str = "cursor", commit_every: int = 1
) -> CursorIteration[Id]:
    """Go through ascending `ids`: with `async for` in an `async def` task, with `for` in a `def` task.

    An id is done when the loop asks for the next one. Before it goes on past `commit_every` ids that were done, the
    last of them is durable in the task's context at `key`, and any later attempt begins behind it: after a kill at most
    `commit_every` ids are gone through again. Ids that were done before are skipped without a look at them where `ids`
    is a sequence, such as a range or a list.

    Raises:
        QueuedTasksError: there is no running task here.
        InvalidTask: `commit_every` is less than 1; the ids, while they are gone through, don't ascend.
        DatabaseUnavailable: from the loop, when the database has been away for too long to go on.
    """
    if not isinstance(commit_every, int) or commit_every < 1:
        raise InvalidTask(f"commit_every is {commit_every!r:.60}: give a whole number from 1")
    running = get_running()
    if running is None:
        raise QueuedTasksError("iter_with_cursor() was called outside a running task: call it in a task's own code")
    return CursorIteration(ids, running, key, commit_every)


class CursorIteration(Generic[Id]):
    """See `iter_with_cursor`."""

    def __init__(self, ids: Iterable[Id] | AsyncIterable[Id], running: Running, key: str, commit_every: int) -> None:
        self._ids = ids
        self._running = running
        self._key = key
        self._commit_every = commit_every
        self._context = context_of(running)
        self._last: int | str | None = self._context.get(key)
        self._previous: int | str | None = None
        self._open = 0  # ids that were done since the last commit

    async def __aiter__(self) -> AsyncIterator[Id]:
        if isinstance(self._ids, AsyncIterable):
            async for id in self._ids:
                if self._is_new(id):
                    yield id
                    if self._done(id):
                        await self._commit()
        else:
            for id in self._rest(self._ids):
                if self._is_new(id):
                    yield id
                    if self._done(id):
                        await self._commit()
        if self._open:
            await self._commit()

    def __iter__(self) -> Iterator[Id]:
        refuse_on_loop()
        if isinstance(self._ids, AsyncIterable):
            raise InvalidTask("these ids come asynchronously: go through them with `async for`, in an async def task")
        for id in self._rest(self._ids):
            if self._is_new(id):
                yield id
                if self._done(id):
                    self._commit_blocking()
        if self._open:
            self._commit_blocking()

    def _rest(self, ids: Iterable[Id]) -> Iterable[Id]:
        """The ids without those at the start that were done, where they can be told without going through them."""
        if self._last is None or not isinstance(ids, Sequence) or (isinstance(ids, range) and ids.step < 0):
            return ids
        done: Any = self._last
        return cast("Sequence[Id]", ids[bisect_right(ids, done, key=_plain) :])

    def _is_new(self, id: Id) -> bool:
        """Whether this id is to be done."""
        plain: Any = _plain(id)
        try:
            if self._previous is not None and plain < self._previous:
                raise InvalidTask(f"the ids must ascend, and {id!r:.60} came after {self._previous!r:.60}: sort them")
            done: bool = self._last is not None and plain <= self._last
        except TypeError:
            raise InvalidTask(
                f"the id {id!r:.60} can't be compared with the cursor {self._last!r:.60}: "
                "give ids of one kind, and another key for other ids"
            ) from None
        self._previous = plain
        return not done

    def _done(self, id: Id) -> bool:
        """Note that an id was done; whether it is time to commit."""
        self._last = _plain(id)
        self._context.set(self._key, self._last, commit=False)
        self._open += 1
        return self._open >= self._commit_every

    async def _commit(self) -> None:
        self._open = 0
        commit = self._running.workplace.commit_context
        if commit is not None:
            await asyncio.wrap_future(commit(self._running))

    def _commit_blocking(self) -> None:
        self._open = 0
        commit = self._running.workplace.commit_context
        if commit is not None:
            result_of(commit(self._running))


def _plain(id: object) -> int | str:
    """The id as JSON keeps it; UUIDs are in the same order as their texts."""
    if isinstance(id, UUID):
        return str(id)
    return cast("int | str", id)
