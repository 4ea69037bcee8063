"""What comes to stand behind a claimer's low-water is claimed: the claimer and the store are real, the clock is not."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest

from queued_tasks.actors import claimer, kind
from queued_tasks.actors.claimer import Claimer
from queued_tasks.actors.messages import Freed, Opened, Tick, Wake, WorkerJoined
from queued_tasks.actors.vitals import Vitals, WorkerVitals
from queued_tasks.runtime.actor import ActorRef
from queued_tasks.runtime.intake import ALL
from queued_tasks.runtime.lines import VERY_LATE
from queued_tasks.runtime.task import ServerId
from tests.clock import Clock
from tests.limits import ids, limit
from tests.store import Store, ended
from tests.waiting import wait_until

SLOTS = 4
FULL_PASS = 30.0  # seconds


class Stage:
    """A claimer with one async worker, whose attempts end when the test says so."""

    def __init__(self, store: Store, server: ServerId, clock: Clock) -> None:
        self._store = store
        self._server = server
        self._clock = clock
        self._worker: ActorRef[Any] = ActorRef("worker")
        self._settler: ActorRef[Any] = ActorRef("settler")
        self.vitals = Vitals()
        self._claimer = Claimer(
            store.tasks,
            server,
            self._settler,
            ActorRef("supervisor"),
            self.vitals,
            ALL,
            first_pause=2.0,
            polling_interval=2.0,
            full_pass_interval=FULL_PASS,
        )
        self._claimer.ref = ActorRef("claimer")

    async def tells(self, message: Any) -> None:
        """The claimer receives it, and what it tells itself."""
        await self._claimer.receive(message)
        while self._claimer.ref._queue:
            await self._claimer.receive(self._claimer.ref._queue.popleft())

    async def joins(self) -> None:
        await self.tells(WorkerJoined(1, False, SLOTS, self._worker))
        await self.tells(Wake(-1, 0, ""))

    async def passes(self, seconds: float, *, ends: int = 0) -> None:
        """Time passes; in every half second as many attempts end."""
        for _ in range(int(seconds / 0.5)):
            self._clock.now += 0.5
            await self.tells(Tick())
            if ends:
                await self.tells(Freed(1, ends, run=False))

    async def end(self) -> None:
        """What runs has ended."""
        attempts = [attempt for message in self._worker._queue for attempt in message.attempts]
        self._worker._queue.clear()
        await self._store.settle(self._server, *(ended(attempt) for attempt in attempts))
        await self.tells(Freed(1, len(attempts), run=False))
        await self.tells(Wake(-1, 0, ""))  # the channel has room

    @property
    def looks_again(self) -> bool:
        """Whether it has told itself to act, by a timer of the loop."""
        return bool(self._claimer.ref._queue)

    @property
    def claimed(self) -> list[UUID]:
        """All that it has claimed, in this order."""
        return [id for message in self._settler._queue if isinstance(message, Opened) for id in message.tasks]


@pytest.fixture
async def stage(store: Store, monkeypatch: pytest.MonkeyPatch) -> Stage:
    clock = Clock()
    clock.now = time.monotonic()
    for module in (claimer, kind):
        monkeypatch.setattr(module, "time", clock)
    return Stage(store, await store.server(), clock)


async def _held(store: Store) -> Store:
    """A session that has hold of all that stands in line, as claims have."""
    other = await store.another()
    await other.begin()
    await other.rows("select from queued_tasks.bundle for update")
    return other


async def test_more_than_there_is_room_for_is_claimed_as_room_comes(store: Store, stage: Stage) -> None:
    left = await store.add(12)
    other = await _held(store)
    later = await store.add(SLOTS)
    await stage.joins()
    assert stage.claimed == ids(later)
    await stage.tells(Freed(1, SLOTS, run=False))
    await stage.passes(VERY_LATE - 2)
    await other.commit()
    await stage.passes(3)
    assert stage.claimed[SLOTS:] == ids(left[:SLOTS])
    await stage.passes(10)
    await stage.passes(3, ends=SLOTS)
    assert stage.claimed[SLOTS:] == ids(left)


async def test_it_is_claimed_ahead_of_a_backlog_after_the_interval(store: Store, stage: Stage) -> None:
    left = await store.add(3)
    other = await _held(store)
    await store.add(200)
    await stage.joins()
    await stage.passes(5, ends=1)
    await other.commit()
    assert not {*ids(left)} & {*stage.claimed}
    await stage.passes(FULL_PASS + 1, ends=1)
    assert {*ids(left)} <= {*stage.claimed}
    assert await store.count("bundle")


async def test_it_is_claimed_once_its_channel_goes_on_however_long_that_takes(store: Store, stage: Stage) -> None:
    left = await store.add(3, channel="mail")
    other = await _held(store)
    await store.add(SLOTS, channel="mail")
    await stage.joins()
    await other.commit()
    await limit(store, "none", paused=True)
    await stage.tells(Freed(1, SLOTS, run=False))
    await stage.passes(5 * VERY_LATE)
    await limit(store, "none")
    await stage.passes(3)
    assert stage.claimed[SLOTS:] == ids(left)


@pytest.mark.parametrize("late", [1, 3])
async def test_it_is_claimed_once_its_channel_has_room_however_long_that_takes(
    store: Store, stage: Stage, late: int
) -> None:
    await limit(store, "1")
    await store.one(channel="mail")
    other = await store.another()
    await other.begin()
    left = await other.add(late, channel="mail")
    await store.add(5, channel="mail")
    await stage.joins()
    await stage.end()
    first = [*stage.claimed]
    assert len(first) == 2
    await other.commit()
    for _ in left:
        await stage.passes(5 * VERY_LATE)
        await stage.end()
    assert stage.claimed[2:] == ids(left)


async def test_a_lane_that_was_told_of_and_is_gone_is_looked_for_once(
    store: Store, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    refresh = store.tasks.lanes.refresh

    async def counted() -> None:
        nonlocal looks
        looks += 1
        await refresh()

    first = await store.add(1)  # there is a lane
    monkeypatch.setattr(store.tasks.lanes, "refresh", counted)
    await stage.joins()
    looks = 0
    await stage.tells(Wake(1_000, 1, "another"))
    assert looks == 1
    left = await store.add(2)
    await stage.tells(Wake(1, 2, "another"))
    assert (looks, stage.claimed) == (1, ids([*first, *left]))


async def test_no_more_is_claimed_while_what_has_ended_is_not_recorded(store: Store, stage: Stage) -> None:
    await store.add(3 * SLOTS)
    await stage.joins()
    stage.vitals.claimed += claimer.MOST_UNRECORDED - 2  # which have ended by now
    await stage.tells(Freed(1, SLOTS, run=False))
    assert len(stage.claimed) == SLOTS
    stage.vitals.closed += claimer.MOST_UNRECORDED - 2 + SLOTS - 1
    await wait_until(lambda: stage.looks_again)
    await stage.passes(0.5)
    assert len(stage.claimed) == 2 * SLOTS


async def test_no_more_is_claimed_while_too_much_text_is_not_recorded(store: Store, stage: Stage) -> None:
    await store.add(2 * SLOTS)
    await stage.joins()
    stage.vitals.unrecorded = claimer.MOST_TEXT + 1
    await stage.tells(Freed(1, SLOTS, run=False))
    assert len(stage.claimed) == SLOTS
    stage.vitals.unrecorded = claimer.MOST_TEXT
    await wait_until(lambda: stage.looks_again)
    await stage.passes(0.5)
    assert len(stage.claimed) == 2 * SLOTS


async def test_what_runs_in_workers_that_leave_holds_nobody_back(store: Store, stage: Stage) -> None:
    await store.add(SLOTS)
    stage.vitals.claimed += claimer.MOST_UNRECORDED
    stage.vitals.posts[9] = WorkerVitals(SLOTS, busy=claimer.MOST_UNRECORDED)
    await stage.joins()
    assert len(stage.claimed) == SLOTS


async def test_a_lane_whose_number_is_older_than_the_newest_is_found(store: Store, stage: Stage) -> None:
    await store.add(1)
    await stage.joins()
    await stage.tells(Wake(1_000, 1, "another"))
    other = await store.another()
    left = await other.add(2, channel="mail")
    (lane,) = await store.rows("select id from queued_tasks.lane where channel = 'mail'")
    await stage.tells(Wake(lane, 2, "late"))
    assert stage.claimed[1:] == ids(left)
