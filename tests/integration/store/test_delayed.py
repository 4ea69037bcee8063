"""Delayed tasks: into line when they are due, in order, once."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta

import pytest

from tests.store import Store, new_task

PAST = datetime.now(UTC) - timedelta(hours=1)


async def _due(store: Store, count: int) -> list[object]:
    """Delayed tasks that have become due, the first one last."""
    tasks = await store.add(count, run_at=datetime.now(UTC) + timedelta(hours=1))
    for minutes, task in enumerate(tasks):
        await store.rows(
            "update queued_tasks.delayed set run_at = $2 where id = $1", task.id, PAST - timedelta(minutes=minutes)
        )
        await store.rows(
            "update queued_tasks.task set run_at = $2 where id = $1", task.id, PAST - timedelta(minutes=minutes)
        )
    return [task.id for task in tasks]


async def test_due_tasks_get_into_line_in_the_order_of_their_times(store: Store) -> None:
    ids = await _due(store, 5)
    assert await store.upkeep.promote(100) == (5, None)
    assert [it.id for it in await store.claim(await store.server())] == ids[::-1]


async def test_a_batch_is_bounded(store: Store) -> None:
    await _due(store, 5)
    lined, next_in = await store.upkeep.promote(3)
    assert lined == 3
    assert next_in is not None
    assert next_in < 0
    assert (await store.upkeep.promote(3))[0] == 2


async def test_the_next_due_time_is_said(store: Store) -> None:
    await store.one(run_at=datetime.now(UTC) + timedelta(hours=1))
    lined, next_in = await store.upkeep.promote(3)
    assert lined == 0
    assert next_in == pytest.approx(3600, abs=60)


async def test_two_who_promote_at_once_promote_each_task_once(store: Store) -> None:
    await _due(store, 50)
    sessions = [await store.another() for _ in range(2)]
    lined = await asyncio.gather(*(session.upkeep.promote(100) for session in sessions))
    assert sum(count for count, _ in lined) == 50
    assert len({it.id for it in await store.claim(await store.server())}) == 50


async def test_a_promoted_task_stands_in_the_lane_of_its_channel_and_priority(store: Store) -> None:
    task = new_task(channel="mail", priority=3, run_at=datetime.now(UTC) + timedelta(hours=1))
    await store.tasks.add([task])
    await store.rows("update queued_tasks.delayed set run_at = $1", PAST)
    await store.rows("update queued_tasks.task set run_at = $1", PAST)
    await store.upkeep.promote(1)
    lane = await store.rows("select channel, priority from queued_tasks.ready join queued_tasks.lane l on l.id = lane")
    assert lane == [("mail", 3)]


async def test_a_removed_task_is_not_promoted(store: Store) -> None:
    await _due(store, 1)
    await store.rows("delete from queued_tasks.task")
    assert (await store.upkeep.promote(10))[0] == 0
    assert await store.count("delayed") == 0


async def test_who_waits_for_ever_holds_up_nobody(store: Store) -> None:
    posted = await store.value("select queued_tasks.enqueue('main:send', run_at => 'infinity')")
    assert (await store.upkeep.promote_inbox(10))[0] == 1
    assert await store.upkeep.promote(10) == (0, math.inf)
    task = await store.reads.task(posted)
    assert task is not None
    assert task.run_at == datetime.max.replace(tzinfo=UTC)
    (soon,) = await _due(store, 1)
    assert await store.upkeep.promote(10) == (1, math.inf)
    assert [it.id for it in await store.claim(await store.server())] == [soon]
