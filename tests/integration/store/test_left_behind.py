"""What comes to stand behind a claimer's low-water is claimed: the claimer and the store are real, the clock is not."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest

from queued_tasks.actors import claimer, kind
from queued_tasks.actors.claimer import Claimer
from queued_tasks.actors.messages import Freed, Opened, Tick, Wake, WorkerJoined
from queued_tasks.actors.vitals import Vitals
from queued_tasks.runtime.actor import ActorRef
from queued_tasks.runtime.intake import ALL
from queued_tasks.runtime.lines import VERY_LATE
from queued_tasks.runtime.task import ServerId
from tests.clock import Clock
from tests.limits import ids
from tests.store import Store

SLOTS = 4
FULL_PASS = 30.0  # seconds


class Stage:
    """A claimer with one async worker, whose attempts end when the test says so."""

    def __init__(self, store: Store, server: ServerId, clock: Clock) -> None:
        self._clock = clock
        self._settler: ActorRef[Any] = ActorRef("settler")
        self._claimer = Claimer(
            store.tasks,
            server,
            self._settler,
            ActorRef("supervisor"),
            Vitals(),
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
        await self.tells(WorkerJoined(1, False, SLOTS, ActorRef("worker")))
        await self.tells(Wake(-1, 0, ""))

    async def passes(self, seconds: float, *, ends: int = 0) -> None:
        """Time passes; in every half second as many attempts end."""
        for _ in range(int(seconds / 0.5)):
            self._clock.now += 0.5
            await self.tells(Tick())
            if ends:
                await self.tells(Freed(1, ends, run=False))

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


async def test_more_than_there_is_room_for_is_claimed_as_room_comes(store: Store, stage: Stage) -> None:
    left = await store.add(12)
    other = await store.another()
    await other.begin()
    await other.claim(await store.server("other"), 1)  # of a peer that will be gone
    later = await store.add(SLOTS)
    await stage.joins()
    assert stage.claimed == [task.id for task in later]
    await stage.tells(Freed(1, SLOTS, run=False))
    await stage.passes(VERY_LATE - 2)
    await other.session.connection.execute("rollback")
    await stage.passes(3)
    assert stage.claimed[SLOTS:] == [task.id for task in left[:SLOTS]]
    await stage.passes(10)
    await stage.passes(3, ends=SLOTS)
    assert stage.claimed[SLOTS:] == [task.id for task in left]


async def test_it_is_claimed_ahead_of_a_backlog_after_the_interval(store: Store, stage: Stage) -> None:
    left = await store.add(3)
    other = await store.another()
    await other.begin()
    await other.claim(await store.server("other"), 1)
    await store.add(200)
    await stage.joins()
    await stage.passes(5, ends=1)
    await other.session.connection.execute("rollback")
    assert not {*ids(left)} & {*stage.claimed}
    await stage.passes(FULL_PASS + 1, ends=1)
    assert {*ids(left)} <= {*stage.claimed}
    assert await store.count("bundle")
