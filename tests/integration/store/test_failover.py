"""A standby takes over that lacks what the primary wrote last: nothing is written into lanes that are not there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from queued_tasks.runtime.errors import DatabaseUnavailable
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.tasks import TaskStore
from tests.store import SCHEMA, Store, ended, new_task
from tests.waiting import wait_until

FORGET = "truncate queued_tasks.lane, queued_tasks.bundle, queued_tasks.task cascade"
TERMINATE = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'queued-tasks writer'"


@pytest.fixture(params=["connection lost", "behind a pooler"])
async def tasks(database: str, store: Store, request: pytest.FixtureRequest) -> AsyncIterator[TaskStore]:
    """A store that knows a lane of before the failover, and has not yet noticed that. A pooler hides it altogether."""
    link = Link(database, SCHEMA, name="writer")
    tasks = TaskStore(link)
    await tasks.add([new_task(channel="mail")])
    await store.rows(FORGET)
    if request.param == "connection lost":
        await store.rows(TERMINATE)
    yield tasks
    await link.close()


async def _carried_out(call: Callable[[], Awaitable[object]]) -> None:
    async def attempt() -> bool:
        try:
            await call()
        except DatabaseUnavailable:
            return False
        return True

    await wait_until(attempt)


async def test_a_task_is_written_into_a_lane_that_is_there(store: Store, tasks: TaskStore) -> None:
    later = new_task(channel="mail")
    await _carried_out(lambda: tasks.add([later], repeat=True))
    assert [it.id for it in await store.claim(await store.server())] == [later.id]


async def test_what_a_task_added_is_written_into_one_too(store: Store, tasks: TaskStore) -> None:
    server = await store.server()
    await store.one()
    (claimed,) = await store.claim(server)
    later = new_task(channel="mail")
    end = ended(claimed)
    await _carried_out(lambda: tasks.settle(server, [end], full=[claimed.lease], part=[], added=[(end, [later])]))
    assert [it.id for it in await store.claim(server)] == [later.id]


async def test_parts_of_a_batch_are_written_into_one_too(store: Store, tasks: TaskStore) -> None:
    later = new_task(channel="mail")

    async def add() -> None:
        async with tasks.adding([later], 5.0) as send:
            await send([later])

    await _carried_out(add)
    assert [it.id for it in await store.claim(await store.server())] == [later.id]
