"""A handle in a thread that runs an event loop of its own: it adds tasks, and says of all else where that is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from queued_tasks.runtime.errors import InvalidState
from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.refs import TaskRef
from queued_tasks.runtime.task import TaskSpec

Verb = Callable[[QueuedTasks, TaskRef], Coroutine[Any, Any, object]]


def work(value: int) -> None: ...


async def first_of(updates: Any) -> object:
    return await anext(updates)


THAT_ADD: list[Verb] = [
    lambda tasks, _: tasks.add_tasks([TaskSpec(work, (number,)) for number in range(3)]),
    lambda tasks, _: tasks.add_tasks([TaskSpec(work, (number,)) for number in range(1_500)]),
    lambda tasks, _: tasks.add_task_async(work, 2),
    lambda tasks, _: tasks.schedule(work, timedelta(hours=1), args=[2]),
]
THAT_ASK: list[Verb] = [
    lambda tasks, _: tasks.flush(),
    lambda tasks, ref: tasks.get_task_by_id(ref.id),
    lambda tasks, ref: tasks.retry_task(ref.id),
    lambda tasks, ref: tasks.get_logs(ref.id),
    lambda tasks, _: tasks.get_pending_tasks_count(),
    lambda tasks, _: tasks.list_tasks(),
    lambda tasks, ref: first_of(tasks.watch(ref.id)),
    lambda _, ref: ref.wait(),
    lambda _, ref: ref.cancel(),
    lambda _, ref: ref.stop(),
    lambda _, ref: ref.get_state(),
    lambda _, ref: first_of(ref.watch()),
]


async def elsewhere(work: Callable[[], Coroutine[Any, Any, object]]) -> object:
    """What comes of it in a thread, on an event loop of that one."""

    def run() -> object:
        return asyncio.run(asyncio.wait_for(work(), 20))

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("verb", [*THAT_ADD, *THAT_ASK])
async def test_what_is_awaited_on_another_loop_names_the_cure(
    tasks: QueuedTasks, rows: asyncpg.Connection, verb: Verb
) -> None:
    ref = tasks.add_task(work, 1)
    await ref
    with pytest.raises(InvalidState, match=r"QueuedTasks\.sync\(\)"):
        await elsewhere(lambda: verb(tasks, ref))
    await tasks.flush()
    assert await rows.fetchval("select count(*) from queued_tasks.task") == 1
    assert await ref.cancel()


async def test_a_task_that_is_awaited_on_another_loop_is_added_all_the_same(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    async def add() -> None:
        await tasks.add_task(work, 1)

    with pytest.raises(InvalidState, match="without await works anywhere"):
        await elsewhere(add)
    await tasks.flush()
    assert await rows.fetchval("select count(*) from queued_tasks.task") == 1


async def test_a_task_that_is_added_on_another_loop_is_written_on_that_of_the_handle(tasks: QueuedTasks) -> None:
    async def add() -> TaskRef:
        return tasks.add_task(work, 1)

    ref = await elsewhere(add)
    assert isinstance(ref, TaskRef)
    assert await ref == ref.id
