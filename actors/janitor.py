"""Upkeep that any server may do: posted tasks, delayed ones that are due, what was left behind, retention."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias, assert_never

from loguru import logger

from ..runtime.actor import Actor
from ..runtime.errors import DatabaseUnavailable
from ..runtime.store.servers import ServerStore
from ..runtime.store.upkeep import Upkeep
from .announcements import Announcements
from .messages import DueIn, Go, JanitorMessage, Tick, Wake

APART = 0.01  # seconds between two looks that others ask for, and at least
REST = 2.0  # times as long as the last look took: row versions that no vacuum may remove make each look dearer
LATENESS = 0.002  # seconds; what is due by the clock of the database must be so by then
SWEEP_EVERY = 30.0  # seconds between two times that a server asks whether it is due; one does it for all
PRUNE_EVERY = 60.0  # seconds
BATCH = 1_000  # tasks

Chore: TypeAlias = Callable[[], Awaitable[bool]]  # does a batch of something; whether there may be more of it


class Janitor(Actor[JanitorMessage]):
    """`look_every`: seconds between two looks at the tasks for later, unless one is known to be due sooner.

    On each tick does what is due. What can't be done while PostgreSQL is away is done on a later tick."""

    def __init__(
        self,
        servers: ServerStore,
        upkeep: Upkeep,
        announcements: Announcements,
        *,
        retention: float,
        look_every: float,
    ) -> None:
        self._servers = servers
        self._upkeep = upkeep
        self._announcements = announcements
        self._retention = retention
        self._look_every = look_every
        self._alarm: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._rest_until = 0.0
        self._sweep_at = 0.0
        self._sweep_age = 0.0  # who joins sweeps in any case: what its former self held may have lost its heartbeat
        self._prune_at = time.monotonic() + PRUNE_EVERY
        self._chores: deque[Chore] = deque()

    async def receive(self, message: JanitorMessage) -> None:
        match message:
            case DueIn(seconds):
                self._set_alarm(seconds)
            case Wake():
                await self._hurry(time.monotonic())
            case Tick():
                await self._do_what_is_due()
            case Go():
                await self._go_on()
            case _:
                assert_never(message)

    async def stopped(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    async def _hurry(self, now: float) -> None:
        if now < self._rest_until:
            self._set_alarm(self._rest_until - now)  # each transaction that adds tasks says so: one look finds all
            return
        self._due_at = 0.0
        await self._do_what_is_due()

    async def _do_what_is_due(self) -> None:
        now = time.monotonic()
        try:
            if now >= self._due_at:
                await self._promote(now)
            if now >= self._sweep_at:
                self._sweep_at = now + SWEEP_EVERY
                if await self._upkeep.take("sweep", self._sweep_age):
                    self._begin(
                        self._rescue, self._let_children_go, self._add_keys, self._sweep_tokens, self._end_refused
                    )
                self._sweep_age = SWEEP_EVERY / 2
            if now >= self._prune_at:
                self._prune_at = now + PRUNE_EVERY
                if await self._upkeep.take("prune", PRUNE_EVERY / 2):
                    self._begin(self._prune, self._remove_lingering, self._prune_traces)
        except DatabaseUnavailable:
            return

    def _begin(self, *chores: Chore) -> None:
        if not self._chores:
            self._go_on_later()
        self._chores.extend(chore for chore in chores if chore not in self._chores)

    async def _go_on(self) -> None:
        """Do one batch: what is due meanwhile comes before the next, and so do the other chores."""
        if not self._chores:
            return  # they were those of an instance that failed
        chore = self._chores.popleft()
        try:
            if await chore():
                self._chores.append(chore)
        except DatabaseUnavailable:
            self._chores.clear()
        if self._chores:
            self._go_on_later()

    def _go_on_later(self) -> None:
        # Not told at once: an actor that is to stop receives what is in its mailbox until that is empty.
        asyncio.get_running_loop().call_soon(self.ref.tell, Go())

    async def _promote(self, now: float) -> None:
        posted, free = await self._upkeep.promote_inbox(BATCH)
        lined, next_in = await self._upkeep.promote(BATCH)
        self._due_at = now + self._look_every
        if next_in is not None:
            self._set_alarm(next_in)
        self._announcements.lined(free + lined)
        if BATCH in (posted, lined):
            self.ref.tell(Wake())
            return
        looked = time.monotonic()
        self._rest_until = looked + max(APART, REST * (looked - now))

    def _set_alarm(self, seconds: float) -> None:
        """Look at the delayed tasks then, unless that is to happen sooner."""
        if seconds >= self._look_every:
            return
        now = asyncio.get_running_loop().time()
        if self._alarm is not None:
            if now < self._alarm.when() <= now + seconds:
                return
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(max(seconds, 0.0) + LATENESS, self.ref.tell, Wake())

    async def _rescue(self) -> bool:
        for peer in await self._servers.orphaned():
            if lined := await self._servers.rescue(peer):
                logger.warning("server {} ({}) left {} tasks behind: they run again", peer.name, peer.id, lined)
                self._announcements.lined(lined)
        return False

    async def _let_children_go(self) -> bool:
        found = await self._upkeep.sweep_children(BATCH)
        if found:
            logger.warning("{} waiting tasks had no open parent left and were let go", found)
            self._announcements.lined(found)
        return found == BATCH

    async def _add_keys(self) -> bool:
        return await self._upkeep.add_keys(BATCH) >= BATCH

    async def _sweep_tokens(self) -> bool:
        if found := await self._upkeep.sweep_tokens():
            logger.warning("{} tasks that run no more were still counted in their channels", found)
            self._announcements.lined(found)
        return False

    async def _end_refused(self) -> bool:
        ended, lined = await self._upkeep.end_refused(BATCH)
        self._announcements.lined(lined)
        return ended == BATCH

    async def _prune(self) -> bool:
        return await self._upkeep.prune(self._retention, BATCH) == BATCH

    async def _remove_lingering(self) -> bool:
        return await self._upkeep.remove_lingering(BATCH) == BATCH

    async def _prune_traces(self) -> bool:
        await self._upkeep.prune_traces(self._retention)
        return False
