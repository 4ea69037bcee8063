"""What becomes of tasks that the database refuses, or that it can't be given because it is away."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import asyncpg
import pytest

from queued_tasks.runtime import outbox
from queued_tasks.runtime.errors import (
    DatabaseUnavailable,
    InvalidState,
    InvalidTask,
)
from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.outbox import Outbox
from queued_tasks.runtime.task import TaskSpec
from tests.enqueued import count
from tests.proxy import proxied
from tests.waiting import wait_until


def plain(value: Any) -> None: ...


async def test_a_row_that_the_database_refuses_hurts_only_its_owner(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    await rows.execute("alter table queued_tasks.task add check (name <> 'bad')")
    refs = [tasks.add_task(plain, number, name="bad" if number == 3 else None) for number in range(8)]
    child = tasks.add_task(plain, "child", parent=refs[3])
    ends = await asyncio.gather(*(ref.get_task_id() for ref in (*refs, child)), return_exceptions=True)
    assert [type(end) for end in ends if isinstance(end, Exception)] == [asyncpg.CheckViolationError, InvalidTask]
    assert await count(rows) == 7


async def test_what_was_refused_in_the_background_is_raised_by_the_next_flush(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    await rows.execute("alter table queued_tasks.task add check (name <> 'bad')")
    tasks.add_task(plain, 1, name="bad")
    with pytest.raises(asyncpg.CheckViolationError):
        await tasks.flush()
    await tasks.flush()


async def test_a_write_whose_answer_is_lost_is_repeated_and_enqueues_once(
    database: str, rows: asyncpg.Connection
) -> None:
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn) as tasks:
        await tasks.add_task(plain, "first, so that the lane is known")
        proxy.cut_after(b"once and only once")
        ref = tasks.add_task(plain, "once and only once")
        await ref
        lines = await rows.fetchval("select count(*) from queued_tasks.ready where id = $1", ref.id)
        assert (proxy.cuts, ref.created, lines, await count(rows)) == (1, True, 1, 2)


async def test_a_unique_task_whose_answer_is_lost_is_not_taken_for_its_own_rival(database: str) -> None:
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn) as tasks:
        await tasks.add_task(plain, "first")
        proxy.cut_after(b"once and only once")
        ref = tasks.add_task(plain, "once and only once", unique="key")
        assert (await ref, ref.created, proxy.cuts) == (ref.id, True, 1)


async def test_tasks_are_kept_while_the_database_is_away(database: str, rows: asyncpg.Connection) -> None:
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn) as tasks:
        await tasks.add_task(plain, 0)
        proxy.cut()
        refs = [tasks.add_task(plain, number) for number in range(1, 6)]
        await asyncio.sleep(0)
        await proxy.open()
        await asyncio.gather(*(ref.get_task_id() for ref in refs))
    assert await count(rows) == 6


async def test_an_await_gives_up_in_time_and_the_next_one_tries_again(database: str, rows: asyncpg.Connection) -> None:
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn) as tasks:
        await tasks.add_task(plain, 0)
        tasks._outbox.patience = 0.3
        proxy.cut()
        ref = tasks.add_task(plain, 1)
        with pytest.raises(DatabaseUnavailable):
            await ref
        await proxy.open()
        tasks._outbox.patience = outbox.PATIENCE
        await ref
    assert await count(rows) == 2


async def test_a_connection_that_hangs_is_given_up_with_those_who_wait_for_it(
    database: str, rows: asyncpg.Connection
) -> None:
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn) as tasks:
        await tasks.add_task(plain, 0)
        tasks._outbox.patience = 0.3
        proxy.freeze()
        ref = tasks.add_task(plain, 1)
        with pytest.raises(DatabaseUnavailable):
            await ref
        proxy.cut()
        await proxy.open()
        tasks._outbox.patience = outbox.PATIENCE
        await ref
    assert await count(rows) == 2


async def test_a_full_outbox_refuses_more(tasks: QueuedTasks) -> None:
    with patch.object(outbox, "LIMIT", 3):
        for number in range(3):
            tasks.add_task(plain, number)
        with pytest.raises(DatabaseUnavailable, match="3 tasks wait"):
            tasks.add_task(plain, 4)


async def waits(rows: asyncpg.Connection) -> bool:
    """Whether somebody waits for a lock in this database."""
    query = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    return bool(await rows.fetchval(query))


async def test_who_comes_while_others_wait_is_written_though_they_give_up(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    await tasks.add_task(plain, "first, so that the lane is known")
    handles = [
        QueuedTasks(tasks.backend, Outbox(tasks.backend, together=True, patience=patience), tasks.settings)
        for patience in (0.3, 60)
    ]
    async with rows.transaction():
        await rows.execute("lock table queued_tasks.task")
        hasty = asyncio.ensure_future(handles[0].add_task(plain, "hasty").get_task_id())
        await wait_until(lambda: waits(rows))
        patient = asyncio.ensure_future(handles[1].add_task(plain, "patient").get_task_id())
        with pytest.raises(DatabaseUnavailable):
            await hasty
    assert await rows.fetchval("select true from queued_tasks.task where id = $1", await patient)


async def test_a_handle_opens_while_somebody_has_locked_the_tables(database: str, rows: asyncpg.Connection) -> None:
    transaction = rows.transaction()
    await transaction.start()
    await rows.execute("lock table queued_tasks.task")
    async with QueuedTasks.connect(database) as tasks:
        ref = tasks.add_task(plain, 1)
        await transaction.rollback()
        await ref
    assert await count(rows) == 1


async def test_who_still_writes_when_the_handle_closes_is_told_so(database: str, rows: asyncpg.Connection) -> None:
    async with rows.transaction():
        async with QueuedTasks.connect(database) as tasks:
            await tasks.add_task(plain, "first, so that the lane is known")
            await rows.execute("lock table queued_tasks.task")
            adding = asyncio.ensure_future(tasks.add_tasks([TaskSpec(plain, [1])]))
            await wait_until(lambda: waits(rows))
        with pytest.raises(InvalidState, match="closed"):
            await adding
