"""Following tasks as they go on, by notifications alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from queued_tasks import QueuedTasks, Settings, TaskNotFound, TaskState, TaskUpdate
from tests.apps import work
from tests.databases import connected
from tests.proxy import proxied
from tests.servers import Rows, go, marks, running_server
from tests.store import Store
from tests.waiting import wait_until

LIMIT = 60  # seconds
NEVER = timedelta(hours=1)  # between two polls: what is seen earlier was notified


@pytest.fixture
async def tasks(database: str) -> AsyncIterator[QueuedTasks]:
    async with QueuedTasks.connect(database, settings=Settings(polling_interval=NEVER)) as handle:
        yield handle


async def collected(updates: AsyncIterator[TaskUpdate], into: list[TaskUpdate]) -> list[TaskUpdate]:
    async for update in updates:
        into.append(update)  # noqa: PERF401  # each as it comes
    return into


async def test_states_context_and_logs_arrive_while_the_task_runs(
    tasks: QueuedTasks, database: str, tmp_path: Path
) -> None:
    ref = tasks.add_task(work.report, str(tmp_path))
    seen: list[TaskUpdate] = []
    watching = asyncio.create_task(collected(ref.watch(), seen))
    await wait_until(lambda: seen)
    async with asyncio.timeout(LIMIT):
        async with running_server(database):
            await wait_until(
                lambda: any(update.context.get("step") == 1 and update.state == "doing" for update in seen)
            )
            await wait_until(lambda: any(line.message == "half" for update in seen for line in update.logs))
            go(tmp_path)
            await watching
    assert [seen[0].state, seen[-1].state] == [TaskState.ENQUEUED, TaskState.DONE]
    assert (seen[-1].task.result, seen[-1].context["step"]) == ("over", 2)
    assert [line.message for update in seen for line in update.logs] == ["half", "whole"]


async def test_a_task_that_has_ended_is_one_update(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(work.add, 1, 2)
    await ref
    await ref.cancel()
    (update,) = await collected(ref.watch(), [])
    assert (update.state, update.changed) == (TaskState.CANCELLED, frozenset({"state"}))


async def test_what_never_was_can_not_be_followed(tasks: QueuedTasks) -> None:
    with pytest.raises(TaskNotFound):
        await collected(tasks.watch("01900000-0000-7000-8000-000000000000"), [])


async def test_a_thousand_share_one_connection(tasks: QueuedTasks, database: str, rows: Rows) -> None:
    ref = tasks.add_task(work.add, 1, 2)
    await ref
    seen: list[TaskUpdate] = []
    watching = [asyncio.create_task(collected(tasks.watch(ref.id), seen)) for _ in range(1000)]
    await wait_until(lambda: len(seen) == 1000)
    count = "select count(*) from pg_stat_activity where application_name like 'queued-tasks %'"
    assert await rows.value(f"{count} and datname = current_database()") <= 4
    assert await rows.value("select count(*) from queued_tasks.waiter") == 1
    await ref.cancel()
    await asyncio.gather(*watching)


async def test_nobody_who_watches_costs_no_notification(tasks: QueuedTasks, rows: Rows) -> None:
    ref = tasks.add_task(work.add, 1, 2)
    await ref
    waits = asyncio.create_task(ref.wait())
    await wait_until(lambda: rows.value("select count(*) = 1 from queued_tasks.waiter"))
    assert await rows.value("select count(*) from queued_tasks.waiter where progress") == 0
    waits.cancel()
    await asyncio.wait([waits])


async def test_a_lost_connection_misses_nothing(tasks: QueuedTasks, database: str) -> None:
    ref = tasks.add_task(work.add, 1, 2)
    await ref
    seen: list[TaskUpdate] = []
    watching = asyncio.create_task(collected(ref.watch(), seen))
    async with connected(database) as rows:
        await wait_until(lambda: rows.fetchval("select count(*) = 1 from queued_tasks.waiter where progress"))
        await rows.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'queued-tasks waiter' and datname = current_database()"
        )
        await ref.cancel()
    await asyncio.wait_for(watching, LIMIT)
    assert seen[-1].state is TaskState.CANCELLED


@pytest.mark.usefixtures("server")
async def test_an_outage_of_the_network_misses_nothing(database: str, tmp_path: Path) -> None:
    seen: list[TaskUpdate] = []
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn) as tasks:
        ref = tasks.add_task(work.report, str(tmp_path))
        await ref
        watching = asyncio.create_task(collected(ref.watch(), seen))
        await wait_until(lambda: any(update.logs for update in seen))
        proxy.cut()
        go(tmp_path)
        async with QueuedTasks.connect(database) as others:
            await wait_until(lambda: _has_ended(others, ref.id))
        await proxy.open()
        await asyncio.wait_for(watching, LIMIT)
    assert [line.message for update in seen for line in update.logs] == ["half", "whole"]
    assert (seen[-1].state, seen[-1].context) == (TaskState.DONE, {"step": 2})


@pytest.mark.usefixtures("server")
async def test_auto_remove_waits_for_whoever_follows_and_then_goes(
    tasks: QueuedTasks, tmp_path: Path, rows: Rows
) -> None:
    ref = tasks.add_task(work.hold, str(tmp_path), auto_remove=True)
    watching = asyncio.create_task(collected(ref.watch(), []))
    await wait_until(lambda: rows.value("select count(*) = 1 from queued_tasks.waiter where progress"))
    await wait_until(lambda: marks(tmp_path, "started") == 1)
    go(tmp_path)
    assert (await watching)[-1].state is TaskState.DONE
    await wait_until(lambda: rows.value("select count(*) = 0 from queued_tasks.task"))
    with pytest.raises(TaskNotFound):
        await ref.wait()


@pytest.mark.usefixtures("server")
async def test_a_task_follows_another_one(tasks: QueuedTasks, database: str) -> None:
    assert await tasks.add_task(work.follow_another).wait(LIMIT) == "done"


async def test_waiters_of_tasks_that_have_ended_are_pruned(database: str, rows: Rows) -> None:
    await rows.value("insert into queued_tasks.waiter (task_id, topic) values (gen_random_uuid(), 'gone')")

    async with AsyncExitStack() as stack:
        store = await Store.open(database, stack)
        await store.upkeep.prune_traces(1)
    assert await rows.value("select count(*) from queued_tasks.waiter") == 0


async def _has_ended(tasks: QueuedTasks, id: UUID) -> bool:
    task = await tasks.get_task_by_id(id)
    return task is not None and task.state.is_final
