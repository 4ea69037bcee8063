"""Settle ended attempts in batches.

Decides nothing: what an outcome means is in lifecycle.py, whether it still counts is in the settle function.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import assert_never

import msgspec
from loguru import logger

from ..runtime.actor import Actor, ActorRef
from ..runtime.errors import DatabaseUnavailable, QueuedTasksError
from ..runtime.lifecycle import INTERRUPTED, refused
from ..runtime.store.link import NoRoom, TooLong
from ..runtime.store.servers import ServerStore
from ..runtime.store.tasks import MOST_REFUSED, Settlement, TaskStore
from ..runtime.task import Claimed, ServerId, Settled, Stance
from .announcements import Announcements
from .holdings import ByLease, Holdings, by_lease
from .messages import (
    Declined,
    Go,
    LeasesGone,
    Opened,
    Outcomes,
    Parked,
    Recheck,
    SettlerMessage,
    SupervisorMessage,
    Tick,
    Unstarted,
)
from .vitals import Vitals

MOST_AT_ONCE = 1_000  # attempts in one transaction
LOOK_AGAIN = 5.0  # seconds between two comparisons with what PostgreSQL knows, while something is in doubt
LONGEST = 640.0  # seconds for an attempt that took too long with less
LARGEST = 16 * 1024 * 1024  # characters in one transaction, if that is more than one attempt


class Settler(Actor[SettlerMessage]):
    """Writes in one transaction what has come in while its previous one was under way.

    While PostgreSQL is away it keeps everything and tries again on each tick. In each new session it first makes sure
    that PostgreSQL has not forgotten anything: a lease that is closed then must not hide an attempt whose end is lost.
    """

    def __init__(
        self,
        store: TaskStore,
        servers: ServerStore,
        server: ServerId,
        announcements: Announcements,
        supervisor: ActorRef[SupervisorMessage],
        vitals: Vitals,
    ) -> None:
        self._store = store
        self._servers = servers
        self._server = server
        self._announcements = announcements
        self._supervisor = supervisor
        self._vitals = vitals
        self._holdings = Holdings()
        self._ended: list[Outcomes] = []
        self._unstarted: list[Claimed] = []
        self._parked: list[tuple[Claimed, Stance]] = []
        self._stances: dict[str, Stance] = {}
        self._session: int | None = None
        self._compare_at: float | None = None
        self._no_room = False
        self._dropped = 0  # log lines, for which there is no room

    async def started(self) -> None:
        """Let PostgreSQL work out how to settle before there is anything to."""
        with suppress(DatabaseUnavailable):
            await self._store.settle(self._server, [], full=[], part=[])

    async def receive(self, message: SettlerMessage) -> None:
        match message:
            case Opened(lease, tasks):
                self._holdings.open(lease, tasks)
            case Outcomes():
                self._ended.append(message)
                self.ref.tell(Go())
            case Unstarted(attempts):
                self._unstarted += attempts
                self.ref.tell(Go())
            case Parked(attempts):
                self._parked += attempts
                self.ref.tell(Go())
            case Declined(stances):
                self._stances.update((stance.function, stance) for stance in stances)
                self.ref.tell(Go())
            case Recheck():
                self._compare_at = 0.0
                self.ref.tell(Go())
            case Go() | Tick():
                await self._flush()
            case _:
                assert_never(message)

    async def stopped(self) -> None:
        await self._flush()
        if self._ended or self._unstarted or self._parked:
            logger.warning("outcomes could not be recorded: these tasks will run again")

    async def _flush(self) -> None:
        try:
            session = await self._join_session()
            while self._ended:
                await self._settle(self._next_batch(), session)
            if self._unstarted:
                await self._give_back(session)
            while self._parked:
                await self._park(session)
            while self._stances:
                await self._take_stance()
        except NoRoom as error:
            self._tell_of_no_room(error)
        except DatabaseUnavailable:
            return

    async def _join_session(self) -> int:
        session = await self._servers.session()
        if session != self._session or (self._compare_at is not None and time.monotonic() >= self._compare_at):
            if self._session is not None:
                await self._compare(session)
            self._session = session
        return session

    async def _compare(self, session: int) -> None:
        known, now = await self._servers.held(self._server, session), time.monotonic()
        if gone := self._holdings.forgotten(known, by_lease(self._waiting())):
            logger.warning("PostgreSQL lost {} claims in a crash: what runs of them is interrupted", len(gone))
            self._vitals.gone |= gone
            self._supervisor.tell(LeasesGone(gone))
        if strays := self._holdings.strays(known, now):
            logger.warning("PostgreSQL lost what became of {} attempts: these tasks run again", len(strays))
            self._vitals.claimed += len(strays)
            for lease, id in strays:
                self._holdings.open(lease, [id])
            interrupted = [
                Settled(lease, id, known[lease][id], INTERRUPTED.outcome, 0.0, now, False, INTERRUPTED.delay)
                for lease, id in strays
            ]
            self._ended.append(Outcomes(interrupted, [], [], []))
        self._compare_at = now + LOOK_AGAIN if self._holdings.doubtful else None

    def _waiting(self) -> list[Settled | Claimed]:
        """The attempts that are to be settled, given back or parked."""
        ended = (end for outcomes in self._ended for end in outcomes.settled)
        return [*ended, *self._unstarted, *(claimed for claimed, _ in self._parked)]

    async def _settle(self, batch: list[Outcomes], session: int) -> None:
        settled = [end for outcomes in batch for end in outcomes.settled]
        leases = by_lease(settled)
        try:
            settlement = await self._write(batch, settled, leases, session)
        except NoRoom as error:
            if not any(outcomes.logs for outcomes in batch):
                raise
            self._tell_of_no_room(error)
            self._dropped += sum(len(outcomes.logs) for outcomes in batch)
            self._ended[: len(batch)] = [replace(outcomes, logs=[]) for outcomes in batch]
            return
        except TooLong:
            self._tell_of_too_long(batch)
            self._ended[: len(batch)] = []
            more = min(batch[0].limit * 2, LONGEST)
            self._ended += [replace(batch[0], limit=more)] if batch[0].alone else _one_by_one(batch)
            raise
        except QueuedTasksError:
            raise
        except Exception as error:  # what the database says of a row that it doesn't take
            if batch[0].alone and _is_bare(batch[0]):
                raise
            self._ended[: len(batch)] = _divided(batch, error)
            return
        del self._ended[: len(batch)]
        self._vitals.unrecorded -= sum(outcomes.size for outcomes in batch)
        self._close(leases)
        self._tell_of_room(batch)
        self._vitals.settled += len(settled) - len(settlement.lost)
        if settlement.lost:
            self._vitals.lost += len(settlement.lost)
            logger.warning("{} attempts were lost to a rescue: their outcomes are not recorded", len(settlement.lost))
        self._announce(batch, settled, settlement)

    async def _write(
        self, batch: list[Outcomes], settled: Sequence[Settled], leases: ByLease, session: int
    ) -> Settlement:
        full = self._holdings.full(leases)
        return await self._store.settle(
            self._server,
            settled,
            full=full,
            part=list(leases.keys() - set(full)),
            contexts=[write for outcomes in batch for write in outcomes.contexts],
            logs=[line for outcomes in batch for line in outcomes.logs],
            added=[added for outcomes in batch for added in outcomes.added],
            session=session,
            timeout=batch[0].limit,
        )

    def _tell_of_too_long(self, batch: list[Outcomes]) -> None:
        ends = [end for outcomes in batch for end in outcomes.settled]
        which = f"the end of task {ends[0].id}" if len(ends) == 1 else f"{len(ends)} ends of tasks"
        logger.error(
            "PostgreSQL took more than {:g} s to record {}: they are tried again, each by itself and with more time; "
            "until then others wait behind them",
            batch[0].limit,
            which,
        )

    def _tell_of_no_room(self, error: NoRoom) -> None:
        if not self._no_room:
            logger.error("{} Until then log lines of tasks are dropped, and ends of tasks are kept here.", error)
        self._no_room = True

    def _tell_of_room(self, recorded: list[Outcomes]) -> None:
        if self._no_room and (not self._dropped or any(outcomes.logs for outcomes in recorded)):
            logger.info("PostgreSQL has room again; {} log lines of tasks were dropped", self._dropped)
            self._no_room, self._dropped = False, 0

    def _announce(self, batch: list[Outcomes], settled: Sequence[Settled], settlement: Settlement) -> None:
        self._announcements.lined(settlement.lined)
        self._announcements.ended(settlement.told)
        delays = [end.delay for end in settled if end.delay]
        for _, tasks in (added for outcomes in batch for added in outcomes.added):
            delays += [(task.run_at - datetime.now(UTC)).total_seconds() for task in tasks if task.run_at]
        if delays:
            self._announcements.delayed(min(delays))

    async def _give_back(self, session: int) -> None:
        unstarted = list(self._unstarted)
        leases = by_lease(unstarted)
        lined = await self._store.give_back(self._server, unstarted, full=self._holdings.full(leases), session=session)
        del self._unstarted[: len(unstarted)]
        self._close(leases)
        self._announcements.lined(lined)

    async def _park(self, session: int) -> None:
        parked = self._parked[:MOST_AT_ONCE]
        attempts = [claimed for claimed, _ in parked]
        stances = {stance.function: stance for _, stance in parked}
        leases = by_lease(attempts)
        ended, lined = await self._store.park(
            self._server, attempts, [*stances.values()], full=self._holdings.full(leases), session=session
        )
        del self._parked[: len(parked)]
        self._close(leases)
        self._announcements.lined(lined)
        if ended == MOST_REFUSED:
            self._stances |= stances

    async def _take_stance(self) -> None:
        ended, lined = await self._store.take_stance(self._server, [*self._stances.values()])
        self._announcements.lined(lined)
        if ended < MOST_REFUSED:
            self._stances.clear()

    def _close(self, leases: ByLease) -> None:
        self._vitals.closed += sum(map(len, leases.values()))
        self._holdings.close(leases)

    def _next_batch(self) -> list[Outcomes]:
        count = size = 0
        for place, outcomes in enumerate(self._ended):
            count += len(outcomes.settled)
            size += outcomes.size
            if place and (count > MOST_AT_ONCE or size > LARGEST or outcomes.alone or self._ended[0].alone):
                return self._ended[:place]
        return list(self._ended)


def _divided(batch: list[Outcomes], error: Exception) -> list[Outcomes]:
    """The attempts of a refused batch one by one, a lone one without what the database may have refused."""
    if batch[0].alone:
        ends = [_unstorable(end, error) for end in batch[0].settled]
        return [Outcomes(ends, [], [], [], alone=True, size=batch[0].size)]
    return _one_by_one(batch)


def _one_by_one(batch: list[Outcomes]) -> list[Outcomes]:
    return [
        Outcomes(
            [end],
            [write for write in outcomes.contexts if write.claimed.id == end.id],
            [line for each in batch for line in each.logs if line.claimed.id == end.id],
            [added for added in outcomes.added if added[0] is end],
            alone=True,
            limit=outcomes.limit,
            size=0 if place else outcomes.size,  # all of it with the first: it is only counted
        )
        for outcomes in batch
        for place, end in enumerate(outcomes.settled)
    ]


def _unstorable(end: Settled, error: Exception) -> Settled:
    verdict = refused("SerializationError", error)
    return msgspec.structs.replace(
        end,
        outcome=verdict.outcome,
        delay=None,
        result=None,
        exception_name=verdict.exception_name,
        exception_message=f"PostgreSQL refused what is to be recorded of the task: {verdict.exception_message}",
        exception_traceback=None,
    )


def _is_bare(outcomes: Outcomes) -> bool:
    return not (outcomes.contexts or outcomes.logs or outcomes.added) and all(
        end.result is None and end.exception_traceback is None for end in outcomes.settled
    )
