"""The one writer of a process: what stands in the way of one caller is in nobody else's."""

from __future__ import annotations

import asyncio

from queued_tasks.runtime.writer import GroupWriter
from tests.store import Store, new_task


async def test_a_unique_key_that_another_transaction_is_taking_holds_up_its_own_task_alone(store: Store) -> None:
    await store.rows("alter function queued_tasks.hold_keys set lock_timeout = '100ms'")
    await store.one()  # its lane is there
    other = await store.another()
    await other.begin()
    holder = await other.one(unique_key="k")
    writer = GroupWriter(store.tasks, None)
    keyed = new_task(unique_key="k")
    stuck = asyncio.ensure_future(writer.write([keyed]))
    together = [writer.write([new_task()]) for _ in range(3)]
    assert await asyncio.gather(*together) == [{}, {}, {}]
    assert await writer.write([new_task()]) == {}
    assert not stuck.done()
    await other.commit()
    assert await stuck == {keyed.id: holder.id}
