"""Upkeep without a leader: one server does a duty at a time, and none depends on one server."""

from __future__ import annotations

import asyncio

from tests.store import Store

HOUR = 3_600.0


async def test_one_of_many_takes_a_duty(store: Store) -> None:
    stores = [await store.another() for _ in range(8)]
    taken = await asyncio.gather(*(each.upkeep.take("sweep", HOUR) for each in stores))
    assert taken.count(True) == 1


async def test_another_duty_is_free(store: Store) -> None:
    assert await store.upkeep.take("sweep", HOUR)
    assert await store.upkeep.take("prune", HOUR)


async def test_a_duty_is_taken_again_in_its_next_period_whoever_had_it(store: Store) -> None:
    other = await store.another()
    assert await store.upkeep.take("sweep", HOUR)
    assert not await other.upkeep.take("sweep", HOUR)
    await store.value("update queued_tasks.duty set taken_at = taken_at - interval '61 minutes' returning 1")
    assert await other.upkeep.take("sweep", HOUR)


async def test_a_duty_that_was_taken_by_a_clock_ahead_is_not_lost(store: Store) -> None:
    assert await store.upkeep.take("sweep", HOUR)
    await store.value("update queued_tasks.duty set taken_at = taken_at + interval '1 day' returning 1")
    assert await store.upkeep.take("sweep", HOUR)


async def test_nobody_prunes_while_somebody_does(store: Store) -> None:
    await store.add(2)
    await store.run(await store.server())
    await store.value("update queued_tasks.result set ended_at = now() - interval '1 day' returning 1")
    other = await store.another()
    await other.begin()
    assert await other.upkeep.prune(-HOUR, 1) == 1
    assert await store.upkeep.prune(-HOUR, 1) == 0
    await other.commit()
    assert await store.upkeep.prune(-HOUR, 1) == 1
