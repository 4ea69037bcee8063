"""Wait for the ends of tasks: one listening connection and one query for all who wait in this process.

Subscribe, commit, then look: an end that came before the subscription is seen by the look, one after it is notified.
One whose transaction had looked for subscriptions before, and commits after the look, is seen when one looks again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from uuid import UUID

from .backend import End, not_found
from .bound import Bound
from .ear import Ear
from .errors import DatabaseUnavailable, InvalidState, QueuedTasksError
from .following import STAY, Followers
from .settings import Settings
from .store.link import Link, Row
from .store.own_link import CLOSED
from .store.reads import Reads
from .task import TaskState

_PATIENCE = 20.0  # seconds without the database after which waiting is given up
_IDLE = 30.0  # seconds without anybody waiting after which the listening connection is closed
_PAUSE = 0.02  # seconds between two looks at first, where there are no notifications
_LOOK_AGAIN = (0.025, 0.25)  # seconds after the first look; it takes a few milliseconds to record an end
_REOPEN = 5.0  # seconds between two tries to listen
_CHUNK = 1_000  # ids a query
PROGRESS = "+"  # before the id of a task that has not ended, but gone on


class Waiters:
    """All who wait for tasks in this process. A notification holds the ids of tasks that ended, or went on: `+id`."""

    def __init__(self, link: Link, ear: Ear, settings: Settings) -> None:
        self._link = link
        self._reads = Reads(link)
        self._slow = settings.polling_interval.total_seconds()
        self._ear = ear
        ear.on_told, ear.on_lost = self._notified, self._listening_lost
        self._notifications = settings.use_postgresql_notify
        self._listening = False
        self._reopen_at = 0.0
        self._waiting: dict[UUID, set[asyncio.Future[End]]] = {}
        self._followers = Followers()
        self._fresh: set[UUID] = set()
        self._unsure: list[tuple[float, set[UUID]]] = []  # when to look at them again
        self._told: set[UUID] = set()
        self._left: set[UUID] = set()
        self._subscribed: set[UUID] = set()
        self._wake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        self._bound = Bound()

    async def end_of(self, id: UUID, timeout: float | None) -> End:
        """Return once the task has ended.

        Raises:
            TimeoutError: not within `timeout` seconds.
            TaskNotFound: there is no such task, or no more.
            DatabaseUnavailable: the database has been away for too long to go on waiting.
            InvalidState: these are closed, or have been meanwhile; or they belong to another event loop.
        """
        self._check_usable()
        answer: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(id, set())
        if not waiting:
            self._fresh.add(id)
            self._start()
        waiting.add(answer)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        finally:
            waiting.discard(answer)
            if not waiting and self._waiting.get(id) is waiting:
                del self._waiting[id]
                self._leave(id)

    async def expect(self, ids: Sequence[UUID]) -> None:
        """Somebody will wait for these tasks as soon as they are written."""
        await self._link.fetch("subscribe", list(ids), self._ear.topic)
        self._subscribed.update(ids)

    async def progress_of(self, id: UUID, seen: str) -> str:
        """Return how far a task has come once that is not `seen` any more; raises what `end_of` does."""
        self._check_usable()
        answer = self._followers.add(id, seen)
        self._start()
        try:
            return await answer
        finally:
            self._followers.leave(id, answer)

    async def close(self) -> None:
        """Stop listening. Whoever still waits is told so, and whoever comes later."""
        self._closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        self._fail_all(InvalidState(CLOSED))
        self._ear.close()
        if self._subscribed:
            with suppress(QueuedTasksError):
                await self._link.fetch("unsubscribe", list(self._subscribed), self._ear.topic, timeout=1)

    def _check_usable(self) -> None:
        self._bound.check()
        if self._closed:
            raise InvalidState(CLOSED)

    def _start(self) -> None:
        self._wake.set()
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        pause, away_since, everybody, idle = _PAUSE, None, False, False
        everybody_at = time.monotonic() + self._slow
        while self._waiting or self._followers or self._left or not idle:
            self._wake.clear()
            try:
                pause = _PAUSE if self._fresh or self._followers.fresh else min(pause * 2, self._slow)
                await self._look(everybody)
                away_since = None
            except DatabaseUnavailable as error:
                self._fresh.update(self._waiting)
                self._followers.look_again()
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > _PATIENCE:
                    self._fail_all(error)
            except QueuedTasksError as error:  # it will not get better by itself
                self._fail_all(error)
            idle = not await self._woken(pause)
            # by the clock, too: where somebody is woken all the time, others may have been missed
            everybody = idle or time.monotonic() >= everybody_at
            if everybody:
                everybody_at = time.monotonic() + self._slow
        self._ear.close()
        self._listening = False

    async def _woken(self, pause: float) -> bool:
        """Sleep until somebody comes or is told, False when it was only time to look."""
        if not self._waiting and not self._followers:
            limit = _IDLE
        elif self._listening:
            limit = min(self._slow, STAY) if self._followers else self._slow
        else:
            limit = pause
        again = min((at for at, _ in self._unsure), default=math.inf) - time.monotonic()
        try:
            async with asyncio.timeout(min(limit, again)):
                await self._wake.wait()
        except TimeoutError:
            return again < limit
        return True

    async def _look(self, everybody: bool) -> None:
        if self._notifications:
            await self._keep_listening(everybody)
        idle = self._followers.take_idle() - self._waiting.keys()
        left = (self._left | idle) - self._waiting.keys() - {*self._followers}
        fresh, told = self._fresh, self._told
        self._fresh, self._told, self._left = set(), set(), set()
        self._subscribed -= told
        if gone := left & self._subscribed:
            await self._link.fetch("unsubscribe", list(gone), self._ear.topic)
            self._subscribed -= gone
        if fresh:  # whether one listens or not: this is also what keeps the result of a task that is to be removed
            self._subscribed |= fresh
            await self._link.fetch("subscribe", list(fresh), self._ear.topic)
        unsure = self._take_unsure(fresh)
        await self._have_read(idle)
        await self._look_after_followers(everybody or not self._listening)
        ids = fresh | told | unsure if self._listening and not everybody else {*self._waiting}
        for chunk in _chunks(ids & self._waiting.keys()):
            rows = await self._reads.ends(chunk)
            await self._have_read({id for id, row in rows.items() if row["lingers"]} - {*self._followers})
            for id, row in rows.items():
                if self._resolve(id, row) and id not in told:
                    self._leave(id)

    def _take_unsure(self, fresh: set[UUID]) -> set[UUID]:
        """Those that it is time to look at again; the `fresh` ones are to be, in a moment."""
        now = time.monotonic()
        due = {id for at, ids in self._unsure if at <= now for id in ids}
        self._unsure = [(at, ids) for at, ids in self._unsure if at > now]
        if fresh:
            self._unsure += [(now + later, fresh) for later in _LOOK_AGAIN]
        return due

    async def _look_after_followers(self, everybody: bool) -> None:
        followers = self._followers
        fresh, followers.fresh = followers.fresh, set()
        if fresh:
            self._subscribed |= fresh
            await self._link.fetch("follow", list(fresh), self._ear.topic)
        for chunk in _chunks(followers.take_stirred(everybody)):
            followers.resolve(await self._reads.progress(chunk))

    async def _have_read(self, ids: Collection[UUID]) -> None:
        """Let tasks be removed that stay for their results' sake alone, before these are passed on. The servers do it
        later where this fails."""
        if ids:
            with suppress(QueuedTasksError):
                await self._link.fetch("have_read", list(ids), self._ear.topic)

    async def _keep_listening(self, everybody: bool) -> None:
        if self._listening and everybody:
            try:
                await self._ear.probe()
            except QueuedTasksError:
                self._listening = False
        if not self._listening and time.monotonic() >= self._reopen_at:
            self._reopen_at = time.monotonic() + _REOPEN
            try:
                await self._ear.open()
            except QueuedTasksError:
                return
            self._listening = True
            self._reopen_at = 0.0
            # who waits is kept in an unlogged table, which a crash of PostgreSQL empties
            self._fresh.update(self._waiting)
            self._followers.look_again()

    def _leave(self, id: UUID) -> None:
        self._left.add(id)
        self._wake.set()

    def _resolve(self, id: UUID, row: Row) -> bool:
        if row["state"]:
            self._answer(
                id,
                End(
                    state=TaskState(row["state"]),
                    result=row["result"],
                    exception_name=row["exception_name"],
                    exception_message=row["exception_message"],
                    exception_traceback=row["exception_traceback"],
                ),
            )
        elif row["stopped"]:
            self._answer(id, End(state=TaskState.STOPPED))
        elif not row["known"]:
            self._answer(id, not_found(id))
        else:
            return False
        return True

    def _answer(self, id: UUID, end: End | QueuedTasksError) -> None:
        for answer in self._waiting.pop(id, ()):
            if answer.done():
                continue
            if isinstance(end, End):
                answer.set_result(end)
            else:
                answer.set_exception(end)

    def _fail_all(self, error: QueuedTasksError) -> None:
        for id in [*self._waiting]:
            self._answer(id, error)
        self._followers.fail(error)

    def _notified(self, payload: str) -> None:
        for word in payload.split():
            id = UUID(word.removeprefix(PROGRESS))
            self._followers.stir([id])
            if not word.startswith(PROGRESS):
                self._told.add(id)
        self._wake.set()

    def _listening_lost(self) -> None:
        self._listening = False
        self._wake.set()


def _chunks(ids: Iterable[UUID]) -> Iterable[list[UUID]]:
    rest = iter(ids)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
