"""Take back what lost servers hold."""

from __future__ import annotations

import time
from typing import assert_never

from loguru import logger

from ..runtime.actor import Actor, ActorRef
from ..runtime.errors import DatabaseUnavailable
from ..runtime.store.servers import ServerStore
from ..runtime.task import ServerId
from .announcements import Announcements
from .messages import JanitorMessage, PeersChanged, RescuerMessage, Tick, Wake
from .watch import LOOK_EVERY, Watch

APART = 0.9 * LOOK_EVERY  # seconds at least from a look to the next one: two that follow a slow one would be but one


class Rescuer(Actor[RescuerMessage]):
    """Looks at its peers on each tick; who is given up is for watch.py to say. Does nothing else that may take long."""

    def __init__(
        self,
        server: ServerId,
        servers: ServerStore,
        announcements: Announcements,
        janitor: ActorRef[JanitorMessage],
        *,
        lease_ttl: float,
    ) -> None:
        self._servers = servers
        self._announcements = announcements
        self._janitor = janitor
        self._watch = Watch(server, lease_ttl)
        self._look_at = 0.0

    async def receive(self, message: RescuerMessage) -> None:
        match message:
            case PeersChanged(peers):
                self._watch.hear(peers, time.monotonic())
            case Tick():
                await self._look_around()
            case _:
                assert_never(message)

    async def _look_around(self) -> None:
        if time.monotonic() < self._look_at:
            return
        try:
            await self._look()
            await self._rescue()
        except DatabaseUnavailable:
            return

    async def _look(self) -> None:
        locks = self._watch.locks()
        free = await self._servers.free_locks(locks) if locks else {}
        now = time.monotonic()
        self._watch.look(free, now)
        self._look_at = now + APART

    async def _rescue(self) -> None:
        for peer in self._watch.lost(time.monotonic()):
            lined = await self._servers.rescue(peer)
            if lined is not None:
                logger.warning("server {} ({}) is lost: {} of its tasks run again", peer.name, peer.id, lined)
                self._announcements.lined(lined)
                self._janitor.tell(Wake())  # only the lost one knew when what it had put off is due
