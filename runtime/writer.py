"""The one writer of a process and its event loop: what comes while a write is under way goes into the next one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from uuid import UUID

from loguru import logger

from .announce import Announcer
from .draft import OpenDraft
from .errors import DatabaseUnavailable, InvalidState, QueuedTasksError
from .store.link import Locked
from .store.tasks import TaskStore
from .task import NewTask
from .writing import without_own

_MOST = 2_000  # tasks of several callers in one statement; what one caller wants written together is never divided
_parents = attrgetter("parents")
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds between two tries while the database is away
_CLOSED = (
    "The handle was closed before these tasks were known to be written: let what adds tasks end before you leave it."
)


class _Group:
    """What one caller wants written together."""

    __slots__ = ("alone", "answer", "repeat", "tasks", "tried")

    def __init__(self, tasks: Sequence[NewTask], repeat: bool) -> None:
        self.tasks = tasks
        self.repeat = repeat
        self.alone = False
        self.tried = False
        self.answer: asyncio.Future[dict[UUID, UUID]] = asyncio.get_running_loop().create_future()


class GroupWriter:
    """Merges concurrent writes into one statement each. No timer: a lone write goes out at once.

    A statement that a lost connection broke is repeated until it is carried out or nobody waits for it any more; one
    that the database refuses, or that waits for a lock too long, is divided, so that nobody but its owner is concerned.
    `announcer` is told after the commit what was added.
    """

    def __init__(self, store: TaskStore, announcer: Announcer | None) -> None:
        self._store = store
        self._announcer = announcer
        self._waiting: list[_Group] = []
        self._taken: list[_Group] = []  # of those, and not all answered yet
        self._flying: list[_Group] = []  # of these, in the statement that runs
        self._running: asyncio.Task[None] | None = None
        self._calling = False  # it waits for PostgreSQL
        self._abandoned = False  # and was cancelled because nobody waits for that
        self._away_since: float | None = None
        self._draft: OpenDraft | None = None
        self._closed = False

    def draft(self, patience: float) -> OpenDraft | None:
        """See `Writer.draft`. None while anybody else writes: PostgreSQL has work, and nobody gets ahead of him."""
        busy = self._running is not None and not self._running.done()
        if busy or self._closed or (self._draft is not None and not self._draft.is_over):
            return None
        self._draft = OpenDraft(self._store, patience, self._was_added)
        return self._draft

    async def write(self, tasks: Sequence[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:
        """See `Writer.write`. Goes on while the database is away: bound it by cancelling it."""
        if self._closed:
            raise InvalidState(_CLOSED)
        group = _Group(tasks, repeat)
        self._waiting.append(group)
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run())
        try:
            return await group.answer
        finally:
            group.answer.cancel()
            self._give_up()

    async def close(self) -> None:
        """Give up what is not written yet; who waits for it is told so."""
        self._closed = True
        if self._draft is not None:
            self._draft.drop()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        for group in (*self._taken, *self._waiting):
            if not group.answer.done():
                group.answer.set_exception(InvalidState(_CLOSED))

    def _give_up(self) -> None:
        """Break a call that nobody waits for: its connection may hang, and it must not be carried out much later."""
        if self._calling and not self._abandoned and all(group.answer.done() for group in self._flying):
            assert self._running is not None
            self._abandoned = self._running.cancel()

    async def _run(self) -> None:
        while taken := self._take():
            self._taken = taken
            await self._write(taken, repeat=any(group.repeat for group in taken))

    def _take(self) -> list[_Group]:
        count = size = 0
        for group in self._waiting:
            size += len(group.tasks)
            if count and (size > _MOST or group.alone or self._waiting[0].alone):
                break
            count += 1
        groups, self._waiting = self._waiting[:count], self._waiting[count:]
        return groups

    async def _write(self, groups: list[_Group], *, repeat: bool) -> None:
        pause = _SHORTEST_PAUSE
        while wanted := [group for group in groups if not group.answer.done()]:
            try:
                losers = await self._add(wanted, repeat=repeat)
            except Locked:
                self._put_off(wanted, repeat=repeat)
                return
            except DatabaseUnavailable as error:
                self._say_away(error)
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311  # spreads the clients
                pause = min(pause * 2, _LONGEST_PAUSE)
                _are_tried(wanted)
            except Exception as error:  # what the database says of a row that it doesn't take
                await self._refuse(wanted, error, repeat=repeat)
                return
            else:
                if losers is None:
                    _are_tried(wanted)
                else:
                    tried = losers and any(group.tried for group in wanted)
                    self._wrote(wanted, without_own(losers) if tried else losers)
            repeat = True

    async def _add(self, groups: list[_Group], *, repeat: bool) -> dict[UUID, UUID] | None:
        """Write the tasks of these groups; None when all of them were given up meanwhile."""
        tasks = [task for group in groups for task in group.tasks]
        self._flying = groups
        self._calling = True
        try:
            return await self._store.add(tasks, repeat=repeat)
        except asyncio.CancelledError:
            assert self._running is not None
            if self._abandoned:
                self._running.uncancel()
            if self._running.cancelling():
                raise
            return None
        finally:
            self._calling = self._abandoned = False

    def _put_off(self, groups: list[_Group], *, repeat: bool) -> None:
        """Try these again behind all others, each by itself: one of them waits for somebody else's transaction."""
        for group in groups:
            group.repeat = repeat
            group.alone = True
        self._waiting += groups

    async def _refuse(self, groups: list[_Group], error: Exception, *, repeat: bool) -> None:
        if len(groups) == 1 or isinstance(error, QueuedTasksError):
            for group in groups:
                if not group.answer.done():
                    group.answer.set_exception(error)
            return
        for group in groups:
            await self._write([group], repeat=repeat)

    def _wrote(self, groups: list[_Group], losers: dict[UUID, UUID]) -> None:
        if self._away_since is not None:
            away = time.monotonic() - self._away_since
            logger.info("PostgreSQL is back after {:.1f} s; the tasks that waited are written.", away)
            self._away_since = None
        for group in groups:
            if not group.answer.done():
                group.answer.set_result(losers)
        tasks = [task for group in groups for task in group.tasks]
        self._was_added([task for task in tasks if task.id not in losers] if losers else tasks)

    def _was_added(self, tasks: Sequence[NewTask]) -> None:
        if self._announcer is None:
            return
        now = datetime.now(UTC)
        if any(map(_parents, tasks)):
            here = {task.id for task in tasks}
            # what else has parents may run at once, when these have ended
            tasks = [task for task in tasks if here.isdisjoint(task.parents)]
        due = [task for task in tasks if task.run_at is None or task.run_at <= now]
        if tasks:
            self._announcer.lined(self._store.lanes.count(due), len(due) < len(tasks))

    def _say_away(self, error: DatabaseUnavailable) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.warning("Tasks wait to be written and are tried again. {}", error)


def _are_tried(groups: list[_Group]) -> None:
    """What is there from now on may be of these calls."""
    for group in groups:
        group.tried = True
