"""Settling while somebody waits: who is told of which end, and how long a result stays for them."""

from __future__ import annotations

import math

import pytest

from tests.store import Store, blocked, ended


async def test_whoever_waits_is_told_of_the_end_once(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.session.fetch("subscribe", [task.id], "topic")
    settlement = await store.settle(server, ended(it))
    assert settlement.told == {"topic": [str(task.id)]}
    assert await store.count("waiter") == 0


@pytest.mark.parametrize(("wish", "delay"), [("cancel", 0.0), ("stop", 0.0), (None, math.inf)])
async def test_whoever_waits_is_told_of_a_cancelled_and_of_a_stopped_task(
    store: Store, wish: str | None, delay: float
) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.session.fetch("subscribe", [task.id], "topic")
    if wish:
        await store.rows("select queued_tasks.wish($1, $2)", [task.id], wish)
    settlement = await store.settle(server, ended(it, "interrupted", delay=delay))
    assert settlement.told == {"topic": [str(task.id)]}


async def test_nobody_is_told_of_a_retry(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.session.fetch("subscribe", [task.id], "topic")
    assert (await store.settle(server, ended(it, "failed", delay=0.0))).told == {}
    assert await store.count("waiter") == 1


async def test_a_task_that_is_removed_at_its_end_stays_for_whoever_waits_for_its_result(store: Store) -> None:
    task = await store.one(auto_remove=True)
    await store.session.fetch("subscribe", [task.id], "topic")
    await store.run(await store.server(), result="5")
    assert (await store.reads.ends([task.id]))[task.id]["result"] == "5"


async def test_two_who_read_a_result_at_once_leave_nothing_behind(store: Store) -> None:
    task, other = await store.one(auto_remove=True), await store.another()
    for topic in ("first", "second"):
        await store.session.fetch("subscribe", [task.id], topic)
    await store.run(await store.server(), result="5")
    await store.begin()
    await store.session.fetch("have_read", [task.id], "first")
    second = await blocked(await store.another(), other, other.session.fetch("have_read", [task.id], "second"))
    await store.commit()
    await second
    assert (await store.state(task), await store.count("lingering")) == (None, 0)


async def test_a_result_that_nobody_comes_to_read_does_not_stay(store: Store) -> None:
    task = await store.one(auto_remove=True)
    for topic in ("first", "second"):
        await store.session.fetch("subscribe", [task.id], topic)
    await store.run(await store.server(), result="5")
    assert await store.upkeep.remove_lingering(10) == 0
    await store.rows("update queued_tasks.lingering set since = now() - interval '1 minute'")
    await store.upkeep.remove_lingering(10)
    assert (await store.state(task), await store.count("lingering")) == (None, 0)
