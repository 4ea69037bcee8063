"""The one writer of a process: what stands in the way of one caller is in nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest

from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import NewTask
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


class _Watched(TaskStore):
    """Remembers what each statement was to write."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.session)
        self.statements: list[list[UUID]] = []

    async def add(self, tasks: Sequence[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:
        self.statements.append([task.id for task in tasks])
        return await super().add(tasks, repeat=repeat)


async def test_what_waits_for_a_lock_beside_a_refused_task_goes_behind_the_others(store: Store) -> None:
    await store.rows("alter function queued_tasks.hold_keys set lock_timeout = '100ms'")
    await store.one()  # its lane is there
    other = await store.another()
    await other.begin()
    await other.one(unique_key="k")
    watched = _Watched(store)
    writer = GroupWriter(watched, None)
    bad, keyed, late = new_task(max_retries=10**6), new_task(unique_key="k"), new_task()
    refused, stuck = (asyncio.ensure_future(writer.write([task])) for task in (bad, keyed))
    with pytest.raises(asyncpg.DataError):
        await refused
    await writer.write([late])
    assert watched.statements[:4] == [[bad.id, keyed.id], [bad.id], [keyed.id], [late.id]]
    await other.commit()
    await stuck
