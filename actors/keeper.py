"""Keep the lease: one beat renews this server's row and reads its peers, in one round trip."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import psutil
from loguru import logger

from ..runtime.actor import Actor, ActorRef
from ..runtime.errors import DatabaseUnavailable
from ..runtime.intake import Intake
from ..runtime.store.servers import Beat, Intent, Peer, ServerStore, Wanted
from ..runtime.task import ServerId
from .identity import Identity
from .messages import (
    ClaimerMessage,
    JanitorMessage,
    KeeperMessage,
    PeersChanged,
    RescuerMessage,
    Rest,
    Scale,
    SupervisorMessage,
    Wake,
    Wishes,
)
from .vitals import Vitals

BEAT_EVERY = 2.0  # seconds
_MINUTE = 60.0


class Keeper(Actor[KeeperMessage]):
    """Beats on every tick. Lets LeaseLost pass: it ends this incarnation."""

    def __init__(
        self,
        store: ServerStore,
        identity: Identity,
        vitals: Vitals,
        claimer: ActorRef[ClaimerMessage],
        janitor: ActorRef[JanitorMessage],
        rescuer: ActorRef[RescuerMessage],
        supervisor: ActorRef[SupervisorMessage],
        leave: Callable[[], None],
        *,
        intake: Intake,
        lease_ttl: float,
        health_file: Path | None,
        topic: str | None,
    ) -> None:
        self._store = store
        self._identity = identity
        self._vitals = vitals
        self._claimer = claimer
        self._janitor = janitor
        self._rescuer = rescuer
        self._supervisor = supervisor
        self._leave = leave
        self._intake = intake
        self._rests = vitals.resting  # or was told to
        self._scaled_to: int | None = None  # or was told to be
        self._lease_ttl = lease_ttl
        self._health_file = health_file
        self._topic = topic  # where SQL functions say that there is something in the inbox
        self._rates = _Rates(vitals)
        self._process = psutil.Process()
        self._away = False
        self._peers: dict[ServerId, str] | None = None

    async def receive(self, _: KeeperMessage) -> None:
        try:
            news = await self._store.beat(self._identity.id, self._say())
        except DatabaseUnavailable as error:
            if not self._away:
                logger.warning("PostgreSQL is away: work goes on, claims wait ({})", error)
            self._away = True
            self._vitals.beat_at = None
            return
        if self._away:
            logger.info("PostgreSQL is back")
        self._away = False
        self._vitals.beat_at = time.monotonic()
        self._touch_health_file()
        changed = PeersChanged(news.peers, news.newest_lane)
        self._claimer.tell(changed)
        self._rescuer.tell(changed)
        if news.overdue:  # whoever posted a task says so only to servers that had room when they beat last
            self._janitor.tell(Wake())
        self._meet(news.peers)
        self._comply(news.wanted)
        if news.cancels or news.stops:
            self._supervisor.tell(Wishes(news.cancels, news.stops))

    def _meet(self, peers: Iterable[Peer]) -> None:
        """Say who has come and who has gone since the beat before."""
        now = {peer.id: peer.name for peer in peers if peer.id != self._identity.id}
        before, self._peers = self._peers, now
        if before is None:
            if now:
                noun = "server" if len(now) == 1 else "servers"
                logger.info("with {} other {}: {}", len(now), noun, ", ".join(sorted(now.values())))
            return
        for id in now.keys() - before.keys():
            logger.info("server {} ({}) has come", now[id], id)
        for id in before.keys() - now.keys():
            logger.info("server {} ({}) has gone", before[id], id)

    def _comply(self, wanted: Wanted) -> None:
        """Bring about what is wanted, unless it was before: the next beat says it again."""
        if wanted.workers is not None and wanted.workers != self._scaled_to:
            self._scaled_to = wanted.workers
            self._supervisor.tell(Scale(wanted.workers))
        if wanted.intent is Intent.STOP:
            self._leave()
        elif self._rests is not (wanted.intent is Intent.DRAIN):
            self._rests = not self._rests
            logger.info("draining: what runs may finish, nothing new is taken" if self._rests else "taking tasks again")
            self._claimer.tell(Rest(self._rests, self.ref))

    def _say(self) -> Beat:
        vitals = self._vitals
        claimed, settled = self._rates.per_minute()
        return Beat(
            lock_key=self._identity.lock_key,
            state=vitals.standing,
            workers=vitals.workers,
            slots=vitals.slots,
            busy=vitals.busy,
            details={
                "claimed_per_minute": claimed,
                "settled_per_minute": settled,
                "load": round(os.getloadavg()[0], 2),
                "pace": round(vitals.pace, 3),
                "memory": self._process.memory_info().rss + vitals.memory,
                "error": vitals.trouble,
                "clock": time.time(),
                "topic": self._topic,
                "channels": self._intake.only,
                "excluded_channels": self._intake.never,
                "kinds": {"sync" if sync else "async": asdict(kind) for sync, kind in vitals.kinds.items()},
            },
        )

    def _touch_health_file(self) -> None:
        if self._health_file is not None and self._vitals.claiming(self._lease_ttl):
            self._health_file.touch()


class _Rates:
    """How many tasks were claimed and settled within the last minute."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._seen: list[tuple[float, int, int]] = []

    def per_minute(self) -> tuple[int, int]:
        now = time.monotonic()
        self._seen.append((now, self._vitals.claimed, self._vitals.settled))
        while self._seen[0][0] < now - _MINUTE:
            del self._seen[0]
        _, claimed, settled = self._seen[0]
        return self._vitals.claimed - claimed, self._vitals.settled - settled
