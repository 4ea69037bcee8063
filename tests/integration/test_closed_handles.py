"""A handle that is left: who still waits, what its references say, what stays connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from threading import Event
from typing import Any

import asyncpg
import pytest

from queued_tasks.runtime.errors import InvalidState
from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.refs import TaskRef
from queued_tasks.runtime.sync_client import SyncTaskRef
from tests.waiting import wait_until

VERBS: list[Callable[[TaskRef], Coroutine[Any, Any, object]]] = [
    TaskRef.get_state,
    TaskRef.cancel,
    TaskRef.stop,
    TaskRef.wait,
    lambda ref: anext(ref.watch()),  # type: ignore[arg-type]
]


def work(value: int) -> None: ...


async def connected(rows: asyncpg.Connection) -> list[str]:
    found = await rows.fetch(
        "select application_name from pg_stat_activity where datname = current_database() and application_name in "
        "('queued-tasks client', 'queued-tasks writer', 'queued-tasks announcer', 'queued-tasks waiter')"
    )
    return [row["application_name"] for row in found]


async def subscribed(rows: asyncpg.Connection, count: int) -> None:
    async def is_so() -> bool:
        return bool(await rows.fetchval("select count(*) = $1 from queued_tasks.waiter", count))

    await wait_until(is_so)


async def test_who_waits_is_told_when_the_handle_is_left(database: str, rows: asyncpg.Connection) -> None:
    async with QueuedTasks.connect(database) as tasks:
        waits = asyncio.create_task(tasks.add_task(work, 1).wait())
        updates = tasks.add_task(work, 2).watch()
        await anext(updates)
        follows = asyncio.ensure_future(anext(updates))
        await subscribed(rows, 2)
    for told in (waits, follows):
        with pytest.raises(InvalidState, match="This handle is closed"):
            await asyncio.wait_for(told, 20)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_reference_opens_nothing_once_its_handle_is_left(
    database: str, rows: asyncpg.Connection, verb: Callable[[TaskRef], Coroutine[Any, Any, object]]
) -> None:
    async with QueuedTasks.connect(database) as tasks:
        ref = tasks.add_task(work, 1)
        await ref
        assert await connected(rows)
    with pytest.raises(InvalidState, match="This handle is closed"):
        await asyncio.wait_for(verb(ref), 20)

    async def nothing_is_left() -> bool:
        return not await connected(rows)

    await wait_until(nothing_is_left)


async def test_calls_that_stand_in_line_open_nothing_once_the_handle_is_left(
    database: str, rows: asyncpg.Connection
) -> None:
    async with QueuedTasks.connect(database) as tasks:
        ref = tasks.add_task(work, 1)
        await ref
        await rows.execute("begin; lock table queued_tasks.task, queued_tasks.result")
        asked = [asyncio.create_task(ref.get_state()) for _ in range(5)]

        async def is_held_up() -> bool:
            found = await rows.fetchval(
                "select count(*) from pg_locks join pg_stat_activity using (pid) "
                "where not granted and application_name = 'queued-tasks client'"
            )
            return bool(found)

        await wait_until(is_held_up)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [InvalidState] * 5
    await rows.execute("rollback")

    async def nothing_is_left() -> bool:
        return not await connected(rows)

    await wait_until(nothing_is_left)


async def test_a_thread_that_waits_is_told_when_the_handle_is_left(database: str, rows: asyncpg.Connection) -> None:
    entered, leave = Event(), Event()
    refs: list[SyncTaskRef] = []

    def hold() -> None:
        with QueuedTasks.sync(database) as tasks:
            refs.append(tasks.add_task(work, 1))
            refs[0].get_task_id()
            entered.set()
            leave.wait(60)

    holds = asyncio.create_task(asyncio.to_thread(hold))
    await asyncio.to_thread(entered.wait, 60)
    waits = asyncio.create_task(asyncio.to_thread(refs[0].wait))
    await subscribed(rows, 1)
    leave.set()
    await holds
    with pytest.raises(InvalidState, match="This handle is closed"):
        await asyncio.wait_for(waits, 20)


async def test_a_reference_of_a_thread_says_that_its_handle_was_left(database: str) -> None:
    def use(verb: Callable[[SyncTaskRef], object]) -> None:
        with QueuedTasks.sync(database) as tasks:
            ref = tasks.add_task(work, 1)
            ref.get_task_id()
        verb(ref)

    for verb in (SyncTaskRef.get_state, SyncTaskRef.cancel, SyncTaskRef.wait, lambda ref: next(iter(ref.watch()))):
        with pytest.raises(InvalidState, match="This handle is closed"):
            await asyncio.to_thread(use, verb)
