"""Waiting for the end of a task: by notification, by polling, through lost connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import asyncpg
import pytest

from queued_tasks.runtime import waiting
from queued_tasks.runtime.direct import DirectBackend
from queued_tasks.runtime.errors import (
    DatabaseUnavailable,
    ParentTaskFailed,
    SchemaOutdated,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskStopped,
    TaskTimeout,
    WorkerDied,
)
from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.settings import Settings
from queued_tasks.runtime.store.link import Link, Row
from queued_tasks.runtime.store.reads import Reads
from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import NewTask, TaskSpec, TaskState
from tests.proxy import proxied
from tests.waiting import wait_until

NEVER = timedelta(hours=1)  # between two polls: what is seen earlier was notified


def work(value: Any) -> None: ...


@pytest.fixture
async def tasks(database: str) -> AsyncIterator[QueuedTasks]:
    async with QueuedTasks.connect(database, settings=Settings(polling_interval=NEVER)) as handle:
        yield handle


async def end(rows: asyncpg.Connection, id: UUID, state: str, *rest: str | None) -> list[str]:
    """End a task as a settlement does, and tell whoever waits; `rest`: result, exception's name, message, traceback."""
    values = [*rest, None, None, None, None][:4]
    async with rows.transaction():
        await rows.execute(
            "insert into queued_tasks.result (id, state, attempt, result, exception_name, exception_message,"
            " exception_traceback) values ($1, $2::text::queued_tasks.task_state, 1, $3, $4, $5, $6)",
            id,
            state,
            *values,
        )
        told: list[str] = await rows.fetchval("select told from queued_tasks.after_end($1, $2)", [id], [id]) or []
    for entry in told:
        topic, _, text = entry.partition(" ")
        await rows.execute("select pg_notify($1, $2)", topic, text)
    return told


async def subscribed(rows: asyncpg.Connection, count: int = 1) -> None:
    async def is_so() -> bool:
        return bool(await rows.fetchval("select count(*) = $1 from queued_tasks.waiter", count))

    await wait_until(is_so)


