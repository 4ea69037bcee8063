"""Without notifications everything is found by looking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from queued_tasks import QueuedTasks, Settings, TaskCancelled
from tests.apps import work
from tests.databases import connected
from tests.servers import Server, held_tasks, running_server, started
from tests.waiting import wait_until

LIMIT = 30  # seconds


@pytest.fixture
async def tasks(database: str) -> AsyncIterator[QueuedTasks]:
    settings = Settings(use_postgresql_notify=False)
    async with QueuedTasks.connect(database, settings=settings) as tasks:
        yield tasks


@pytest.fixture(autouse=True)
async def server(database: str) -> AsyncIterator[Server]:
    async with running_server(database, use_postgresql_notify="false", fallback_polling_interval=1) as server:
        yield server


async def test_async_and_sync_tasks_run(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(work.add, 1, 2).wait(LIMIT) == 3
    assert await tasks.add_task(work.add_plainly, 3, 4).wait(LIMIT) == 7


async def test_delayed_tasks_run(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(work.add, 1, 2, run_at=timedelta(seconds=0.2)).wait(LIMIT) == 3


async def test_failed_attempts_are_repeated(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(work.fail_at_first, 1).wait(LIMIT) == 2


async def test_children_run_after_their_parents(tasks: QueuedTasks) -> None:
    parent = tasks.add_task(work.add, 1, 2)
    assert await tasks.add_task(work.add, 3, 4, parent=parent).wait(LIMIT) == 7


async def test_tasks_wait_for_others(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(work.ask_child, 2, 3).wait(LIMIT) == 5


async def test_a_running_task_is_cancelled(tasks: QueuedTasks, tmp_path: Path) -> None:
    (ref,) = await held_tasks(tasks, tmp_path, 1)
    await wait_until(lambda: started(tmp_path))
    assert await ref.cancel()
    with pytest.raises(TaskCancelled):
        await ref.wait(LIMIT)


async def test_a_lane_that_was_made_before_the_newest_and_committed_after_it_is_found(
    tasks: QueuedTasks, database: str
) -> None:
    make = "insert into queued_tasks.lane (channel, priority, sync, again) values ('late', 0, false, false)"
    async with connected(database) as slow:
        async with slow.transaction():
            await slow.execute(make)
            await tasks.add_task(work.add, 1, 2, channel="new").wait(LIMIT)
        assert await tasks.add_task(work.add, 3, 4, channel="late").wait(LIMIT) == 7
