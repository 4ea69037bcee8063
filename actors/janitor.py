"""Upkeep that any server may do: rescue of lost servers, delayed tasks that are due, retention."""

from __future__ import annotations

import time
from typing import assert_never

from loguru import logger

from ..runtime.actor import Actor
from ..runtime.errors import DatabaseUnavailable
from ..runtime.store.servers import ServerStore
from ..runtime.store.upkeep import Upkeep
from ..runtime.task import ServerId
from .announcements import Announcements
from .messages import JanitorMessage, PeersChanged, Tick, Wake
from .watch import Watch

LOOK_FOR_DUE = 2.0  # seconds between two looks at the delayed tasks, unless one is known to be due sooner
SWEEP_EVERY = 30.0  # seconds
PRUNE_EVERY = 60.0  # seconds
BATCH = 1_000  # tasks


class Janitor(Actor[JanitorMessage]):
    """On each tick does what is due. What can't be done while PostgreSQL is away is done on a later tick."""

    def __init__(
        self,
        server: ServerId,
        servers: ServerStore,
        upkeep: Upkeep,
        announcements: Announcements,
        *,
        lease_ttl: float,
        retention: float,
    ) -> None:
        self._servers = servers
        self._upkeep = upkeep
        self._announcements = announcements
        self._retention = retention
        self._watch = Watch(server, lease_ttl)
        self._due_at = 0.0
        self._sweep_at = time.monotonic() + SWEEP_EVERY
        self._prune_at = time.monotonic() + PRUNE_EVERY

    async def receive(self, message: JanitorMessage) -> None:
        match message:
            case PeersChanged(peers):
                self._watch.hear(peers, time.monotonic())
            case Wake():
                self._due_at = 0.0
                await self._do_what_is_due()
            case Tick():
                await self._do_what_is_due()
            case _:
                assert_never(message)

    async def _do_what_is_due(self) -> None:
        now = time.monotonic()
        try:
            await self._rescue(now)
            if now >= self._due_at:
                await self._promote(now)
            if now >= self._sweep_at:
                self._sweep_at = now + SWEEP_EVERY
                await self._sweep()
            if now >= self._prune_at:
                self._prune_at = now + PRUNE_EVERY
                await self._prune()
        except DatabaseUnavailable:
            return

    async def _rescue(self, now: float) -> None:
        for peer in await self._watch.lost(now, self._servers.lock_is_free):
            lined = await self._servers.rescue(peer)
            if lined is not None:
                logger.warning("server {} ({}) is lost: {} of its tasks run again", peer.name, peer.id, lined)
                self._announcements.lined(lined)

    async def _promote(self, now: float) -> None:
        lined, next_in = await self._upkeep.promote(BATCH)
        self._due_at = now + max(0.0, min(LOOK_FOR_DUE, LOOK_FOR_DUE if next_in is None else next_in))
        self._announcements.lined(lined)

    async def _sweep(self) -> None:
        if found := await self._upkeep.sweep_children(BATCH):
            logger.warning("{} waiting tasks had no open parent left and were let go", found)
            self._announcements.lined(found)

    async def _prune(self) -> None:
        while await self._upkeep.prune(self._retention, BATCH) == BATCH:
            pass
        await self._upkeep.prune_traces(self._retention)
