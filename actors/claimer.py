"""Turn free slots into claims, never more than can start now and a little ahead."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterable
from contextlib import suppress
from operator import attrgetter
from typing import assert_never
from uuid import UUID

from ..runtime import balance, wire
from ..runtime.actor import Actor, ActorRef
from ..runtime.errors import DatabaseUnavailable
from ..runtime.intake import Intake
from ..runtime.lines import Line
from ..runtime.store.lanes import Lane
from ..runtime.store.tasks import TaskStore, new_lease
from ..runtime.task import Claimed, ServerId
from .kind import Kind
from .known import Known
from .messages import (
    ANY_LANE,
    Answers,
    ClaimerMessage,
    Declined,
    Drain,
    Freed,
    Go,
    HandBack,
    Opened,
    Parted,
    PeersChanged,
    Place,
    Rest,
    SettlerMessage,
    SupervisorMessage,
    Tick,
    Unstarted,
    Wake,
    WorkerJoined,
    WorkerLeft,
    WorkerMessage,
    WorkersWanted,
)
from .sharing import Sharing
from .vitals import Vitals

AWAY_PAUSE = 1.0  # seconds before the next claim while PostgreSQL is away
LOOK_EVERY = 0.5  # seconds between two looks for what waits while there is no room for it
MOST_UNRECORDED = 10_000  # attempts that have ended: so many may run once more after a crash
MOST_TEXT = 256 * 1024 * 1024  # characters of what these leave to record
CATCH_UP_EVERY = 0.02  # seconds between two looks whether there are fewer again
LEARN_EVERY = 0.2  # seconds between two looks for new lanes while those that are known hold enough


class Claimer(Actor[ClaimerMessage]):
    """Claims when slots are free and something may be waiting: after a wake-up, a freed slot, a tick.

    Messages only change what it knows; a `Go` behind them acts once on all of it. While a claim is under way further
    messages queue up, so the busier the workers, the larger the claims. A claim that finds nothing is repeated after
    `first_pause`, doubling to `polling_interval` (seconds), unless a wake-up comes first.
    """

    def __init__(
        self,
        store: TaskStore,
        server: ServerId,
        settler: ActorRef[SettlerMessage],
        supervisor: ActorRef[SupervisorMessage],
        vitals: Vitals,
        intake: Intake,
        *,
        first_pause: float,
        polling_interval: float,
        full_pass_interval: float,
    ) -> None:
        self._store = store
        self._server = server
        self._settler = settler
        self._supervisor = supervisor
        self._vitals = vitals
        self._intake = intake
        self._pause = first_pause
        self._polling_interval = polling_interval
        self._full_pass_interval = full_pass_interval
        self._kinds = {sync: Kind(full_pass_interval) for sync in (False, True)}
        self._refs: dict[int, ActorRef[WorkerMessage]] = {}
        self._lines: dict[int, Line] = {}
        self._session: int | None = None
        self._known = Known()
        self._newest_lane = -1  # that is known here
        self._told_lane = 0  # the newest that others have told of
        self._lanes_changed = False  # perhaps: somebody did not say which lane his tasks are in
        self._learn_at = 0.0
        self._learn_all_at = 0.0
        self._sharing = Sharing(server)
        self._doubtful: list[UUID] = []
        self._catching_up: asyncio.TimerHandle | None = None
        self._draining = False

    async def started(self) -> None:
        """Let PostgreSQL work out how to claim before there is anything to."""
        with suppress(DatabaseUnavailable):
            await self._store.claim(self._server, new_lease(), [], 1)

    async def receive(self, message: ClaimerMessage) -> None:
        match message:
            case Freed(worker, count, run):
                for kind in self._kinds.values():
                    kind.freed(worker, count, run)
                self._count()
                self.ref.tell(Go())
            case Go():
                await self._act()
            case Wake(newest_lane, count, turn):
                self._leave_some(count, turn)
                self._told_lane = max(self._told_lane, newest_lane)
                # an older one may have been made later: it has its number from before
                self._lanes_changed |= newest_lane == ANY_LANE or not self._store.lanes.knows(newest_lane)
                self._look_again()
            case Tick():
                now = time.monotonic()
                for kind in self._kinds.values():
                    kind.empty = kind.empty and now < kind.look_at
                self.ref.tell(Go())
            case WorkerJoined() | WorkerLeft() | Answers():
                self._note_worker(message)
            case PeersChanged(peers, newest_lane):
                self._sharing.hear(peers)
                self._told_lane = max(self._told_lane, newest_lane)
                if newest_lane > self._newest_lane:
                    self._look_again()
                self._known.ask_again()
                self._look_at_lanes()
            case Rest(wanted, ref):
                self._rest(wanted)
                ref.tell(Tick())
            case wire.Stances(stances):
                self._known.learn(stances)
                self._look_at_lanes()
                self._look_again()
            case Drain():
                self._draining = True
            case _:
                assert_never(message)

    def _note_worker(self, message: WorkerJoined | WorkerLeft | Answers) -> None:
        match message:
            case WorkerJoined(worker, sync, slots, ref):
                self._refs[worker] = ref
                self._kinds[sync].joined(worker, slots)
                self._look_at_lanes()
                self.ref.tell(Go())
            case WorkerLeft(worker, ref):
                self._refs.pop(worker, None)
                for kind in self._kinds.values():
                    kind.left(worker)
                ref.tell(Parted())
            case Answers(worker, answers):
                for kind in self._kinds.values():
                    if room := kind.rooms.get(worker):
                        room.open = answers
                self.ref.tell(Go())
        self._count()

    def _leave_some(self, count: int, turn: str) -> None:
        """New tasks came to an idle server: its peers are to have their shares. A busy one takes what it can get."""
        now, vitals = time.monotonic(), self._vitals
        idle = all(kind.empty for kind in self._kinds.values() if kind.rooms) or self._sharing.limit(now) < math.inf
        if idle and (hold := self._sharing.woken(count, turn, vitals.slots - vitals.busy, vitals.pace, now)):
            asyncio.get_running_loop().call_later(hold, self.ref.tell, Go())

    async def _act(self) -> None:
        if self._draining:
            return
        try:
            await self._return_doubtful()
            if self._vitals.resting:
                return
            await self._learn_lanes()
            recordable = self._recordable()
            # who has got nothing for longer is first at the room that a channel has
            for sync, kind in sorted(self._kinds.items(), key=lambda item: item[1].got_at):
                if kind.empty:
                    continue
                now = time.monotonic()
                if want := int(min(balance.wanted(kind.rooms), self._sharing.limit(now), recordable)):
                    await self._claim(sync, kind, want)
                elif kind.full and now >= kind.look_again_at:
                    await self._look(sync, kind)
        except DatabaseUnavailable:
            self._forget_lines()
            self._vitals.can_claim = False
            for kind in self._kinds.values():
                kind.empty = True
                kind.look_at = time.monotonic() + AWAY_PAUSE
        else:
            self._vitals.can_claim = True

    async def _claim(self, sync: bool, kind: Kind, want: int) -> None:
        lanes = self._lanes(sync)
        if not lanes:
            kind.empty = True
            return
        session = await self._join_session()
        ranks = _ranks(lanes)
        began = time.monotonic()
        reach = kind.look_back.reach(began, nearly_empty=kind.short)
        lease = new_lease()
        try:
            claim = await self._store.claim(
                self._server,
                lease,
                [(lane, ranks[lane.id], self._start(lane, reach, began)) for lane in lanes],
                want,
                session=session,
            )
        except DatabaseUnavailable:
            self._doubtful.append(lease)
            raise
        ended, claimed = time.monotonic(), claim.tasks
        kind.look_back.done(reach, ended, ended - began)
        kind.short = len(claimed) < want
        kind.waits &= not kind.short
        kind.found(len(claimed), ended, self._pause, min(self._polling_interval, claim.next_in or math.inf))
        self._sharing.took(len(claimed), ended - began)
        for id, low in claim.lows.items():
            self._lines[id].taken(low, reach, began)
        if claimed:
            kind.got_at = ended
            claimed.sort(key=attrgetter("seq"))
            if len(lanes) > 1:
                claimed.sort(key=lambda task: ranks[task.lane])
            for id, seq in {task.lane: task.seq for task in claimed}.items():  # the last ones are the highest
                self._lines[id].taken(seq, reach, began)
            self._place(lease, claimed, kind)
        else:
            self._count()
        kind.empty = not claimed and not self._lanes_changed
        if not kind.empty:
            self.ref.tell(Go())

    def _recordable(self) -> int:
        """How many more attempts may end before the settler is too far behind: PostgreSQL hangs, or is too slow.

        Claims commit without waiting for a disk or a standby, settlements do wait: they must not be left behind.
        """
        rooms = {worker: room for kind in self._kinds.values() for worker, room in kind.rooms.items()}
        leaving = sum(post.busy for worker, post in self._vitals.posts.items() if worker not in rooms)
        held = sum(room.held for room in rooms.values()) + leaving
        recordable = max(MOST_UNRECORDED - (self._vitals.claimed - self._vitals.closed - held), 0)
        if self._vitals.unrecorded > MOST_TEXT:
            recordable = 0
        if not recordable and self._catching_up is None:
            self._catching_up = asyncio.get_running_loop().call_later(CATCH_UP_EVERY, self._catch_up)
        return recordable

    def _catch_up(self) -> None:
        self._catching_up = None
        self.ref.tell(Go())

    async def _look(self, sync: bool, kind: Kind) -> None:
        """Whether more is waiting than there is room for, so that more workers are wanted."""
        await self._join_session()
        lanes = self._lanes(sync)
        ranks, began = _ranks(lanes), time.monotonic()
        reach = kind.outlook.reach(began, nearly_empty=True)
        kind.waits = bool(lanes) and await self._store.is_claimable(
            self._server,
            [(lane, ranks[lane.id], self._start(lane, reach, began, claims=False)) for lane in lanes],
            soon=not kind.rooms,
        )
        ended = time.monotonic()
        kind.outlook.done(reach, ended, ended - began)
        kind.look_again_at = ended + LOOK_EVERY
        if not kind.waits:
            kind.found(0, ended, self._pause, self._polling_interval)
            kind.empty = True
        self._count()
        if kind.waits and not kind.rooms:
            self._supervisor.tell(WorkersWanted())

    async def _join_session(self) -> int:
        session = await self._store.session()
        if session != self._session:
            self._session = session
            self._forget_lines()
        return session

    def _forget_lines(self) -> None:
        """After a crash or a failover tasks may stand in line again that were claimed long ago, and lanes be others."""
        self._lines.clear()
        self._newest_lane, self._told_lane = -1, 0
        self._lanes_changed = True

    def _lanes(self, sync: bool) -> list[Lane]:
        return [
            lane
            for lane in self._store.lanes
            if lane.sync == sync and self._intake.takes(lane.channel) and self._known.takes(lane)
        ]

    def _start(self, lane: Lane, reach: float, now: float, *, claims: bool = True) -> int:
        return self._lines.setdefault(lane.id, Line()).start(reach, now, claims=claims)

    def _place(self, lease: UUID, claimed: list[Claimed], kind: Kind) -> None:
        # The settler has to know of the lease before any of its attempts can end.
        self._settler.tell(Opened(lease, [task.id for task in claimed]))
        self._vitals.claimed += len(claimed)
        workers = balance.place(len(claimed), kind.rooms)
        batches: dict[int, list[Claimed]] = {}
        for worker, task in zip(workers, claimed, strict=False):
            batches.setdefault(worker, []).append(task)
        for worker, batch in batches.items():
            kind.given(worker, len(batch))
            self._refs[worker].tell(Place(batch))
        if homeless := claimed[len(workers) :]:
            self._settler.tell(Unstarted(homeless))  # their worker left while the claim was under way
        self._count()

    async def _return_doubtful(self) -> None:
        """A claim whose answer was lost may have been carried out: its tasks are held by nobody, so put them back."""
        while self._doubtful:
            await self._store.drop_lease(self._server, self._doubtful[-1])
            self._doubtful.pop()
            self._lanes_changed = True

    async def _learn_lanes(self) -> None:
        now = time.monotonic()
        short = any(kind.short for kind in self._kinds.values() if kind.rooms)
        # A lane that may be new is worth a query to a worker that finds nothing in those that are known; a busy one
        # looks every now and then, so that tasks that come back need not wait until the others are done.
        due = self._lanes_changed and (short or now >= self._learn_at)
        # and once in a while, as an older one may have been made later, and nobody have told of it
        if self._told_lane <= self._newest_lane and not due and now < self._learn_all_at:
            return
        await self._store.lanes.refresh()
        self._learn_at = now + LEARN_EVERY
        self._learn_all_at = now + self._full_pass_interval
        self._lanes_changed = False
        self._newest_lane = max([self._told_lane, *(lane.id for lane in self._store.lanes)])  # that one may be gone
        self._look_at_lanes()

    def _look_at_lanes(self) -> None:
        """Say which ones, of functions, are left to others; ask about those of which nothing is known."""
        if declined := self._known.to_decline(self._store.lanes):
            self._settler.tell(Declined(declined))
        workers = [*self._kinds[False].rooms]
        if workers and (functions := self._known.to_ask(self._store.lanes)):
            self._refs[random.choice(workers)].tell(wire.Knows(functions))  # noqa: S311  # any of them

    def _look_again(self) -> None:
        for kind in self._kinds.values():
            kind.empty = False
        self.ref.tell(Go())

    def _rest(self, wanted: bool) -> None:
        self._vitals.resting = wanted
        if wanted:
            for worker in self._refs.values():
                worker.tell(HandBack())
        else:
            self._look_again()

    def _count(self) -> None:
        for sync, kind in self._kinds.items():
            self._vitals.kinds[sync] = kind.capacity


def _ranks(lanes: Iterable[Lane]) -> dict[int, int]:
    """Each lane's place in the order of claiming; those of one priority share it, first in first out."""
    urgencies = sorted({(-lane.priority, not lane.again) for lane in lanes})
    return {lane.id: urgencies.index((-lane.priority, not lane.again)) for lane in lanes}
