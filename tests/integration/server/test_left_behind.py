"""What another server left of a bundle behind this one's low-water is found."""

from __future__ import annotations

import asyncpg
import pytest

from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.task import TaskSpec
from tests.apps import work
from tests.servers import Rows, running_server
from tests.waiting import wait_until


@pytest.mark.parametrize("count", [5, 50])
async def test_the_rest_of_a_bundle_whose_claimer_has_gone(
    database: str, tasks: QueuedTasks, rows: Rows, count: int
) -> None:
    await tasks.add_tasks([TaskSpec(work.add, (1, 2)) for _ in range(64)])
    other = await asyncpg.connect(database)
    try:
        await other.execute("begin")
        await other.execute("delete from queued_tasks.bundle")
        await tasks.add_tasks([TaskSpec(work.add, (1, 2)) for _ in range(64)])
        async with running_server(database, workers=1, concurrency=2):
            await wait_until(lambda: rows.value("select count(*) = 64 from queued_tasks.result"))
            await other.execute(
                "insert into queued_tasks.bundle (lane, seq, ids, attempt) "
                "select l.id, 2, (array(select t.id from queued_tasks.task t order by t.id))["
                f"{64 - count + 1}:64], 1 from queued_tasks.lane l where not l.again"
            )
            await other.execute("commit")
            await wait_until(lambda: rows.value(f"select count(*) = {64 + count} from queued_tasks.result"))
    finally:
        await other.close()