async def test_the_result_arrives_by_notification(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    ref = tasks.add_task(work, 1)
    waits = asyncio.create_task(ref.wait(60))
    await subscribed(rows)
    assert await end(rows, ref.id, "done", '{"sent": [1, 2]}')
    assert await waits == {"sent": [1, 2]}


async def test_the_result_of_a_task_that_has_ended_is_there_at_once(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    ref = tasks.add_task(work, 1)
    await end(rows, await ref, "done")
    assert await ref.wait(60) is None
    await subscribed(rows, 0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ValueError", TaskFailed),
        ("TaskTimeout", TaskTimeout),
        ("WorkerDied", WorkerDied),
        ("ParentTaskFailed", ParentTaskFailed),
    ],
)
async def test_a_failure_carries_the_remote_exception(
    tasks: QueuedTasks, rows: asyncpg.Connection, name: str, kind: type[TaskFailed]
) -> None:
    ref = tasks.add_task(work, 1)
    await end(rows, await ref, "failed", None, name, "what went wrong", "Traceback ...")
    with pytest.raises(TaskFailed) as raised:
        await ref.wait(60)
    error = raised.value
    assert (type(error), error.exception_name) == (kind, name)
    assert (error.exception_message, error.exception_traceback) == ("what went wrong", "Traceback ...")


async def test_another_process_that_cancels_wakes_who_waits(
    tasks: QueuedTasks, rows: asyncpg.Connection, database: str
) -> None:
    ref = tasks.add_task(work, 1)
    waits = asyncio.create_task(ref.wait(60))
    await subscribed(rows)
    async with QueuedTasks.connect(database) as other:
        assert await other.cancel_task(ref.id)
        with pytest.raises(TaskCancelled):
            await waits


async def test_a_stopped_task_is_found_by_looking_again(database: str, rows: asyncpg.Connection) -> None:
    async with QueuedTasks.connect(database, settings=Settings(polling_interval=timedelta(seconds=0.05))) as tasks:
        ref = tasks.add_task(work, 1)
        waits = asyncio.create_task(ref.wait(60))
        await subscribed(rows)
        await rows.execute("insert into queued_tasks.stopped (id, attempt) values ($1, 1)", ref.id)
        with pytest.raises(TaskStopped, match="retry"):
            await waits


async def test_waiting_has_an_end_although_the_task_has_none(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    with pytest.raises(TimeoutError):
        await tasks.add_task(work, 1).wait(0.05)
    await subscribed(rows, 0)


async def test_an_unknown_task_is_not_waited_for(tasks: QueuedTasks) -> None:
    with pytest.raises(TaskNotFound):
        await tasks.backend.wait(uuid4(), 60)


async def test_a_task_that_is_to_be_removed_gives_its_result_to_who_waits(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    ref = tasks.add_task(work, 1, auto_remove=True)
    await ref
    waits = asyncio.create_task(ref.wait(60))
    await subscribed(rows)
    await end(rows, ref.id, "done", '["kept"]')
    assert await waits == ["kept"]


async def test_who_waits_is_there_before_the_task_is(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    add, there = TaskStore.add, []

    async def looked(self: TaskStore, new: Sequence[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:
        there.append(await rows.fetchval("select count(*) from queued_tasks.waiter where task_id = $1", new[0].id))
        return await add(self, new, repeat=repeat)

    with patch.object(TaskStore, "add", looked), pytest.raises(TimeoutError):
        await tasks.add_task(work, 1, auto_remove=True).wait(0.05)
    assert there == [1]


async def test_it_is_gone_once_its_result_was_read(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    ref = tasks.add_task(work, 1, auto_remove=True)
    await ref
    waits = [asyncio.create_task(ref.wait(60)) for _ in range(3)]
    await subscribed(rows)
    await end(rows, ref.id, "done", "7")
    assert await asyncio.gather(*waits) == [7, 7, 7]
    assert await tasks.get_task_by_id(ref.id) is None


async def test_it_stays_until_all_processes_have_read_its_result(
    tasks: QueuedTasks, rows: asyncpg.Connection, database: str
) -> None:
    ref = tasks.add_task(work, 1, auto_remove=True)
    await ref
    waits = asyncio.create_task(ref.wait(60))
    await subscribed(rows)
    await rows.execute("insert into queued_tasks.waiter (task_id, topic) values ($1, 'another process')", ref.id)
    await end(rows, ref.id, "done", "7")
    assert await waits == 7
    assert await ref.get_state() is TaskState.DONE
    await rows.execute("select queued_tasks.have_read($1, 'another process')", [ref.id])
    assert await tasks.get_task_by_id(ref.id) is None


async def test_what_can_not_get_better_is_told_to_who_waits(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    ref = tasks.add_task(work, 1)
    waits = asyncio.create_task(ref.wait(60))
    await subscribed(rows)
    topic = await rows.fetchval("select topic from queued_tasks.waiter")
    await rows.execute("drop function queued_tasks.get_ends")
    await rows.execute("select pg_notify($1, $2)", topic, str(ref.id))
    with pytest.raises(SchemaOutdated):
        await waits


async def test_a_task_that_was_removed_with_its_end_is_not_waited_for(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    ref = tasks.add_task(work, 1, auto_remove=True)
    await end(rows, await ref, "done", "7")
    with pytest.raises(TaskNotFound):
        await ref.wait(60)


async def test_a_thousand_who_wait_share_one_connection_and_few_queries(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    refs = await tasks.add_tasks([TaskSpec(work, [number]) for number in range(1_000)])
    calls: Counter[str] = Counter()
    fetch = Link.fetch

    async def counted(self: Link, statement: str, *args: object, **options: Any) -> list[Row]:
        calls[statement] += 1
        return await fetch(self, statement, *args, **options)

    with patch.object(Link, "fetch", counted):
        waits = [asyncio.create_task(ref.wait(60)) for ref in refs]
        await subscribed(rows, 1_000)
        listening = await rows.fetchval(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and application_name like '%waiter'"
        )
        for ref in refs:
            await rows.execute("insert into queued_tasks.result (id, state, attempt) values ($1, 'done', 1)", ref.id)
        topic = await rows.fetchval("select distinct topic from queued_tasks.waiter")
        for at in range(0, 1_000, 200):
            await rows.execute("select pg_notify($1, $2)", topic, " ".join(str(ref.id) for ref in refs[at : at + 200]))
        assert await asyncio.gather(*waits) == [None] * 1_000
    assert listening == 1
    assert calls["subscribe"] == 1
    assert calls["get_ends"] <= 6


async def test_without_notifications_it_looks_again_and_again(database: str, rows: asyncpg.Connection) -> None:
    settings = Settings(use_postgresql_notify=False, polling_interval=timedelta(seconds=0.1))
    async with QueuedTasks.connect(database, settings=settings) as tasks:
        ref = tasks.add_task(work, 1)
        waits = asyncio.create_task(ref.wait(60))
        await ref
        await end(rows, ref.id, "done", "7")
        assert await waits == 7


async def test_without_notifications_too_a_result_is_kept_for_who_waits(
    database: str, rows: asyncpg.Connection
) -> None:
    settings = Settings(use_postgresql_notify=False, polling_interval=timedelta(seconds=0.1))
    async with QueuedTasks.connect(database, settings=settings) as tasks:
        ref = tasks.add_task(work, 1, auto_remove=True)
        await ref
        waits = asyncio.create_task(ref.wait(60))
        await subscribed(rows)
        await end(rows, ref.id, "done", "7")
        assert await waits == 7


async def test_a_lost_listening_connection_is_opened_again(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    ref = tasks.add_task(work, 1)
    waits = asyncio.create_task(ref.wait(60))
    await subscribed(rows)
    await rows.execute("truncate queued_tasks.waiter")  # as a crash of PostgreSQL does
    await rows.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name like '%waiter'"
    )
    await subscribed(rows)
    await end(rows, ref.id, "done", "7")
    assert await waits == 7


async def test_an_end_that_nobody_told_of_is_seen_however_many_others_are(
    database: str, rows: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(polling_interval=timedelta(seconds=0.5))
    async with QueuedTasks.connect(database, settings=settings) as tasks:
        assert isinstance(tasks.backend, DirectBackend)
        waiters = tasks.backend._waiters
        quiet, other = tasks.add_task(work, 1), tasks.add_task(work, 2)
        await tasks.flush()
        looks, look = [], waiters._look

        async def counted(everybody: bool) -> None:
            looks.append(everybody)
            await look(everybody)

        monkeypatch.setattr(waiters, "_look", counted)

        async def come_and_go() -> None:
            while True:
                with suppress(TimeoutError):
                    await other.wait(0.05)

        crowd = asyncio.create_task(come_and_go())
        waits = asyncio.create_task(quiet.wait(10))
        await wait_until(lambda: quiet.id in waiters._subscribed)
        looks.clear()
        await wait_until(lambda: len(looks) > 2)  # one of them was at this one
        await rows.execute("insert into queued_tasks.result (id, state, attempt) values ($1, 'done', 1)", quiet.id)
        try:
            assert await waits is None
        finally:
            crowd.cancel()


async def test_an_end_that_was_being_recorded_when_somebody_came_to_wait_is_seen(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    """It had looked for who waits before he came, so it tells nobody; and he looked before it was there."""
    ref = tasks.add_task(work, 1)
    await ref
    looked = asyncio.Event()

    async def ends(reads: Reads, ids: Sequence[UUID]) -> dict[UUID, Row]:
        found = await look(reads, ids)
        looked.set()
        return found

    look = Reads.ends
    with patch.object(Reads, "ends", ends):
        waiting = asyncio.create_task(ref.wait())
        await looked.wait()
        await rows.execute(
            "insert into queued_tasks.result (id, state, attempt, result) values ($1, 'done', 1, '7')", ref.id
        )
        assert await asyncio.wait_for(waiting, 20) == 7


async def test_an_outage_is_waited_out(database: str, rows: asyncpg.Connection) -> None:
    settings = Settings(polling_interval=timedelta(seconds=0.1))
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn, settings=settings) as tasks:
        ref = tasks.add_task(work, 1)
        waits = asyncio.create_task(ref.wait(60))
        await subscribed(rows)
        proxy.cut()
        await end(rows, ref.id, "done", "7")
        await proxy.open()
        assert await waits == 7


async def test_a_long_outage_is_told(database: str, rows: asyncpg.Connection) -> None:
    settings = Settings(polling_interval=timedelta(seconds=0.05))
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn, settings=settings) as tasks:
        waits = asyncio.create_task(tasks.add_task(work, 1).wait(60))
        await subscribed(rows)
        with patch.object(waiting, "_PATIENCE", 0.2):
            proxy.cut()
            with pytest.raises(DatabaseUnavailable):
                await waits


async def test_the_listening_connection_is_closed_when_nobody_waits_for_a_while(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    with patch.object(waiting, "_IDLE", 0.05):
        ref = tasks.add_task(work, 1)
        await end(rows, await ref, "done")
        await ref.wait(60)

        async def is_closed() -> bool:
            return not await rows.fetchval(
                "select count(*) from pg_stat_activity"
                " where datname = current_database() and application_name like '%waiter'"
            )

        await wait_until(is_closed)
    again = tasks.add_task(work, 2)
    await end(rows, await again, "done", "2")
    assert await again.wait(60) == 2
