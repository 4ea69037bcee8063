"""How often the janitor looks for what may be lined up, and what it does in between."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from queued_tasks.actors import janitor
from queued_tasks.actors.announcements import Announcements
from queued_tasks.actors.janitor import BATCH, PRUNE_EVERY, Janitor
from queued_tasks.actors.messages import Tick, Wake
from queued_tasks.runtime.actor import ActorRef
from queued_tasks.runtime.errors import DatabaseUnavailable
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
        cast("ServerStore", tables),
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


class Old(Tables):
    """An upkeep that has batches of old tasks, and of some whose channels got a limit per key; notes what it is to do.

    `janitor` is told that tasks were added whenever it cleans.
    """

    janitor: Janitor

    def __init__(self, clock: Clock, *, tasks: int = 0, keyless: int = 0) -> None:
        super().__init__(clock, cost=0.0)
        self._left = {"prune": tasks, "add_keys": keyless}
        self.done: list[str] = []
        self.away = False

    async def take(self, duty: str, every: float) -> bool:  # noqa: ARG002
        return True

    async def promote(self, limit: int) -> tuple[int, float | None]:
        self.done.append("promote")
        return await super().promote(limit)

    async def prune(self, _retention: float, limit: int) -> int:
        return self._clean("prune", limit)

    async def add_keys(self, limit: int) -> int:
        return self._clean("add_keys", limit)

    async def sweep_children(self, _limit: int) -> int:
        return 0

    async def sweep_tokens(self) -> int:
        return 0

    async def end_refused(self, _limit: int) -> tuple[int, int]:
        return 0, 0

    async def remove_lingering(self, _limit: int) -> int:
        return 0

    async def prune_traces(self, _retention: float) -> None:
        self.done.append("traces")

    async def orphaned(self) -> list[object]:
        return []

    def _clean(self, what: str, limit: int) -> int:
        if self.away:
            raise DatabaseUnavailable("away")
        self.done.append(what)
        self._clock.now += 0.1
        self.janitor.ref.tell(Wake())
        taken = min(self._left[what], limit)
        self._left[what] -= taken
        return taken


async def cleans(tables: Old, clock: Clock) -> list[str]:
    """What it does when all of it is due, in this order."""
    made = tables.janitor = janitor_of(tables)
    clock.now += PRUNE_EVERY
    await made.receive(Tick())
    await goes_on(made)
    await made.stopped()
    return tables.done


async def goes_on(janitor: Janitor) -> None:
    """It receives what it is told until that is nothing."""
    await asyncio.sleep(0)
    while janitor.ref._queue:
        await janitor.receive(janitor.ref._queue.popleft())
        await asyncio.sleep(0)


async def test_what_comes_while_old_tasks_are_removed_waits_for_one_batch(clock: Clock) -> None:
    done = await cleans(Old(clock, tasks=3 * BATCH), clock)
    assert done.count("prune") == 4
    assert all(done[place + 1] == "promote" for place, what in enumerate(done) if what == "prune")


async def test_what_comes_while_tasks_get_their_keys_waits_for_one_batch(clock: Clock) -> None:
    done = await cleans(Old(clock, keyless=3 * BATCH), clock)
    assert done.count("add_keys") == 4
    assert all(done[place + 1] == "promote" for place, what in enumerate(done) if what == "add_keys")


async def test_however_much_there_is_to_remove_the_rest_is_done_meanwhile(clock: Clock) -> None:
    done = await cleans(Old(clock, tasks=50 * BATCH, keyless=BATCH), clock)
    assert [what for what in done if what != "promote"][:5] == ["add_keys", "prune", "traces", "add_keys", "prune"]


async def test_one_that_is_to_stop_is_not_kept_by_what_is_left_to_remove(clock: Clock) -> None:
    tables = Old(clock, tasks=50 * BATCH)
    made = tables.janitor = janitor_of(tables)
    clock.now += PRUNE_EVERY
    await made.receive(Tick())
    assert not made.ref._queue
    await made.stopped()


async def test_what_can_not_be_removed_while_postgresql_is_away_is_removed_later(clock: Clock) -> None:
    tables = Old(clock, tasks=BATCH)
    tables.away = True
    assert "prune" not in await cleans(tables, clock)
    tables.away = False
    clock.now += PRUNE_EVERY
    await tables.janitor.receive(Tick())
    await goes_on(tables.janitor)
    assert tables.done.count("prune") == 2
    await tables.janitor.stopped()
