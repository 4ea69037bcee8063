"""What a worker holds beyond its slots, because its tasks were short, when they are not so any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queued_tasks import QueuedTasks, TaskSpec
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


async def is_left(rows: Rows, count: int) -> bool:
    return await rows.left() == count
