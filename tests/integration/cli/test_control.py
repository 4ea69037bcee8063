"""The commands that end tasks, retry families, and follow logs."""

from __future__ import annotations

import asyncio
import sys
from uuid import UUID, uuid4

import pytest

from queued_tasks import QueuedTasks, TaskSpec, TaskState
from tests.apps import work
from tests.command import environment, queued_tasks
from tests.databases import connected
from tests.servers import running_server

LIMIT = 60  # seconds


async def add(tasks: QueuedTasks) -> UUID:
    return await tasks.add_task(work.add, 1, 2)


async def state(tasks: QueuedTasks, id: UUID) -> TaskState:
    task = await tasks.get_task_by_id(id)
    assert task is not None
    return task.state


async def test_cancel_ends_all_that_are_named(tasks: QueuedTasks, database: str) -> None:
    ids = [await add(tasks), await add(tasks)]
    ran = await queued_tasks("tasks", "cancel", *ids, "--yes", database=database)
    assert (ran.code, ran.out) == (0, "".join(f"{id} is cancelled.\n" for id in ids))
    assert [await state(tasks, id) for id in ids] == [TaskState.CANCELLED] * 2


async def test_cancel_asks_and_takes_a_no(tasks: QueuedTasks, database: str) -> None:
    id = await add(tasks)
    ran = await queued_tasks("tasks", "cancel", id, database=database, answer="n\n")
    assert ran.code == 1
    assert "Cancel 1 task?" in ran.err
    assert await state(tasks, id) is TaskState.ENQUEUED


async def test_cancel_of_what_has_ended_or_never_was_fails_and_does_the_rest(tasks: QueuedTasks, database: str) -> None:
    over, unknown, id = await add(tasks), uuid4(), await add(tasks)
    await tasks.cancel_task(over)
    ran = await queued_tasks("tasks", "cancel", over, unknown, id, "-y", database=database)
    assert ran.code == 1
    assert f"{over} has ended" in ran.err
    assert str(unknown) in ran.err
    assert await state(tasks, id) is TaskState.CANCELLED


async def test_stop_of_what_does_not_run_says_so(tasks: QueuedTasks, database: str) -> None:
    id = await add(tasks)
    ran = await queued_tasks("tasks", "stop", id, "--yes", database=database)
    assert (ran.code, ran.err) == (1, f"queued-tasks: {id} does not run: there is nothing to stop.\n")


async def test_retry_takes_the_subtree_along(tasks: QueuedTasks, database: str) -> None:
    parent, child = await tasks.chain(TaskSpec(work.add, [1, 2]), TaskSpec(work.add, [1, 2]))
    await parent.cancel()
    assert await child.get_state() is TaskState.CANCELLED
    assert (await queued_tasks("retry", parent.id, "--subtree", database=database)).code == 0
    assert len(await tasks.list_tasks(name="add_retry")) == 2


async def test_logs_are_followed_until_the_task_has_ended(
    tasks: QueuedTasks, database: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    id = await tasks.add_task(work.report, str(folder))
    following = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "queued_tasks", "tasks", "logs", "--follow", str(id)),
        stdout=asyncio.subprocess.PIPE,
        env=environment(database),
    )
    assert following.stdout
    async with running_server(database), asyncio.timeout(LIMIT):
        assert b"half" in await following.stdout.readline()
        (folder / "go").touch()
        assert b"whole" in await following.stdout.readline()
        assert await following.wait() == 0


async def test_follow_and_json_exclude_each_other(database: str) -> None:
    ran = await queued_tasks("tasks", "logs", uuid4(), "-f", "--json", database=database)
    assert ran.code == 2


async def test_clear_deletes_what_was_posted_too(tasks: QueuedTasks, database: str) -> None:
    async with connected(database) as connection:
        id = await tasks.on(connection).add_task(work.add, 1, 2)
    assert (await queued_tasks("clear", "--yes", database=database)).out == "Deleted 1 task.\n"
    assert await tasks.get_task_by_id(id) is None
