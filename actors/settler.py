"""Settle ended attempts in batches.

Decides nothing: what an outcome means is in lifecycle.py, whether it still counts is in the settle function.
"""

from __future__ import annotations

from collections import Counter
from typing import assert_never
from uuid import UUID

from loguru import logger

from ..runtime.actor import Actor
from ..runtime.errors import DatabaseUnavailable
from ..runtime.store.tasks import TaskStore
from ..runtime.task import Claimed, ServerId
from .announcements import Announcements
from .messages import Go, Opened, Outcomes, SettlerMessage, Tick, Unstarted
from .vitals import Vitals

MOST_AT_ONCE = 1_000  # attempts in one transaction


class Settler(Actor[SettlerMessage]):
    """Writes in one transaction what has come in while its previous one was under way.

    While PostgreSQL is away it keeps everything and tries again on each tick.
    """

    def __init__(self, store: TaskStore, server: ServerId, announcements: Announcements, vitals: Vitals) -> None:
        self._store = store
        self._server = server
        self._announcements = announcements
        self._vitals = vitals
        self._open: Counter[UUID] = Counter()  # attempts by lease that are neither recorded nor given back
        self._ended: list[Outcomes] = []
        self._unstarted: list[Claimed] = []

    async def receive(self, message: SettlerMessage) -> None:
        match message:
            case Opened(lease, count):
                self._open[lease] += count
            case Outcomes():
                self._ended.append(message)
                self.ref.tell(Go())
            case Unstarted(attempts):
                self._unstarted += attempts
                self.ref.tell(Go())
            case Go() | Tick():
                await self._flush()
            case _:
                assert_never(message)

    async def stopped(self) -> None:
        await self._flush()
        if self._ended or self._unstarted:
            logger.warning("outcomes could not be recorded: these tasks will run again")

    async def _flush(self) -> None:
        try:
            while self._ended:
                await self._settle()
            if self._unstarted:
                await self._give_back()
        except DatabaseUnavailable:
            return

    async def _settle(self) -> None:
        batch = self._next_batch()
        settled = [end for outcomes in batch for end in outcomes.settled]
        leases = Counter(end.lease for end in settled)
        full, part = self._full_and_part(leases)
        settlement = await self._store.settle(
            self._server,
            settled,
            full=full,
            part=part,
            contexts=[write for outcomes in batch for write in outcomes.contexts],
            logs=[line for outcomes in batch for line in outcomes.logs],
            added=[added for outcomes in batch for added in outcomes.added],
        )
        del self._ended[: len(batch)]
        self._close(leases)
        self._vitals.settled += len(settled) - len(settlement.lost)
        if settlement.lost:
            self._vitals.lost += len(settlement.lost)
            logger.warning("{} attempts were lost to a rescue: their outcomes are not recorded", len(settlement.lost))
        self._announcements.lined(settlement.lined)
        self._announcements.ended(settlement.told)

    async def _give_back(self) -> None:
        unstarted = list(self._unstarted)
        leases = Counter(claimed.lease for claimed in unstarted)
        full, _ = self._full_and_part(leases)
        lined = await self._store.give_back(self._server, [claimed.id for claimed in unstarted], full=full)
        del self._unstarted[: len(unstarted)]
        self._close(leases)
        self._announcements.lined(lined)

    def _next_batch(self) -> list[Outcomes]:
        size = 0
        for place, outcomes in enumerate(self._ended, start=1):
            size += len(outcomes.settled)
            if size >= MOST_AT_ONCE:
                return self._ended[:place]
        return list(self._ended)

    def _full_and_part(self, leases: Counter[UUID]) -> tuple[list[UUID], list[UUID]]:
        full = [lease for lease, ended in leases.items() if self._open[lease] <= ended]
        return full, list(leases.keys() - set(full))

    def _close(self, leases: Counter[UUID]) -> None:
        self._open.subtract(leases)
        for lease in leases:
            if self._open[lease] <= 0:
                del self._open[lease]
