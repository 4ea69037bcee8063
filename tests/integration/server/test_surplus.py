"""What a worker holds without running it, when what it waits for takes longer than it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from queued_tasks import QueuedTasks, TaskRef, TaskSpec
from tests.apps import work
from tests.servers import Rows, go, running_server
from tests.waiting import wait_until

SHORT = 3_000  # tasks, enough to let a worker seem fast


@pytest.mark.parametrize(("short", "slow"), [(work.add, work.hold), (work.add_plainly, work.hold_plainly)])
async def test_short_tasks_do_not_stay_behind_slow_ones_while_another_worker_is_free(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path, short: Callable[..., Any], slow: Callable[..., Any]
) -> None:
    shorts = [TaskSpec(short, (1, 2)) for _ in range(SHORT)]
    await tasks.add_tasks([*shorts, TaskSpec(slow, (str(tmp_path),)), *shorts])
    async with running_server(database, workers=2, concurrency=1):
        await wait_until(lambda: is_left(rows, 1))
        go(tmp_path)
        await wait_until(lambda: is_left(rows, 0))
    assert await rows.value("select count(*) from queued_tasks.attempt") == 0, "what did not start was no attempt"


async def test_a_task_on_its_last_life_does_not_wait_for_another_one_while_another_worker_is_free(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    slow = TaskSpec(work.hold, (str(tmp_path),))
    refs = await tasks.add_tasks([slow, *(TaskSpec(work.add, (1, 2)) for _ in range(3))])
    for ref in refs:
        await end_two_lives(rows, ref)
    async with running_server(database, workers=2, concurrency=2):
        await wait_until(lambda: is_left(rows, 1))
        go(tmp_path)
        await wait_until(lambda: is_left(rows, 0))
    assert {tuple(await rows.outcomes(ref.id)) for ref in refs} == {("crashed", "crashed")}


async def end_two_lives(rows: Rows, ref: TaskRef) -> None:
    """Leave this task as it is after two of its workers have died."""
    await rows.value(
        "insert into queued_tasks.attempt (id, attempt, outcome, server, started_at, ended_at) "
        "select $1, n, 'crashed', $2, now(), now() from generate_series(1, 2) n",
        ref.id,
        uuid4(),
    )
    await rows.value("update queued_tasks.bundle set attempt = 3 where $1 = any (ids)", ref.id)


async def is_left(rows: Rows, count: int) -> bool:
    return await rows.left() == count
