"""How often the janitor looks for what may be lined up."""

from __future__ import annotations

from typing import Any, cast

import pytest

from queued_tasks.actors import janitor
from queued_tasks.actors.announcements import Announcements
from queued_tasks.actors.janitor import Janitor
from queued_tasks.actors.messages import Wake
from queued_tasks.runtime.actor import ActorRef
from queued_tasks.runtime.store.servers import ServerStore
from queued_tasks.runtime.store.upkeep import Upkeep
from tests.clock import Clock


class Tables:
    """An upkeep whose looks take `cost` seconds, of `posted` tasks in the inbox."""

    def __init__(self, clock: Clock, cost: float, posted: int = 0) -> None:
        self._clock = clock
        self._cost = cost
        self._posted = posted
        self.looks = 0

    async def promote_inbox(self, limit: int) -> tuple[int, int]:
        self.looks += 1
        taken = min(self._posted, limit)
        self._posted -= taken
        return taken, taken

    async def promote(self, limit: int) -> tuple[int, float | None]:  # noqa: ARG002
        self._clock.now += self._cost
        return 0, None

    async def take(self, duty: str, every: float) -> bool:  # noqa: ARG002
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(janitor, "time", clock)
    return clock


def janitor_of(tables: Tables) -> Janitor:
    ref: ActorRef[Any] = ActorRef("any")
    made = Janitor(
        cast("ServerStore", None),
        cast("Upkeep", tables),
        Announcements(ref, ref, None),
        retention=1.0,
        look_every=2.0,
    )
    made.ref = ActorRef("janitor")
    return made


async def wake(janitor: Janitor, clock: Clock, *, every: float, times: int) -> None:
    for _ in range(times):
        clock.now += every
        await janitor.receive(Wake())
    await janitor.stopped()


async def test_looks_that_cost_little_are_made_as_often_as_somebody_asks(clock: Clock) -> None:
    tables = Tables(clock, cost=0.001)
    await wake(janitor_of(tables), clock, every=0.02, times=50)
    assert tables.looks == 50


async def test_looks_that_cost_much_take_a_third_of_the_time(clock: Clock) -> None:
    tables = Tables(clock, cost=0.1)
    await wake(janitor_of(tables), clock, every=0.01, times=400)
    assert 15 <= tables.looks <= 25


async def test_what_a_look_left_is_looked_for_at_once(clock: Clock) -> None:
    tables = Tables(clock, cost=0.1, posted=10_000)
    made = janitor_of(tables)
    await wake(made, clock, every=0.01, times=10)
    assert tables.looks == 10
